//! Activation keys, and the throttling of guesses.

use futures_util::future::join_all;
use revwallet::auth::Scope;
use serde_json::json;

use super::offers::{create_code, crowd};
use super::{add, buy, buyer, change, delete, next_entitlement, refund, titles};
use crate::harness::{Client, Response, run};

#[tokio::test]
async fn guesses_of_codes_and_keys_have_to_wait() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let (ada, bob) = (buyer(app, "ada", 1_000).await, buyer(app, "bob", 1_000).await);
        create_code(&store, json!({ "code": "right", "percent": 10 })).await;
        let last = add(&store, "Last", "100", json!({ "copies": 1 })).await;
        for n in 0..10 {
            let code = json!({ "code": format!("wrong{n}") });
            buy(&ada, id, code).await.problem(404, "code-invalid");
            if n < 9 {
                // A right code does not forgive the wrong ones.
                let code = json!({ "code": "right" });
                buy(&ada, last, code).await.problem(422, "insufficient-funds");
            }
            redeem(&ada, "00000-00000-00000-00000-00000").await.problem(404, "key-not-found");
        }
        let throttled = buy(&ada, id, json!({ "code": "right" })).await;
        throttled.problem(429, "too-many-requests");
        assert!(!throttled.header("retry-after").is_empty());
        redeem(&ada, "00000-00000-00000-00000-00001").await.problem(429, "too-many-requests");
        assert_eq!(buy(&bob, id, json!({ "code": "right" })).await.status, 201);
        assert_eq!(
            buy(&ada, id, json!({})).await.status,
            201,
            "without a code there is nothing to guess"
        );
        let metrics = app.internal.get("/metrics").await.text;
        assert!(metrics.contains(r#"wallet_rate_limited_total{scope="code"} 1"#));
        assert!(metrics.contains(r#"wallet_store_redeems_total{outcome="throttled"} 1"#));
        assert!(metrics.contains(r#"wallet_store_redeems_total{outcome="unknown"} 10"#));
    })
    .await;
}

pub(super) async fn redeem(client: &Client, key: &str) -> Response {
    client.post("/api/games/redeem", json!({ "key": key })).await
}

/// Makes keys and returns them.
pub(super) async fn keys(client: &Client, game: i64, count: i32) -> Vec<String> {
    let made = client.post(&format!("/api/games/{game}/keys"), json!({ "count": count })).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let made = made.json();
    let keys = made["keys"].as_array().unwrap().iter();
    keys.map(|key| key["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_adds_its_game_to_one_library_once() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({ "copies": 10 })).await;
        let users = crowd(app, 20, 0).await;
        let path = format!("/api/games/{id}/keys");
        let first = store.post_with_key(&path, "k", json!({ "count": 3 })).await;
        let again = store.post_with_key(&path, "k", json!({ "count": 3 })).await;
        assert_eq!(first.json()["keys"].as_array().unwrap().len(), 3);
        assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"));
        for (n, key) in again.json()["keys"].as_array().unwrap().iter().enumerate() {
            assert_eq!((&key["id"], key.get("key")), (&first.json()["keys"][n]["id"], None));
        }
        store.post(&path, json!({ "count": 8 })).await.problem(409, "sold-out");
        store.post(&path, json!({ "count": 0 })).await.problem(422, "invalid");
        app.post(&path, json!({ "count": 1 })).await.problem(401, "unauthenticated");
        assert_eq!(app.get(&format!("/api/games/{id}")).await.json()["limited"], 7);
        let key = first.json()["keys"][0]["key"].as_str().unwrap().to_owned();

        let answers = join_all(users.iter().map(|user| redeem(user, &key))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.problem(409, "key-redeemed");
        }
        let winner = users.iter().zip(&answers).find(|(_, answer)| answer.status == 200).unwrap().0;
        assert_eq!(titles(winner).await, ["Alpha"]);
        assert_eq!(redeem(winner, &key.to_lowercase()).await.status, 200, "a lost answer");
        let second = first.json()["keys"][1]["key"].as_str().unwrap().to_owned();
        redeem(winner, &second).await.problem(409, "game-owned");
        refund(winner, id, json!({})).await.problem(409, "refund-refused");
        let other = users.iter().find(|user| user.id != winner.id).unwrap();
        assert_eq!(redeem(other, &second.replace('-', "")).await.status, 200);
        let stored: i64 = {
            let mut db = app.database.connect().await;
            let plain = "select count(*) from activation_key where position(convert_to($1, 'UTF8') in hash) > 0";
            sqlx::query_scalar(plain).bind(&key).fetch_one(&mut db).await.unwrap()
        };
        assert_eq!(stored, 0, "only the hash is stored");
    })
    .await;
}

#[tokio::test]
async fn a_key_of_content_needs_the_base() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let base = add(&store, "Base", "0", json!({})).await;
        let more = add(&store, "More", "5", json!({ "base": base })).await;
        let ada = app.user("ada").await;
        let made = keys(&store, more, 1).await;
        redeem(&ada, &made[0]).await.problem(409, "base-game-missing");
        let mut socket = ada.socket().await;
        socket.subscribe("game_updates").await;
        assert_eq!(buy(&ada, base, json!({})).await.status, 201);
        assert_eq!(redeem(&ada, &made[0]).await.json()["gameId"], more);
        for game in [base, more] {
            let event = next_entitlement(&mut socket).await;
            assert_eq!(event["data"]["gameId"], game);
        }
        assert_eq!(refund(&ada, base, json!({})).await.status, 200);
        assert!(titles(&ada).await.is_empty());
        // The copy went with its base, and comes back with it.
        redeem(&ada, &made[0]).await.problem(409, "base-game-missing");
        assert_eq!(buy(&ada, base, json!({})).await.status, 201);
        assert_eq!(redeem(&ada, &made[0]).await.status, 200);
        assert_eq!(titles(&ada).await.len(), 2);
        let deleted = delete(&store, more).await;
        assert_eq!(deleted.status, 200);
        let kept = app.get(&format!("/api/games/{more}")).await.json();
        assert_eq!(kept["state"], "retired", "its keys were given out");
        assert_eq!(change(&store, more, json!({ "state": "published" })).await.status, 200);
    })
    .await;
}

//! API keys of one publisher: their scopes hold for its games and for nothing else.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::offers::{create_code, put_sale, running};
use super::{add, buy, buyer, change, game, publisher};
use crate::harness::{Client, TestApp, run};

async fn key_of(app: &TestApp, publisher: &str, scope: &str) -> Client {
    let admin = app.api_key(&[Scope::Admin]).await;
    let body = json!({ "name": "server", "scopes": [scope], "publisher": publisher });
    let created = admin.post("/api/keys", body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.json()["publisher"], publisher);
    admin.with_credential(created.json()["key"].as_str().unwrap())
}

#[tokio::test]
async fn a_key_of_a_publisher_manages_only_its_games() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        let (_, luna) = publisher(app, "luna", "10").await;
        let house = add(&store, "House", "1", json!({})).await;
        let other = add(&store, "Other", "1", json!({ "publisher": luna })).await;
        let key = key_of(app, &nova, "games:write").await;

        let own = add(&key, "Own", "1", json!({ "publisher": nova })).await;
        assert_eq!(change(&key, own, json!({ "price": "2" })).await.status, 200);
        assert_eq!(put_sale(&key, own, "a", running(&json!({ "percent": 5 }))).await.status, 201);
        let code = json!({ "percent": 5, "publisher": nova });
        assert_eq!(create_code(&key, code).await.status, 201);
        assert_eq!(key.get(&format!("/api/publishers/{nova}/statement")).await.status, 200);

        for game in [house, other] {
            change(&key, game, json!({ "copies": 5 })).await.problem(403, "forbidden");
            put_sale(&key, game, "a", running(&json!({ "percent": 5 })))
                .await
                .problem(403, "forbidden");
            let path = format!("/api/games/{game}/keys");
            key.post(&path, json!({ "count": 1 })).await.problem(403, "forbidden");
        }
        let of = |publisher: Value| {
            let mut body = game("New", "1");
            body["publisher"] = publisher;
            body
        };
        key.post("/api/games", of(json!(luna))).await.problem(403, "forbidden");
        let mut draft = of(Value::Null);
        draft["state"] = json!("draft");
        key.post("/api/games", draft).await.problem(403, "forbidden");
        create_code(&key, json!({ "percent": 5 })).await.problem(403, "forbidden");
        create_code(&key, json!({ "percent": 5, "publisher": luna }))
            .await
            .problem(403, "forbidden");
        let path = format!("/api/publishers/{luna}");
        key.get(&format!("{path}/statement")).await.problem(403, "forbidden");
        key.post(&format!("{path}/payout"), json!({})).await.problem(403, "forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_server_of_a_publisher_checks_the_owners_of_its_games() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        let own = add(&store, "Own", "1", json!({ "publisher": nova })).await;
        let house = add(&store, "House", "1", json!({})).await;
        let ada = buyer(app, "ada", 1_000).await;
        for game in [own, house] {
            assert_eq!(buy(&ada, game, json!({})).await.status, 201);
        }
        let key = key_of(app, &nova, "games:read").await;

        let owner = |game: i64| format!("/api/games/{game}/owners/{}", ada.id);
        assert_eq!(key.get(&owner(own)).await.status, 200);
        key.get(&owner(house)).await.problem(403, "forbidden");
        key.get(&format!("/api/users/{}/library", ada.id)).await.problem(403, "forbidden");
        key.get(&format!("/api/publishers/{nova}/statement")).await.problem(403, "forbidden");
        change(&key, own, json!({ "price": "2" })).await.problem(403, "forbidden");
    })
    .await;
}

#[tokio::test]
async fn a_key_of_a_publisher_has_only_scopes_of_games() {
    run(async |app| {
        let (_, nova) = publisher(app, "nova", "10").await;
        let admin = app.api_key(&[Scope::Admin]).await;
        let create = async |scopes: Value, publisher: Value| {
            let body = json!({ "name": "server", "scopes": scopes, "publisher": publisher });
            admin.post("/api/keys", body).await
        };
        for scope in ["wallet:read", "wallet:write", "users:read", "events:write", "admin"] {
            let refused = create(json!(["games:read", scope]), json!(nova)).await;
            assert_eq!(refused.problem(422, "invalid")["errors"][0]["pointer"], "/scopes");
        }
        for publisher in [json!("999"), json!("nova")] {
            let refused = create(json!(["games:read"]), publisher).await;
            assert_eq!(refused.problem(422, "invalid")["errors"][0]["pointer"], "/publisher");
        }
        assert_eq!(
            create(json!(["games:read"]), Value::Null).await.json()["publisher"],
            Value::Null
        );
    })
    .await;
}

//! API keys: made, used, rotated, revoked; from the command line and by admins.

use http::Method;
use revwallet::auth::Scope;
use serde_json::json;

use crate::harness::program::{Program, command};
use crate::harness::{TestApp, eventually, run_with};

fn said(app: &TestApp, words: &[&str]) -> String {
    let url = format!("--database-url={}", app.database.url);
    let output = command(&[words, &["--log-filter=warn", &url]].concat()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_key_from_the_command_line_opens_what_its_scopes_say() {
    run_with(&["--access=closed"], async |app| {
        let words = [
            "api-key",
            "create",
            "--name",
            "shop",
            "--scope",
            "wallet:read",
            "--scope",
            "wallet:write",
        ];
        let printed = said(app, &words);
        let key = printed.lines().next().unwrap();
        assert!(key.starts_with("rwk_"), "{printed}");
        let shop = app.with(key);

        let opened = shop
            .post("/wallet", json!({ "owner": "a", "currency": "EUR", "initial_balance": 5 }))
            .await;
        assert_eq!(opened.status, 201, "{}", opened.text);
        assert_eq!(shop.get("/wallet").await.json().as_array().unwrap().len(), 1);
        shop.get("/api/keys").await.problem(403, "forbidden");

        let listed = said(app, &["api-key", "list"]);
        assert!(
            listed.contains("shop")
                && listed.contains("wallet:read,wallet:write")
                && !listed.contains("never"),
            "{listed}"
        );
        assert!(!listed.contains(key), "only once");
        let id = key.split('_').nth(1).unwrap();
        said(app, &["api-key", "revoke", id]);
        eventually("the key is dead here too", async || shop.get("/wallet").await.status == 401)
            .await;
        assert!(said(app, &["api-key", "list"]).contains("revoked"));
    })
    .await;
}

#[tokio::test]
async fn admins_make_list_rotate_and_revoke_keys() {
    run_with(&["--access=closed"], async |app| {
        let admin = app.key(&[Scope::Admin]).await;

        let made =
            admin.post("/api/keys", json!({ "name": "bot", "scopes": ["wallet:read"] })).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let (id, first) =
            (made.json()["id"].clone(), made.json()["key"].as_str().unwrap().to_owned());
        assert_eq!(made.header("location"), format!("/api/keys/{}", id.as_str().unwrap()));
        assert_eq!(app.with(&first).get("/wallet").await.status, 200);
        let listed = admin.get("/api/keys").await;
        assert!(
            !listed.text.contains(&first) && listed.json()[1]["name"] == "bot",
            "{}",
            listed.text
        );
        assert!(listed.json()[1]["last_used_at"].is_string());
        let page = admin.get("/api/keys?limit=1").await;
        assert!(page.header("link").contains("rel=\"next\""));

        let path = format!("/api/keys/{}", id.as_str().unwrap());
        let rotated = admin.post(&format!("{path}/rotate"), json!({})).await.json();
        let second = rotated["key"].as_str().unwrap();
        assert_ne!(first, second);
        for key in [&first as &str, second] {
            assert_eq!(app.with(key).get("/wallet").await.status, 200, "both for a day");
        }
        let third = admin.post(&format!("{path}/rotate"), json!({})).await.json();
        let third = third["key"].as_str().unwrap().to_owned();
        assert_eq!(
            app.with(&first).get("/wallet").await.status,
            200,
            "the answer may have been lost"
        );
        app.with(second).get("/wallet").await.problem(401, "unauthenticated");
        let second = &third as &str;
        app.database
            .execute("update api_key set overlap_until = now() where overlap_until is not null")
            .await;
        eventually("the day is over", async || app.with(&first).get("/wallet").await.status == 401)
            .await;
        assert_eq!(app.with(second).get("/wallet").await.status, 200);

        let revoked = admin.send(admin.request(Method::DELETE, &path)).await;
        assert_eq!(revoked.status, 204);
        app.with(second).get("/wallet").await.problem(401, "unauthenticated");
        admin.send(admin.request(Method::DELETE, &path)).await.problem(404, "not-found");
        admin.post(&format!("{path}/rotate"), json!({})).await.problem(404, "not-found");
        admin
            .post("/api/keys", json!({ "name": "", "scopes": ["root"] }))
            .await
            .problem(422, "invalid");
        admin.post("/api/keys", json!({ "name": "x", "scopes": [] })).await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_is_dead_on_another_process_within_a_second() {
    run_with(&["--access=closed"], async |app| {
        let key = app.key(&[Scope::WalletRead]).await;
        let url = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&url, "--access=closed", "--allow-unsafe-server"]).await;
        let there = other.public.with(key.credential());
        assert_eq!(there.get("/wallet").await.status, 200);

        let admin = app.key(&[Scope::Admin]).await;
        let id = key.credential().split('_').nth(1).unwrap().to_owned();
        admin.send(admin.request(Method::DELETE, &format!("/api/keys/{id}"))).await;

        eventually("it is dead there", async || there.get("/wallet").await.status == 401).await;
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn what_only_looks_like_a_key_is_none() {
    run_with(&["--access=closed"], async |app| {
        let key = app.key(&[Scope::WalletRead]).await.credential().to_owned();
        let id = key.split('_').nth(1).unwrap();
        let changed = format!("{}A", &key[..key.len() - 1]);
        let changed = if changed == key { format!("{}B", &key[..key.len() - 1]) } else { changed };

        for wrong in [
            &changed as &str,
            &format!("rwk_{id}_"),
            "rwk_",
            "rwk_999_abc",
            &key[..key.len() - 1],
            &format!("{key}x"),
        ] {
            app.with(wrong).get("/wallet").await.problem(401, "unauthenticated");
        }
    })
    .await;
}

#[tokio::test]
async fn webhooks_hear_only_what_their_owner_may_see() {
    use crate::harness::receiver::Receiver;

    run_with(&["--webhook-allow-private", "--self-service-funding"], async |app| {
        let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
        let (ada, bob) = (app.person("ada").await, app.person("bob").await);
        let reader = app.key(&[Scope::WalletRead]).await;
        let clients = [&ada.client, &bob.client, &reader];
        for (client, receiver) in clients.into_iter().zip(&receivers) {
            let made = client
                .post(
                    "/wallet/webhook",
                    json!({ "url": receiver.url(), "events": ["transfer.deposit"] }),
                )
                .await;
            assert_eq!(made.status, 201, "{}", made.text);
        }
        let open = async |who: &crate::harness::Client| {
            who.post("/wallet", json!({ "owner": "x", "currency": "EUR" })).await.json()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let (hers, common) = (open(&ada).await, open(app).await);

        assert_eq!(
            ada.post("/wallet/deposit", json!({ "id": hers, "amount": 5 })).await.status,
            200
        );
        assert_eq!(
            app.post("/wallet/deposit", json!({ "id": common, "amount": 5 })).await.status,
            200
        );

        eventually("whoever may hear has heard", async || {
            receivers[0].heard().len() == 2
                && receivers[2].heard().len() == 2
                && receivers[1].heard().len() == 1
        })
        .await;
        assert_eq!(receivers[1].taken(&hers).len(), 0, "not bob");
        bob.get("/wallet/webhook/1").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn many_requests_with_one_key_cost_few_lookups() {
    run_with(&["--access=closed"], async |app| {
        let key = app.key(&[Scope::WalletRead]).await;
        for _ in 0..50 {
            assert_eq!(key.get("/wallet").await.status, 200);
        }
        let metrics = app.internal.get("/metrics").await.text;
        let count = metrics.lines().find_map(|line| {
            line.strip_prefix(
                "db_client_operation_duration_seconds_count{db_operation_name=\"keys.find\"} ",
            )?
            .parse::<u32>()
            .ok()
        });
        assert!(count.is_some_and(|count| count <= 5), "{count:?}");
    })
    .await;
}

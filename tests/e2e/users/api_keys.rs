//! API keys: creation, use, rotation and revocation, on the command line and by admins.

use http::Method;
use revwallet::auth::Scope;
use serde_json::json;

use crate::harness::program::{Program, command};
use crate::harness::{TestApp, eventually, run_with};

/// Runs a command on the database of the app and returns its output.
fn run_command(app: &TestApp, arguments: &[&str]) -> String {
    let url = format!("--database-url={}", app.database.url);
    let output = command(&[arguments, &["--log-filter=warn", &url]].concat()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_key_created_on_the_command_line_grants_its_scopes() {
    run_with(&["--access=closed"], async |app| {
        let arguments = [
            "api-key",
            "create",
            "--name",
            "shop",
            "--scope",
            "wallet:read",
            "--scope",
            "wallet:write",
        ];
        let printed = run_command(app, &arguments);
        let key = printed.lines().next().unwrap();
        assert!(key.starts_with("rwk_"), "{printed}");
        let shop = app.with_credential(key);

        let opened = shop
            .post("/wallet", json!({ "owner": "a", "currency": "EUR", "initial_balance": 5 }))
            .await;
        assert_eq!(opened.status, 201, "{}", opened.text);
        assert_eq!(shop.get("/wallet").await.json().as_array().unwrap().len(), 1);
        shop.get("/api/keys").await.problem(403, "forbidden");

        let listed = run_command(app, &["api-key", "list"]);
        assert!(
            listed.contains("shop")
                && listed.contains("wallet:read,wallet:write")
                && !listed.contains("never"),
            "{listed}"
        );
        assert!(!listed.contains(key), "the list contains the secret key");
        let id = key.split('_').nth(1).unwrap();
        run_command(app, &["api-key", "revoke", id]);
        eventually("the running app rejects the revoked key", async || {
            shop.get("/wallet").await.status == 401
        })
        .await;
        assert!(run_command(app, &["api-key", "list"]).contains("revoked"));
    })
    .await;
}

#[tokio::test]
async fn admins_create_list_rotate_and_revoke_keys() {
    run_with(&["--access=closed"], async |app| {
        let admin = app.api_key(&[Scope::Admin]).await;

        let created =
            admin.post("/api/keys", json!({ "name": "bot", "scopes": ["wallet:read"] })).await;
        assert_eq!(created.status, 201, "{}", created.text);
        let (id, first) =
            (created.json()["id"].clone(), created.json()["key"].as_str().unwrap().to_owned());
        assert_eq!(created.header("location"), format!("/api/keys/{}", id.as_str().unwrap()));
        assert_eq!(app.with_credential(&first).get("/wallet").await.status, 200);
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
            assert_eq!(
                app.with_credential(key).get("/wallet").await.status,
                200,
                "both keys are valid during the overlap"
            );
        }
        let third = admin.post(&format!("{path}/rotate"), json!({})).await.json();
        let third = third["key"].as_str().unwrap().to_owned();
        assert_eq!(
            app.with_credential(&first).get("/wallet").await.status,
            200,
            "the oldest key stays valid: the response of the first rotation may have been lost"
        );
        app.with_credential(second).get("/wallet").await.problem(401, "unauthenticated");
        let second = &third as &str;
        app.database
            .execute("update api_key set overlap_until = now() where overlap_until is not null")
            .await;
        eventually("the first key expires after the overlap", async || {
            app.with_credential(&first).get("/wallet").await.status == 401
        })
        .await;
        assert_eq!(app.with_credential(second).get("/wallet").await.status, 200);

        let revoked = admin.send(admin.request(Method::DELETE, &path)).await;
        assert_eq!(revoked.status, 204);
        app.with_credential(second).get("/wallet").await.problem(401, "unauthenticated");
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
async fn a_revoked_key_is_rejected_by_another_process_within_a_second() {
    run_with(&["--access=closed"], async |app| {
        let key = app.api_key(&[Scope::WalletRead]).await;
        let url = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&url, "--access=closed", "--allow-unsafe-server"]).await;
        let remote = other.public.with_credential(key.credential());
        assert_eq!(remote.get("/wallet").await.status, 200);

        let admin = app.api_key(&[Scope::Admin]).await;
        let id = key.credential().split('_').nth(1).unwrap().to_owned();
        admin.send(admin.request(Method::DELETE, &format!("/api/keys/{id}"))).await;

        eventually("the other process rejects the key", async || {
            remote.get("/wallet").await.status == 401
        })
        .await;
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_malformed_key_is_rejected() {
    run_with(&["--access=closed"], async |app| {
        let key = app.api_key(&[Scope::WalletRead]).await.credential().to_owned();
        let id = key.split('_').nth(1).unwrap();
        let altered = format!("{}A", &key[..key.len() - 1]);
        let altered = if altered == key { format!("{}B", &key[..key.len() - 1]) } else { altered };

        for malformed in [
            &altered as &str,
            &format!("rwk_{id}_"),
            "rwk_",
            "rwk_999_abc",
            &key[..key.len() - 1],
            &format!("{key}x"),
        ] {
            app.with_credential(malformed).get("/wallet").await.problem(401, "unauthenticated");
        }
    })
    .await;
}

#[tokio::test]
async fn webhooks_receive_only_events_that_their_owner_may_read() {
    use crate::harness::receiver::Receiver;

    run_with(&["--webhook-allow-private", "--self-service-funding"], async |app| {
        let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        let reader = app.api_key(&[Scope::WalletRead]).await;
        let clients = [&ada.client, &bob.client, &reader];
        for (client, receiver) in clients.into_iter().zip(&receivers) {
            let created = client
                .post(
                    "/wallet/webhook",
                    json!({ "url": receiver.url(), "events": ["transfer.deposit"] }),
                )
                .await;
            assert_eq!(created.status, 201, "{}", created.text);
        }
        let open = async |client: &crate::harness::Client| {
            client.post("/wallet", json!({ "owner": "x", "currency": "EUR" })).await.json()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        let (owned, unowned) = (open(&ada).await, open(app).await);

        assert_eq!(
            ada.post("/wallet/deposit", json!({ "id": owned, "amount": 5 })).await.status,
            200
        );
        assert_eq!(
            app.post("/wallet/deposit", json!({ "id": unowned, "amount": 5 })).await.status,
            200
        );

        eventually("every webhook has received its events", async || {
            receivers[0].deliveries().len() == 2
                && receivers[2].deliveries().len() == 2
                && receivers[1].deliveries().len() == 1
        })
        .await;
        assert_eq!(
            receivers[1].events(&owned).len(),
            0,
            "bob received an event of a wallet of ada"
        );
        bob.get("/wallet/webhook/1").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn many_requests_with_one_key_need_few_database_lookups() {
    run_with(&["--access=closed"], async |app| {
        let key = app.api_key(&[Scope::WalletRead]).await;
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

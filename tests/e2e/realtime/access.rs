//! Access to topics: credentials, their revocation and expiry, and the origin of a page.

use revwallet::auth::Scope;
use serde_json::json;

use super::{append, deposit};
use crate::harness::{Program, eventually, run, run_with};

#[tokio::test]
async fn a_topic_of_a_wallet_is_for_callers_that_may_read_the_wallet() {
    run_with(&["--access=closed"], async |app| {
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        let writer = app.api_key(&[Scope::WalletWrite]).await;
        let reader = app.api_key(&[Scope::WalletRead]).await;
        let wallet = ada.post("/wallet", json!({ "owner": "a", "currency": "EUR" })).await;
        let wallet = wallet.json()["id"].as_str().unwrap().to_owned();
        let topic = format!("wallet:{wallet}");
        let subscribe = json!({ "action": "subscribe", "topic": topic });

        for (client, slug) in
            [(&**app, "unauthenticated"), (&bob.client, "forbidden"), (&writer, "forbidden")]
        {
            let reply = client.socket().await.ask(subscribe.clone()).await;
            assert_eq!(reply["error"], slug, "{reply}");
        }
        let (mut own, mut any) = (ada.socket().await, reader.socket().await);
        own.subscribe(&topic).await;
        any.subscribe(&topic).await;
        deposit(&writer, &wallet, "1.00").await;

        assert_eq!(own.json().await["topic"], topic);
        assert_eq!(any.json().await["topic"], topic);
    })
    .await;
}

#[tokio::test]
async fn a_client_can_authenticate_with_its_first_message() {
    run_with(&["--access=closed"], async |app| {
        let ada = app.user("ada").await;
        let mut socket = app.socket().await;
        // Without a credential nothing is subscribed, however long it takes.
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        let reply =
            socket.ask(json!({ "action": "subscribe", "topic": "leaderboard-changes" })).await;
        assert_eq!(reply["error"], "unauthenticated");

        let frame = json!({ "action": "authenticate", "token": ada.credential() });
        assert_eq!(socket.ask(frame).await, json!({ "message": "Authenticated" }));

        socket.subscribe("leaderboard-changes").await;
    })
    .await;
}

#[tokio::test]
async fn a_sign_out_ends_the_subscriptions_of_the_token() {
    run(async |app| {
        let ada = app.user("ada").await;
        let wallet = ada
            .post("/wallet", json!({ "owner": "a", "currency": "EUR", "initial_balance": "1" }))
            .await;
        let topic = format!("wallet:{}", wallet.json()["id"].as_str().unwrap());
        let mut socket = ada.socket().await;
        socket.subscribe(&topic).await;

        assert_eq!(ada.post("/api/users/logout", json!({})).await.status, 200);

        let reply = socket.json().await;
        assert_eq!(reply["error"], "unauthenticated", "{reply}");
        let reply = socket.ask(json!({ "action": "subscribe", "topic": topic })).await;
        assert_eq!(
            reply["error"], "unauthenticated",
            "the connection stays, without the credential"
        );
        let again = crate::harness::users::sign_in(app, "ada", &ada.password).await;
        let frame = json!({ "action": "authenticate", "token": again.credential() });
        assert_eq!(socket.ask(frame).await["message"], "Authenticated");
        socket.subscribe(&topic).await;
    })
    .await;
}

#[tokio::test]
async fn a_token_that_ends_before_the_first_subscription_grants_nothing() {
    run(async |app| {
        let ada = app.user("ada").await;
        let wallet = ada
            .post("/wallet", json!({ "owner": "a", "currency": "EUR", "initial_balance": "1" }))
            .await;
        let topic = format!("wallet:{}", wallet.json()["id"].as_str().unwrap());
        // The hub does not read for other connections.
        let mut socket = ada.socket().await;

        assert_eq!(ada.post("/api/users/logout", json!({})).await.status, 200);

        assert_eq!(socket.json().await["error"], "unauthenticated");
        let reply = socket.ask(json!({ "action": "subscribe", "topic": topic })).await;
        assert_eq!(reply["error"], "unauthenticated", "{reply}");
    })
    .await;
}

#[tokio::test]
async fn a_revocation_between_the_request_and_its_connection_is_not_missed() {
    run(async |app| {
        let admin = app.api_key(&[Scope::Admin]).await;
        let url = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&url, "--allow-unsafe-server", "--access=open"]).await;
        // Each round may be too slow: the other process reads the key again after a second, and refuses the request.
        for _ in 0..5 {
            let key = app.api_key(&[Scope::WalletRead]).await;
            let id = key.credential().split('_').nth(1).unwrap().to_owned();
            let reader = other.public.with_credential(key.credential());
            // The other process has cached the key, and passes its revocation on.
            let mut told = reader.socket().await;
            told.subscribe("game_updates").await;
            let path = format!("/api/keys/{id}");
            let revoked = admin.send(admin.request(http::Method::DELETE, &path)).await;
            assert_eq!(revoked.status, 204, "{}", revoked.text);
            assert_eq!(told.json().await["error"], "unauthenticated");

            let Ok(mut late) = reader.try_socket("/ws", &[]).await else { continue };

            let first = late.ask(json!({ "action": "subscribe", "topic": "game_updates" })).await;
            assert_eq!(first["error"], "unauthenticated", "{first}");
        }
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn another_credential_ends_the_subscriptions_that_it_does_not_grant() {
    run(async |app| {
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        let wallet = ada
            .post("/wallet", json!({ "owner": "a", "currency": "EUR", "initial_balance": "1" }))
            .await;
        let topic = format!("wallet:{}", wallet.json()["id"].as_str().unwrap());
        let again = crate::harness::users::sign_in(app, "ada", &ada.password).await;
        let mut socket = ada.socket().await;
        socket.subscribe(&topic).await;
        let authenticate = |token: &str| json!({ "action": "authenticate", "token": token });

        let renewed = socket.ask(authenticate(again.credential())).await;
        assert_eq!(renewed["message"], "Authenticated", "a new token of the same user");
        assert_eq!(ada.post("/api/users/logout", json!({})).await.status, 200);
        let deposit = json!({ "id": wallet.json()["id"], "amount": "1" });
        assert_eq!(
            app.api_key(&[Scope::WalletWrite]).await.post("/wallet/deposit", deposit).await.status,
            200
        );
        assert_eq!(socket.json().await["topic"], topic, "the subscription goes on");

        let ended = socket.ask(authenticate(bob.credential())).await;
        assert_eq!(ended["error"], "unauthenticated", "{ended}");
        assert_eq!(socket.json().await["message"], "Authenticated");
        let reply = socket.ask(json!({ "action": "unsubscribe", "topic": topic })).await;
        assert_eq!(reply["error"], "invalid", "{reply}");
    })
    .await;
}

#[tokio::test]
async fn a_revoked_key_ends_its_subscriptions() {
    run(async |app| {
        let (admin, key) =
            (app.api_key(&[Scope::Admin]).await, app.api_key(&[Scope::WalletRead]).await);
        let mut socket = key.socket().await;
        socket.subscribe("game_updates").await;
        let id = key.credential().split('_').nth(1).unwrap().to_owned();

        let revoked =
            admin.send(admin.request(http::Method::DELETE, &format!("/api/keys/{id}"))).await;

        assert_eq!(revoked.status, 204, "{}", revoked.text);
        assert_eq!(socket.json().await["error"], "unauthenticated");
    })
    .await;
}

#[tokio::test]
async fn an_expired_token_ends_its_subscriptions() {
    run_with(&["--token-lifetime=2s"], async |app| {
        let ada = app.user("ada").await;
        let mut socket = ada.socket().await;
        socket.subscribe("game_updates").await;

        assert_eq!(socket.json().await["error"], "unauthenticated");

        append(app, "game_updates", &json!({ "type": "late", "data": {} })).await;
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn a_bad_credential_is_refused_before_the_upgrade() {
    run(async |app| {
        let error = app.with_credential("nonsense").try_socket("/ws", &[]).await.err().unwrap();

        assert!(error.to_string().contains("401"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn pages_of_other_sites_are_refused_where_access_is_closed() {
    let settings = ["--access=closed", "--cors-origins=https://app.example.com"];
    run_with(&settings, async |app| {
        let own = format!("http://{}", app.address);
        for (origin, is_welcome) in [
            (own.as_str(), true),
            ("https://app.example.com", true),
            ("https://evil.example.com", false),
            ("null", false),
        ] {
            let socket = app.try_socket("/ws", &[("origin", origin)]).await;
            assert_eq!(socket.is_ok(), is_welcome, "{origin}");
        }
    })
    .await;
    run(async |app| {
        assert!(app.try_socket("/ws", &[("origin", "https://a.example")]).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_message_about_a_balance_reaches_its_audience_only() {
    run(async |app| {
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        let reader = app.api_key(&[Scope::WalletRead]).await;
        let user: i64 = ada.id.parse().unwrap();
        let mut sockets =
            [ada.socket().await, bob.socket().await, reader.socket().await, app.socket().await];
        for socket in &mut sockets {
            socket.subscribe("leaderboard-game-event").await;
        }

        let mut body = json!({ "type": "full", "data": {}, "audience": { "owner": user } });
        append(app, "leaderboard-game-event", &body).await;
        body["type"] = json!("reduced");
        body["audience"] = json!({ "others": user });
        append(app, "leaderboard-game-event", &body).await;

        let mut types = Vec::new();
        for socket in &mut sockets {
            types.push(socket.json().await["type"].as_str().unwrap().to_owned());
        }
        assert_eq!(types, ["full", "reduced", "full", "reduced"]);
        eventually("no other frame is on its way", async || true).await;
        for socket in &mut sockets {
            socket.is_silent().await;
        }
    })
    .await;
}

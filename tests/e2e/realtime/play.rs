//! The messages of the game: deposits, withdrawals and leaders with the texts of the original, and published events.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::{Client, Program, Socket, eventually, run, run_with};

async fn deposit(client: &Client, user: &str, cents: i64) {
    let body = json!({ "userId": user, "amount": cents });
    let response = client.post("/api/wallet/deposit", body).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

/// Returns the text of the next event.
async fn text(socket: &mut Socket) -> String {
    let event = socket.json().await;
    event["data"]["message"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned()
}

#[tokio::test]
async fn deposits_and_withdrawals_have_the_texts_of_the_original() {
    run(async |app| {
        let mut socket = app.socket().await;
        socket.subscribe("gameprogress-event").await;
        let mut seed = app.socket().await;
        let change = json!({ "type": "change_game", "payload": { "name": "gameprogress-event" } });
        seed.send(change).await;
        crate::harness::eventually("both are subscribed", async || {
            app.internal.get("/metrics").await.text.contains("wallet_ws_subscriptions 2")
        })
        .await;

        deposit(app, "ada", 12_300).await;
        deposit(app, "ada", 50).await;
        let body = json!({ "userId": "ada", "amount": 2_345 });
        assert_eq!(app.post("/api/wallet/withdraw", body).await.status, 200);

        let expected = [
            "User ada initialized a wallet with 123.00 amount. Current wallet balance is 123.00",
            "User ada added 0.50 amount to wallet. Current wallet balance is 123.50",
            "User ada withdrew 23.45 amount to wallet. Current wallet balance is 100.05",
        ];
        for expected in expected {
            assert_eq!(text(&mut socket).await, expected);
            let frame = seed.json().await;
            assert_eq!(frame["type"], "new_message");
            assert_eq!(frame["payload"]["message"], expected);
        }
    })
    .await;
}

#[tokio::test]
async fn the_balance_of_a_message_includes_what_holds_reserve() {
    run(async |app| {
        deposit(app, "ada", 1_000).await;
        let wallets = app.get("/wallet").await.json();
        let wallet = wallets[0]["id"].clone();
        let hold = app.post("/wallet/hold", json!({ "id": wallet, "amount": "4.00" })).await;
        assert_eq!(hold.status, 201, "{}", hold.text);
        let mut socket = app.socket().await;
        socket.subscribe("gameprogress-event").await;

        deposit(app, "ada", 100).await;

        let expected = "User ada added 1.00 amount to wallet. Current wallet balance is 11.00";
        assert_eq!(text(&mut socket).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_new_leader_is_announced_once() {
    run(async |app| {
        let mut socket = app.socket().await;
        socket.subscribe("leaderboard-game-event").await;

        deposit(app, "ada", 1_000).await;
        assert_eq!(
            text(&mut socket).await,
            "User ada is leading the game with 10.00 amount in the wallet."
        );
        deposit(app, "bob", 1_000).await;
        deposit(app, "bob", 1).await;
        assert_eq!(
            text(&mut socket).await,
            "User bob is leading the game with 10.01 amount in the wallet."
        );
        app.post("/api/wallet/withdraw", json!({ "userId": "bob", "amount": 1_000 })).await;
        deposit(app, "bob", 500).await;
        deposit(app, "bob", 501).await;
        let expected =
            "User bob is still leading the game with 10.02 amount in the wallet. Well done!";
        assert_eq!(text(&mut socket).await, expected);
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn the_balance_of_a_registered_user_is_for_the_user_only() {
    run(async |app| {
        let ada = app.user("ada").await;
        let (mut own, mut other) = (ada.socket().await, app.socket().await);
        for socket in [&mut own, &mut other] {
            socket.subscribe("gameprogress-event").await;
            socket.subscribe("leaderboard-game-event").await;
        }

        deposit(&ada, &ada.id, 700).await;
        deposit(app, "guest", 600).await;

        let mut texts: Vec<String> = vec![text(&mut own).await, text(&mut own).await, text(&mut own).await];
        texts.sort();
        let id = &ada.id;
        assert_eq!(
            texts,
            [
                format!("User {id} initialized a wallet with 7.00 amount. Current wallet balance is 7.00"),
                format!("User {id} is leading the game with 7.00 amount in the wallet."),
                "User guest initialized a wallet with 6.00 amount. Current wallet balance is 6.00".to_owned(),
            ]
        );
        let mut texts = vec![text(&mut other).await, text(&mut other).await];
        texts.sort();
        assert_eq!(
            texts,
            [
                format!("User {id} is leading the game."),
                "User guest initialized a wallet with 6.00 amount. Current wallet balance is 6.00".to_owned(),
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn a_game_server_publishes_events() {
    run_with(&["--access=closed"], async |app| {
        let server = app.api_key(&[Scope::EventsWrite]).await;
        let mut socket = server.socket().await;
        socket.subscribe("game-outcomes").await;
        let event = |kind: &str| json!({ "type": kind, "game": "chess", "user": "2", "payload": { "result": "won" } });

        let published = server.post_with_key("/api/events", "k1", event("game-outcome")).await;
        assert_eq!((published.status, published.text.as_str()), (202, r#"{"topic":"game-outcomes"}"#));
        let again = server.post_with_key("/api/events", "k1", event("game-outcome")).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
        let other = server.post_with_key("/api/events", "k1", event("game-progress")).await;
        other.problem(422, "idempotency-key-reused");

        let received = socket.json().await;
        assert_eq!(received["type"], "game-outcome");
        let data = json!({ "game": "chess", "user": "2", "payload": { "result": "won" } });
        assert_eq!(received["data"], data);
        socket.is_silent().await;

        app.post("/api/events", event("game-outcome")).await.problem(401, "unauthenticated");
        let reader = app.api_key(&[Scope::WalletRead]).await;
        reader.post("/api/events", event("game-outcome")).await.problem(403, "forbidden");
        for (member, value) in [("type", json!("x")), ("game", json!("")), ("user", Value::Null), ("payload", json!([]))] {
            let mut body = event("game-outcome");
            body[member] = value;
            let problem = server.post("/api/events", body).await.problem(422, "invalid");
            assert_eq!(problem["errors"][0]["pointer"], format!("/{member}"), "{problem}");
        }
    })
    .await;
}

#[tokio::test]
async fn old_idempotency_keys_of_events_are_removed() {
    run(async |app| {
        let server = app.api_key(&[Scope::EventsWrite]).await;
        let event = |game: &str| json!({ "type": "game-outcome", "game": game, "user": "2" });
        for key in ["old", "young"] {
            let published = server.post_with_key("/api/events", key, event("chess")).await;
            assert_eq!(published.status, 202, "{}", published.text);
        }
        // A test cannot wait for 30 days.
        let mut db = app.database.connect().await;
        let age = "update game_event_key set at = at - interval '30 days 1 hour'
            where key_hash = (select key_hash from game_event_key order by at limit 1)";
        sqlx::query(age).execute(&mut db).await.unwrap();

        // A process with a worker removes old keys when it starts.
        let url = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&url, "--allow-unsafe-server", "--access=open"]).await;

        eventually("the old key is removed", async || {
            let count = sqlx::query_scalar::<_, i64>("select count(*) from game_event_key");
            count.fetch_one(&mut db).await.unwrap() == 1
        })
        .await;
        let again = server.post_with_key("/api/events", "old", event("go")).await;
        assert_eq!(again.status, 202, "{}", again.text);
        let known = server.post_with_key("/api/events", "young", event("go")).await;
        known.problem(422, "idempotency-key-reused");
        assert!(other.stop().await.success());
    })
    .await;
}

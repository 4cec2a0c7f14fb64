//! `WatchBalance`: every change of a balance once and in order, from any position on.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::bearer;
use crate::harness::grpc::{GrpcClient, GrpcStream, assert_failure};
use crate::harness::{TestApp, eventually, run, run_with};

async fn watch<'a>(client: &'a GrpcClient, player: &str, after: &str) -> GrpcStream<'a> {
    let message = json!({ "user_id": player, "after": after });
    // An end instead of a test that waits for ever.
    client.open("WatchBalance", message, json!({ "timeout": 60 })).await
}

async fn deposit(app: &TestApp, player: &str, amount: i64) {
    let body = json!({ "userId": player, "amount": amount });
    let response = app.post("/api/wallet/deposit", body).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

/// Returns the balance and the position of the next message.
async fn balance(stream: &GrpcStream<'_>) -> (i64, String) {
    let found = stream.next().await;
    let message = &found["message"];
    let balance = message["balance"].as_str().unwrap_or_else(|| panic!("{found}"));
    (balance.parse().unwrap(), message["position"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_watch_begins_with_the_balance_and_follows_it() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        deposit(app, "ada", 100).await;
        deposit(app, "bob", 1).await;
        let stream = watch(&client, "ada", "").await;
        let first = stream.next().await;
        assert_eq!(first["message"]["balance"], "100", "{first}");
        assert_eq!(first["message"]["currency"], "EUR");
        assert_eq!(first["message"]["transfer_id"], "");

        deposit(app, "ada", 20).await;
        deposit(app, "bob", 7).await;
        let body = json!({ "userId": "ada", "amount": 5 });
        let withdrawn = app.post("/api/wallet/withdraw", body).await.json();
        let transfer = json!({ "from_user_id": "bob", "to_user_id": "ada", "amount": 3 });
        assert_eq!(client.call("Transfer", transfer).await["code"], "OK");

        assert_eq!(balance(&stream).await.0, 120);
        let second = stream.next().await;
        assert_eq!(second["message"]["balance"], "115", "{second}");
        assert_eq!(second["message"]["transfer_id"], withdrawn["transferId"]);
        assert_eq!(balance(&stream).await.0, 118);
    })
    .await;
}

#[tokio::test]
async fn held_money_stays_in_the_balance_until_it_is_captured() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        deposit(app, "ada", 1_000).await;
        let stream = watch(&client, "ada", "").await;
        assert_eq!(balance(&stream).await.0, 1_000);
        let wallet = app.get("/wallet?owner=ada").await.json()[0]["id"].clone();
        let to = app.open_wallet("EUR", "0").await;
        let hold = app.post("/wallet/hold", json!({ "id": wallet, "amount": "4.00" })).await;
        let hold = hold.json()["id"].as_str().unwrap().to_owned();
        let path = format!("/wallet/hold/{hold}/capture");
        let captured = app.post(&path, json!({ "to": to, "amount": "1.00" })).await;
        assert_eq!(captured.status, 200, "{}", captured.text);

        deposit(app, "ada", 1).await;

        assert_eq!(balance(&stream).await.0, 900);
        assert_eq!(balance(&stream).await.0, 901);
    })
    .await;
}

#[tokio::test]
async fn a_transfer_with_a_fee_is_one_change() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        deposit(app, "ada", 1_000).await;
        let read = app.get("/api/wallet/balance/ada").await;
        let begin = read.header("book-position").to_owned();
        let stream = watch(&client, "ada", "").await;
        assert_eq!(balance(&stream).await.0, 1_000);
        let from = app.get("/wallet?owner=ada").await.json()[0]["id"].clone();
        let to = app.open_wallet("EUR", "0").await;
        let transfer = json!({ "from": from, "to": to, "amount": "5.00", "fee": "0.10" });
        let transferred = app.post("/wallet/transfer", transfer).await;
        assert_eq!(transferred.status, 201, "{}", transferred.text);

        deposit(app, "ada", 1).await;

        for stream in [stream, watch(&client, "ada", &begin).await] {
            assert_eq!(balance(&stream).await.0, 490);
            assert_eq!(balance(&stream).await.0, 491);
        }
    })
    .await;
}

#[tokio::test]
async fn more_at_once_than_a_stream_may_queue_arrives_without_a_pause() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        deposit(app, "ada", 1).await;
        let stream = watch(&client, "ada", "").await;
        assert_eq!(balance(&stream).await.0, 1);
        let to = app.get("/wallet?owner=ada").await.json()[0]["id"].clone();
        let from = app.open_wallet("EUR", "100").await;
        let transfers = vec![json!({ "from": from, "to": to, "amount": "0.01" }); 1_000];
        let batch = json!({ "atomic": true, "transfers": transfers });
        let posted = app.post("/wallet/batch", batch).await;
        assert_eq!(posted.status, 201, "{}", posted.text);

        for expected in 2..=1_001 {
            assert_eq!(balance(&stream).await.0, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_continues_after_a_position_without_gap_or_duplicate() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        deposit(app, "ada", 1).await;
        let read = app.get("/api/wallet/balance/ada").await;
        for _ in 0..3 {
            deposit(app, "ada", 1).await;
        }

        let stream = watch(&client, "ada", read.header("book-position")).await;
        let mut position = String::new();
        for expected in 2..=3 {
            let (balance, after) = balance(&stream).await;
            assert_eq!(balance, expected);
            position = after;
        }
        stream.cancel().await;
        deposit(app, "ada", 1).await;
        let stream = watch(&client, "ada", &position).await;

        for expected in 4..=5 {
            assert_eq!(balance(&stream).await.0, expected);
        }
        eventually("the stream that was cancelled has ended", async || {
            let metrics = app.internal.get("/metrics").await.text;
            metrics.contains("\nwallet_ws_subscriptions 1\n")
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_player_is_watched_before_the_first_deposit_and_after_the_wallet_is_replaced() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let user = app.user("ada").await;
        let rest = json!({ "metadata": bearer(user.credential()) });
        let watch = async |after: &str| {
            let message = json!({ "user_id": user.id, "after": after });
            client.open("WatchBalance", message, rest.clone()).await
        };
        let stream = watch("").await;
        let (zero, begin) = balance(&stream).await;
        assert_eq!(zero, 0);
        let pay = async |operation: &str, amount: i64| {
            let body = json!({ "userId": user.id, "amount": amount });
            let response = user.post(&format!("/api/wallet/{operation}"), body).await;
            assert_eq!(response.status, 200, "{}", response.text);
        };
        pay("deposit", 70).await;
        pay("withdraw", 70).await;
        let wallet = user.get("/wallet").await.json()[0]["id"].clone();
        let path = format!("/wallet/{}", wallet.as_str().unwrap());
        let closed = user.send(user.request(http::Method::DELETE, &path)).await;
        assert_eq!(closed.status, 204, "{}", closed.text);
        pay("deposit", 5).await;

        for expected in [70, 0, 5] {
            assert_eq!(balance(&stream).await.0, expected);
        }
        let again = watch(&begin).await;
        for expected in [70, 0, 5] {
            assert_eq!(balance(&again).await.0, expected);
        }
    })
    .await;
}

#[tokio::test]
async fn a_watch_that_cannot_begin_says_why() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        let user = app.user("carol").await;
        deposit(app, "ada", 1).await;
        let fails = async |message: Value, code: &str, slug: &str| {
            let stream = client.open("WatchBalance", message, json!({})).await;
            assert_failure(&stream.next().await, code, slug)
        };
        fails(json!({ "user_id": "bob" }), "NOT_FOUND", "user-not-found").await;
        fails(json!({ "user_id": user.id }), "UNAUTHENTICATED", "unauthenticated").await;
        let broken = json!({ "user_id": "ada", "after": "yesterday" });
        let broken = fails(broken, "INVALID_ARGUMENT", "invalid").await;
        assert_eq!(broken["BadRequest"]["fieldViolations"][0]["field"], "after", "{broken}");

        let before = app.get("/api/wallet/balance/ada").await.header("book-position").to_owned();
        revwallet::app::after_restore::prepare(&app.app().db, &app.app().metrics).await.unwrap();
        let lost = json!({ "user_id": "ada", "after": before });
        let lost = fails(lost, "FAILED_PRECONDITION", "unrecoverable").await;
        let now = lost["ErrorInfo"]["metadata"]["position"].as_str().unwrap();
        let stream = watch(&client, "ada", now).await;
        deposit(app, "ada", 1).await;
        assert_eq!(balance(&stream).await.0, 2);
    })
    .await;
}

#[tokio::test]
async fn a_watch_ends_with_its_credential_and_with_its_deadline() {
    run_with(&["--token-lifetime=6s"], async |app| {
        let client = GrpcClient::connect(app.address);
        let user = app.user("ada").await;
        let admin = app.api_key(&[Scope::Admin]).await;
        let key = app.api_key(&[Scope::WalletRead]).await;
        let message = json!({ "user_id": user.id });
        let open = async |credential: &str, timeout: Value| {
            let rest = json!({ "metadata": bearer(credential), "timeout": timeout });
            let stream = client.open("WatchBalance", message.clone(), rest).await;
            assert_eq!(balance(&stream).await.0, 0);
            stream
        };
        let revoked = open(key.credential(), Value::Null).await;
        let expired = open(user.credential(), Value::Null).await;
        let late = open(user.credential(), json!(1)).await;

        assert_eq!(late.next().await["code"], "DEADLINE_EXCEEDED");
        let id = key.credential().split('_').nth(1).unwrap();
        let path = format!("/api/keys/{id}");
        let deleted = admin.send(admin.request(http::Method::DELETE, &path)).await;
        assert_eq!(deleted.status, 204, "{}", deleted.text);
        assert_failure(&revoked.next().await, "UNAUTHENTICATED", "unauthenticated");
        assert_failure(&expired.next().await, "UNAUTHENTICATED", "unauthenticated");
    })
    .await;
}

#[tokio::test]
async fn watches_count_as_connections() {
    run_with(&["--realtime-connections-max=1"], async |app| {
        let client = GrpcClient::connect(app.address);
        deposit(app, "ada", 1).await;
        let stream = watch(&client, "ada", "").await;
        assert_eq!(balance(&stream).await.0, 1);

        let refused = watch(&client, "ada", "").await.next().await;

        let rich = assert_failure(&refused, "UNAVAILABLE", "overloaded");
        assert!(rich["RetryInfo"]["retryDelay"].is_string(), "{rich}");
        stream.cancel().await;
        eventually("the watch has ended", async || {
            watch(&client, "ada", "").await.next().await["code"] == "OK"
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_call_that_ends_while_the_hub_starts_leaves_no_reader() {
    run(async |app| {
        let client = GrpcClient::connect(app.address);
        deposit(app, "ada", 1).await;
        let read = app.get("/api/wallet/balance/ada").await;
        let after = read.header("book-position");
        // The hub cannot begin to follow the events.
        let mut db = app.database.connect().await;
        let mut tx = sqlx::Connection::begin(&mut db).await.unwrap();
        let lock = "lock table ledger.event in access exclusive mode";
        sqlx::query(lock).execute(&mut *tx).await.unwrap();
        let message = json!({ "user_id": "ada", "after": after });
        let stream = client.open("WatchBalance", message, json!({ "timeout": 1 })).await;
        assert_eq!(stream.next().await["code"], "DEADLINE_EXCEEDED");
        tx.rollback().await.unwrap();

        eventually("the hub reads nothing", async || {
            let reads = hub_reads(app).await;
            deposit(app, "ada", 1).await;
            tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
            hub_reads(app).await == reads
        })
        .await;
    })
    .await;
}

/// Returns how often the hub has read from the database.
async fn hub_reads(app: &TestApp) -> u64 {
    let metrics = app.internal.get("/metrics").await.text;
    let line = metrics.lines().find(|line| line.contains(r#"live_reads_total{by="hub"}"#));
    line.unwrap().split(' ').next_back().unwrap().parse().unwrap()
}

//! Webhooks and balance alerts with a real receiver: signatures, order, replay, rotation of secrets.

mod failing;
mod fairness;
mod ownership;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::receiver::{Delivery, Receiver};
use crate::harness::{Client, Response, TestApp, eventually, run_with};

const LOCAL: &str = "--webhook-allow-private";

pub(crate) async fn subscribe(client: &Client, receiver: &Receiver, events: Value) -> Value {
    let body = json!({ "url": receiver.url(), "events": events });
    let response = client.post("/wallet/webhook", body).await;
    assert_eq!(response.status, 201, "{}", response.text);
    response.json()
}

async fn deposit(app: &Client, wallet: &str, amount: &str) {
    let response = app.post("/wallet/deposit", json!({ "id": wallet, "amount": amount })).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

async fn delete(app: &TestApp, path: &str) -> Response {
    app.send(app.request(Method::DELETE, path)).await
}

/// Computes the signature with an independent implementation of HMAC-SHA256.
fn expected_signature(secret: &str, delivery: &Delivery) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut padded = [0_u8; 64];
    padded[..key.len()].copy_from_slice(&key);
    let pad = |with: u8| padded.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let content = format!("{}.{}.{}", delivery.id, delivery.timestamp, delivery.body);
    let inner = Sha256::digest([pad(0x36), content.into_bytes()].concat());
    format!("v1,{}", STANDARD.encode(Sha256::digest([pad(0x5c), inner.to_vec()].concat())))
}

#[tokio::test]
async fn events_of_a_wallet_are_delivered_in_order_and_signed() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let webhook = subscribe(app, &receiver, json!(["*"])).await;
        let secret = webhook["secret"].as_str().unwrap();
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);

        let transfer = json!({ "from": a, "to": b, "amount": "2.50", "memo": "for the coffee" });
        app.post("/wallet/transfer", transfer).await;
        deposit(app, &a, "1").await;

        eventually("all events are delivered", async || receiver.deliveries().len() >= 6).await;
        let kinds = |wallet: &str| -> Vec<String> {
            let events = receiver.events(wallet);
            events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            kinds(&a),
            ["wallet.opened", "transfer.deposit", "transfer.transfer", "transfer.deposit"]
        );
        assert_eq!(kinds(&b), ["wallet.opened", "transfer.transfer"]);
        let transfer = &receiver.events(&b)[1]["data"];
        assert_eq!(
            (&transfer["from"], &transfer["to"], &transfer["memo"]),
            (&json!(a), &json!(b), &json!("for the coffee"))
        );
        assert_eq!(transfer["trace_id"].as_str().unwrap().len(), 32);
        let deliveries = receiver.deliveries();
        for delivery in &deliveries {
            assert_eq!(delivery.signature, expected_signature(secret, delivery));
        }
        assert!(
            deliveries
                .iter()
                .any(|delivery| delivery.body.contains(r#""amount":2.50,"available":7.50"#)),
            "{deliveries:?}"
        );
        let mut log = Value::Null;
        eventually("all successes are recorded", async || {
            log = app.get("/wallet/webhook/1/deliveries?limit=2").await.json();
            log.as_array().unwrap().iter().all(|delivery| delivery["state"] == "delivered")
        })
        .await;
        assert_eq!((&log[0]["status"], &log[0]["attempts"]), (&json!(200), &json!(1)));
        let metrics = app.internal.get("/metrics").await.text;
        assert!(
            metrics.contains(r#"wallet_webhook_deliveries_total{outcome="delivered"} 6"#),
            "{metrics}"
        );
        assert!(metrics.contains(r#"wallet_jobs_total{queue="webhook_deliver",outcome="ok"}"#));
        assert!(
            metrics.contains(r#"wallet_book_reader_lag_transfers{reader="webhooks",book="1"} 0"#)
        );
    })
    .await;
}

#[tokio::test]
async fn the_log_names_the_transfer_and_not_its_fee() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);
        subscribe(app, &receiver, json!(["transfer.fee", "transfer.transfer"])).await;

        let transfer = json!({ "from": a, "to": b, "amount": "2.50", "fee": "0.10" });
        let transfer = app.post("/wallet/transfer", transfer).await.json();

        eventually("all events are delivered", async || receiver.deliveries().len() == 3).await;
        let log = app.get("/wallet/webhook/1/deliveries").await.json();
        let log = log.as_array().unwrap();
        assert_eq!(log.len(), 3);
        for delivery in log {
            assert_eq!(delivery["transfer"], transfer["id"], "{delivery}");
        }
        let path = format!("/wallet/transfer/{}", log[0]["transfer"].as_str().unwrap());
        assert_eq!(app.get(&path).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn deliveries_can_be_replayed() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        deposit(app, &wallet, "1").await;
        deposit(app, &wallet, "2").await;
        eventually("all events are delivered", async || receiver.deliveries().len() == 2).await;
        let log = app.get("/wallet/webhook/1/deliveries").await.json();
        let first = log[1]["id"].as_str().unwrap().to_owned();

        let replay = |body: Value| app.post("/wallet/webhook/1/replay", body);
        assert_eq!(replay(json!({ "delivery": first })).await.json()["deliveries"], 1);

        eventually("the delivery is repeated", async || receiver.deliveries().len() == 3).await;
        assert_eq!(receiver.deliveries()[2].id, format!("msg_{first}"), "a replay keeps the id");
        let since = log[1]["created_at"].as_str().unwrap();
        assert_eq!(replay(json!({ "since": since })).await.json()["deliveries"], 2);
        eventually("both deliveries are repeated", async || receiver.deliveries().len() == 5).await;
        replay(json!({ "delivery": "999" })).await.problem(404, "not-found");
        replay(json!({})).await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn after_a_rotation_old_and_new_secret_both_sign() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        let before = subscribe(app, &receiver, json!(["*"])).await["secret"].clone();

        let rotated = app.post_with_key("/wallet/webhook/1/rotate", "k", json!({})).await;
        let again = app.post_with_key("/wallet/webhook/1/rotate", "k", json!({})).await;
        assert_eq!(rotated.text, again.text, "a repeated rotation returns the same secret");
        let after = rotated.json()["secret"].clone();
        deposit(app, &wallet, "1").await;

        eventually("the event is delivered", async || !receiver.deliveries().is_empty()).await;
        let delivery = &receiver.deliveries()[0];
        let expected =
            [&after, &before].map(|secret| expected_signature(secret.as_str().unwrap(), delivery));
        assert_eq!(delivery.signature, expected.join(" "));
        let webhook = app.get("/wallet/webhook/1").await;
        assert!(!webhook.text.contains("whsec_"), "the secret is shown again: {}", webhook.text);
    })
    .await;
}

#[tokio::test]
async fn webhooks_are_created_once_listed_and_deleted() {
    run_with(&[LOCAL], async |app| {
        let body = json!({ "url": "https://example.com/hook", "events": ["*"] });
        let create = |body: &Value| app.post_with_key("/wallet/webhook", "k", body.clone());

        let first = create(&body).await;
        let again = create(&body).await;

        assert_eq!(first.status, 201, "{}", first.text);
        assert_eq!((again.status, &again.text), (201, &first.text));
        assert_eq!(again.header("idempotent-replayed"), "true");
        let other = json!({ "url": "https://example.com/other", "events": ["*"] });
        create(&other).await.problem(422, "idempotency-key-reused");
        assert_eq!(app.get("/wallet/webhook").await.json().as_array().unwrap().len(), 1);
        assert_eq!(delete(app, "/wallet/webhook/1").await.status, 204);
        delete(app, "/wallet/webhook/1").await.problem(404, "not-found");
        app.get("/wallet/webhook/1/deliveries").await.problem(404, "not-found");
        for body in [
            json!({}),
            json!({ "url": "ftp://example.com", "events": ["*"] }),
            json!({ "url": "https://example.com", "events": [] }),
            json!({ "url": "https://example.com", "events": ["transfer.unknown"] }),
            json!({ "url": "https://example.com", "events": ["*"], "secret": "short" }),
        ] {
            app.post("/wallet/webhook", body).await.problem(422, "invalid");
        }
    })
    .await;
}

#[tokio::test]
async fn webhooks_to_private_addresses_are_refused_by_default() {
    run_with(&[], async |app| {
        for host in
            ["127.0.0.1:1", "localhost", "169.254.169.254", "[::1]", "10.0.0.1", "0x7f000001"]
        {
            let body = json!({ "url": format!("http://{host}/hook"), "events": ["*"] });
            let refused = app.post("/wallet/webhook", body).await.problem(422, "invalid");
            assert_eq!(refused["errors"][0]["pointer"], "/url", "{host}");
        }
        // An address that was public when the webhook was created and is private at delivery.
        let wallet = app.open_wallet("EUR", "0").await;
        let body = json!({ "url": "http://example.com/hook", "events": ["*"] });
        assert_eq!(app.post("/wallet/webhook", body).await.status, 201);
        app.database.execute("update webhook set url = 'http://127.0.0.1:9/hook'").await;
        deposit(app, &wallet, "1").await;
        eventually("the delivery is refused", async || {
            let log = app.get("/wallet/webhook/1/deliveries").await.json();
            log[0]["error"].as_str().is_some_and(|error| error.contains("private addresses"))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn each_crossing_of_a_threshold_is_reported_once() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "20").await;
        subscribe(app, &receiver, json!(["alert.crossed"])).await;
        let path = format!("/wallet/{wallet}/alert");
        let below = app.post_with_key(&path, "k", json!({ "below": "10.00" })).await;
        assert_eq!(below.status, 201, "{}", below.text);
        assert_eq!(app.post_with_key(&path, "k", json!({ "below": "10" })).await.text, below.text);
        assert_eq!(app.post(&path, json!({ "above": 15 })).await.status, 201);

        let withdraw = async |amount: &str| {
            app.post("/wallet/withdraw", json!({ "id": wallet, "amount": amount })).await
        };
        withdraw("10").await; // 10.00: at the threshold, not below it.
        withdraw("0.01").await; // 9.99: crossed.
        withdraw("5").await; // 4.99: still below.
        deposit(app, &wallet, "10.01").await; // 15.00: at the upper threshold.
        deposit(app, &wallet, "0.01").await; // 15.01: crossed.
        withdraw("10").await; // 5.01: crossed again.

        eventually("three crossings are delivered", async || receiver.deliveries().len() >= 3)
            .await;
        let crossings: Vec<_> = receiver
            .events(&wallet)
            .iter()
            .map(|event| {
                let data = &event["data"];
                (
                    data["alert"]["direction"].as_str().unwrap().to_owned(),
                    data["available"].as_f64().unwrap(),
                )
            })
            .collect();
        let expected = [("below", 9.99), ("above", 15.01), ("below", 5.01)];
        assert_eq!(crossings, expected.map(|(direction, at)| (direction.to_owned(), at)));
        let events: i64 =
            sqlx::query_scalar("select count(*) from ledger.event where topic = 'alert'")
                .fetch_one(&mut app.database.connect().await)
                .await
                .unwrap();
        assert_eq!(events, 3);
        assert_eq!(app.get(&path).await.json().as_array().unwrap().len(), 2);
        assert_eq!(delete(app, &format!("{path}/1")).await.status, 204);
        delete(app, &format!("{path}/1")).await.problem(404, "not-found");
        for body in [json!({}), json!({ "below": 1, "above": 2 }), json!({ "below": "-1" })] {
            app.post(&path, body).await.problem(422, "invalid");
        }
    })
    .await;
}

//! Webhooks and alerts, with a real receiver: signed, in order, until it has heard; and nobody else is held up.

mod failing;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::receiver::{Heard, Receiver};
use crate::harness::{Answer, Client, TestApp, eventually, run_with};

const LOCAL: &str = "--webhook-allow-private";

async fn subscribe(app: &TestApp, receiver: &Receiver, events: Value) -> Value {
    let body = json!({ "url": receiver.url(), "events": events });
    let answer = app.post("/wallet/webhook", body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()
}

async fn deposit(app: &Client, wallet: &str, amount: &str) {
    let answer = app.post("/wallet/deposit", json!({ "id": wallet, "amount": amount })).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn delete(app: &TestApp, path: &str) -> Answer {
    app.send(app.request(Method::DELETE, path)).await
}

/// An independent HMAC, by the book.
fn expected_signature(secret: &str, heard: &Heard) -> String {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut padded = [0_u8; 64];
    padded[..key.len()].copy_from_slice(&key);
    let pad = |with: u8| padded.iter().map(|byte| byte ^ with).collect::<Vec<u8>>();
    let content = format!("{}.{}.{}", heard.id, heard.timestamp, heard.body);
    let inner = Sha256::digest([pad(0x36), content.into_bytes()].concat());
    format!("v1,{}", STANDARD.encode(Sha256::digest([pad(0x5c), inner.to_vec()].concat())))
}

#[tokio::test]
async fn what_happens_to_a_wallet_is_told_in_order_and_signed() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let hook = subscribe(app, &receiver, json!(["*"])).await;
        let secret = hook["secret"].as_str().unwrap();
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);

        let order = json!({ "from": a, "to": b, "amount": "2.50", "memo": "for the coffee" });
        app.post("/wallet/transfer", order).await;
        deposit(app, &a, "1").await;

        eventually("all was told", async || receiver.heard().len() >= 6).await;
        let kinds = |wallet: &str| -> Vec<String> {
            let events = receiver.taken(wallet);
            events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            kinds(&a),
            ["wallet.opened", "transfer.deposit", "transfer.transfer", "transfer.deposit"]
        );
        assert_eq!(kinds(&b), ["wallet.opened", "transfer.transfer"]);
        let moved = &receiver.taken(&b)[1]["data"];
        assert_eq!(
            (&moved["from"], &moved["to"], &moved["memo"]),
            (&json!(a), &json!(b), &json!("for the coffee"))
        );
        assert_eq!(moved["trace_id"].as_str().unwrap().len(), 32);
        let heard = receiver.heard();
        for one in &heard {
            assert_eq!(one.signature, expected_signature(secret, one));
        }
        assert!(
            heard.iter().any(|one| one.body.contains(r#""amount":2.50,"available":7.50"#)),
            "{heard:?}"
        );
        let mut log = Value::Null;
        eventually("all is noted", async || {
            log = app.get("/wallet/webhook/1/deliveries?limit=2").await.json();
            log.as_array().unwrap().iter().all(|one| one["state"] == "delivered")
        })
        .await;
        assert_eq!((&log[0]["status"], &log[0]["attempts"]), (&json!(200), &json!(1)));
        let metrics = app.internal.get("/metrics").await.text;
        assert!(
            metrics.contains(r#"wallet_webhook_deliveries_total{outcome="delivered"} 6"#),
            "{metrics}"
        );
        assert!(metrics.contains(r#"wallet_jobs_total{queue="webhook_deliver",outcome="ok"}"#));
        assert!(metrics.contains(r#"wallet_book_reader_lag_transfers{reader="webhooks"} 0"#));
    })
    .await;
}

#[tokio::test]
async fn what_was_told_can_be_told_once_more() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        deposit(app, &wallet, "1").await;
        deposit(app, &wallet, "2").await;
        eventually("all was told", async || receiver.heard().len() == 2).await;
        let log = app.get("/wallet/webhook/1/deliveries").await.json();
        let first = log[1]["id"].as_str().unwrap().to_owned();

        let replay = |body: Value| app.post("/wallet/webhook/1/replay", body);
        assert_eq!(replay(json!({ "delivery": first })).await.json()["deliveries"], 1);

        eventually("it was told again", async || receiver.heard().len() == 3).await;
        assert_eq!(receiver.heard()[2].id, format!("msg_{first}"), "receivers know it by its id");
        let since = log[1]["created_at"].as_str().unwrap();
        assert_eq!(replay(json!({ "since": since })).await.json()["deliveries"], 2);
        eventually("both were told again", async || receiver.heard().len() == 5).await;
        replay(json!({ "delivery": "999" })).await.problem(404, "not-found");
        replay(json!({})).await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_rotated_secret_and_the_one_before_both_sign() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        let before = subscribe(app, &receiver, json!(["*"])).await["secret"].clone();

        let rotated = app.keyed("/wallet/webhook/1/rotate", "k", json!({})).await;
        let again = app.keyed("/wallet/webhook/1/rotate", "k", json!({})).await;
        assert_eq!(rotated.text, again.text, "an answer that is lost costs no secret");
        let after = rotated.json()["secret"].clone();
        deposit(app, &wallet, "1").await;

        eventually("it was told", async || !receiver.heard().is_empty()).await;
        let heard = &receiver.heard()[0];
        let expected =
            [&after, &before].map(|secret| expected_signature(secret.as_str().unwrap(), heard));
        assert_eq!(heard.signature, expected.join(" "));
        let looked = app.get("/wallet/webhook/1").await;
        assert!(!looked.text.contains("whsec_"), "shown once: {}", looked.text);
    })
    .await;
}

#[tokio::test]
async fn webhooks_are_made_once_listed_and_deleted() {
    run_with(&[LOCAL], async |app| {
        let body = json!({ "url": "https://example.com/hook", "events": ["*"] });
        let make = |body: &Value| app.keyed("/wallet/webhook", "k", body.clone());

        let first = make(&body).await;
        let again = make(&body).await;

        assert_eq!(first.status, 201, "{}", first.text);
        assert_eq!((again.status, &again.text), (201, &first.text));
        assert_eq!(again.header("idempotent-replayed"), "true");
        let other = json!({ "url": "https://example.com/other", "events": ["*"] });
        make(&other).await.problem(422, "idempotency-key-reused");
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
async fn a_webhook_goes_to_no_private_address_unless_that_is_allowed() {
    run_with(&[], async |app| {
        for host in
            ["127.0.0.1:1", "localhost", "169.254.169.254", "[::1]", "10.0.0.1", "0x7f000001"]
        {
            let body = json!({ "url": format!("http://{host}/hook"), "events": ["*"] });
            let refused = app.post("/wallet/webhook", body).await.problem(422, "invalid");
            assert_eq!(refused["errors"][0]["pointer"], "/url", "{host}");
        }
        // A name that was harmless when it was registered, and is not any more.
        let wallet = app.open_wallet("EUR", "0").await;
        let body = json!({ "url": "http://example.com/hook", "events": ["*"] });
        assert_eq!(app.post("/wallet/webhook", body).await.status, 201);
        app.database.execute("update webhook set url = 'http://127.0.0.1:9/hook'").await;
        deposit(app, &wallet, "1").await;
        eventually("it was refused", async || {
            let log = app.get("/wallet/webhook/1/deliveries").await.json();
            log[0]["error"].as_str().is_some_and(|why| why.contains("private addresses"))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn each_crossing_of_a_line_is_told_once() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "20").await;
        subscribe(app, &receiver, json!(["alert.crossed"])).await;
        let path = format!("/wallet/{wallet}/alert");
        let below = app.keyed(&path, "k", json!({ "below": "10.00" })).await;
        assert_eq!(below.status, 201, "{}", below.text);
        assert_eq!(app.keyed(&path, "k", json!({ "below": "10" })).await.text, below.text);
        assert_eq!(app.post(&path, json!({ "above": 15 })).await.status, 201);

        let withdraw = async |amount: &str| {
            app.post("/wallet/withdraw", json!({ "id": wallet, "amount": amount })).await
        };
        withdraw("10").await; // 10: on the line, not below it.
        withdraw("0.01").await; // 9.99: crossed.
        withdraw("5").await; // 4.99: still below.
        deposit(app, &wallet, "10.01").await; // 15: on the other line.
        deposit(app, &wallet, "0.01").await; // 15.01: crossed.
        withdraw("10").await; // 5.01: crossed again.

        eventually("three crossings", async || receiver.heard().len() >= 3).await;
        let crossings: Vec<_> = receiver
            .taken(&wallet)
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

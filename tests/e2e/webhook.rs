//! Webhooks and alerts, with a real receiver: signed, in order, until it has heard; and nobody else is held up.

use std::time::Duration;

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
async fn a_receiver_that_fails_is_asked_again_and_only_its_wallet_waits() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let (sick, well) = (app.open_wallet("EUR", "0").await, app.open_wallet("EUR", "0").await);
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        receiver.script.lock().unwrap().insert(sick.clone(), vec![500, 301]);

        for amount in ["1", "2", "3"] {
            deposit(app, &sick, amount).await;
            deposit(app, &well, amount).await;
        }

        eventually("the well one has heard all", async || receiver.taken(&well).len() == 3).await;
        let amounts = |wallet: &str| -> Vec<f64> {
            let events = receiver.taken(wallet);
            events.iter().map(|event| event["data"]["amount"].as_f64().unwrap()).collect()
        };
        assert_eq!(amounts(&well), [1.0, 2.0, 3.0]);
        tokio::time::timeout(Duration::from_secs(25), async {
            while amounts(&sick).len() < 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("the back-off of two attempts is ten seconds");
        let of_sick: Vec<_> = receiver
            .heard()
            .into_iter()
            .filter(|one| one.json()["data"]["wallet"] == sick)
            .collect();
        assert_eq!(of_sick.len(), 5, "two failed attempts, the same id each time");
        assert_eq!(of_sick[0].id, of_sick[2].id);
        assert_eq!(amounts(&sick), [1.0, 2.0, 3.0]);
    })
    .await;
}

#[tokio::test]
async fn what_happens_meanwhile_does_not_hurry_a_receiver_that_fails() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        receiver.script.lock().unwrap().insert(wallet.clone(), vec![500; 50]);
        deposit(app, &wallet, "1").await;
        let attempts = async || {
            let mut db = app.database.connect().await;
            let most: Option<i16> =
                sqlx::query_scalar("select max(attempts) from graphile_worker._private_jobs")
                    .fetch_one(&mut db)
                    .await
                    .unwrap();
            most.unwrap_or_default()
        };
        eventually("it failed", async || !receiver.heard().is_empty() && attempts().await >= 1)
            .await;

        for _ in 0..30 {
            deposit(app, &wallet, "1").await;
        }

        eventually("all is written down", async || {
            app.get("/wallet/webhook/1/deliveries").await.json().as_array().unwrap().len() == 31
        })
        .await;
        eventually("it is asked again in its time", async || attempts().await >= 2).await;
        let first = &receiver.heard()[0].id;
        assert!(
            receiver.heard().iter().all(|heard| heard.id == *first),
            "the first one still waits"
        );
        assert!(receiver.heard().len() <= 4, "{} attempts", receiver.heard().len());
    })
    .await;
}

#[tokio::test]
async fn what_is_given_up_after_a_day_lets_the_others_pass() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        // However many attempts it takes until the day is over.
        receiver.script.lock().unwrap().insert(wallet.clone(), vec![500; 100]);
        deposit(app, &wallet, "1").await;
        deposit(app, &wallet, "2").await;
        let state = async |n: usize| {
            let log = app.get("/wallet/webhook/1/deliveries").await.json();
            log[n]["state"].as_str().unwrap_or_default().to_owned()
        };
        // As if the day were over, as soon as the first attempt has failed.
        eventually("it waits for its next attempt", async || {
            let mut db = app.database.connect().await;
            let hurried = sqlx::query(
                "update graphile_worker._private_jobs set attempts = 12, run_at = now()
                where locked_at is null and attempts = 1",
            );
            hurried.execute(&mut db).await.unwrap().rows_affected() > 0
        })
        .await;

        eventually("the first is given up", async || state(1).await == "dead").await;
        receiver.script.lock().unwrap().clear();
        eventually("the second is heard", async || state(0).await == "delivered").await;
        assert!(app.logs.lines().iter().any(|line| line["event"] == "webhook.dead"));
        let log = app.get("/wallet/webhook/1/deliveries").await.json();
        let replay = json!({ "delivery": log[1]["id"] });
        assert_eq!(app.post("/wallet/webhook/1/replay", replay).await.status, 200);
        eventually("it is heard after all", async || state(1).await == "delivered").await;
    })
    .await;
}

#[tokio::test]
async fn two_processes_share_the_work_and_tell_each_thing_once() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let url = format!("--database-url={}", app.database.url);
        let words = [url.as_str(), LOCAL, "--access=open", "--allow-unsafe-server"];
        let other = crate::harness::program::Program::start(&words).await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        let mut wallets = Vec::new();
        for _ in 0..6 {
            wallets.push(app.open_wallet("EUR", "0").await);
        }

        for round in 1..=10 {
            for wallet in &wallets {
                let through = if round % 2 == 0 { &other.public } else { &**app };
                deposit(through, wallet, &round.to_string()).await;
            }
        }

        eventually("all was told", async || receiver.heard().len() >= 60).await;
        assert_eq!(receiver.heard().len(), 60, "each once");
        for wallet in &wallets {
            let amounts: Vec<f64> = receiver
                .taken(wallet)
                .iter()
                .map(|event| event["data"]["amount"].as_f64().unwrap())
                .collect();
            assert_eq!(amounts, (1..=10).map(f64::from).collect::<Vec<_>>(), "in order");
        }
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_hangs_slows_nobody() {
    run_with(&[LOCAL], async |app| {
        let (hanging, quick) = (Receiver::start_as(true).await, Receiver::start().await);
        let mut wallets = Vec::new();
        for _ in 0..20 {
            wallets.push(app.open_wallet("EUR", "0").await);
        }
        subscribe(app, &hanging, json!(["*"])).await;
        subscribe(app, &quick, json!(["*"])).await;

        for wallet in &wallets {
            deposit(app, wallet, "1").await;
        }

        // Ten seconds are what one hanging attempt takes.
        eventually("the quick one has heard all", async || quick.heard().len() == 20).await;
        assert!(hanging.heard().len() <= 4, "only a few are on their way at once");
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

#[tokio::test]
async fn a_program_that_is_killed_between_telling_and_noting_it_tells_again() {
    // This app only answers: what is told, the others tell.
    run_with(&["--only=api"], async |app| {
        let receiver = Receiver::start_as(true).await;
        let url = format!("--database-url={}", app.database.url);
        let words = [url.as_str(), LOCAL, "--access=open", "--allow-unsafe-server"];
        let doomed = crate::harness::program::Program::start(&words).await;
        let body = json!({ "url": receiver.url(), "events": ["transfer.deposit"] });
        assert_eq!(doomed.public.post("/wallet/webhook", body).await.status, 201);
        let wallet = app.open_wallet("EUR", "0").await;
        deposit(&doomed.public, &wallet, "1").await;
        let told = async || receiver.heard().len();
        crate::harness::eventually_within(Duration::from_mins(1), "it was told", async || {
            told().await > 0
        })
        .await;

        doomed.kill();
        receiver.listen();
        let heir = crate::harness::program::Program::start(&words).await;

        crate::harness::eventually_within(
            Duration::from_mins(2),
            "it was told again",
            async || told().await > 1,
        )
        .await;
        let heard = receiver.heard();
        assert!(
            heard.iter().all(|one| one.id == heard[0].id && one.body == heard[0].body),
            "{heard:?}"
        );
        let log = "/wallet/webhook/1/deliveries";
        eventually("it is noted", async || app.get(log).await.json()[0]["state"] == "delivered")
            .await;
        assert!(heir.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn what_waits_without_a_job_gets_one_and_an_old_log_is_forgotten() {
    run_with(&[LOCAL, "--webhook-log-lifetime=1d"], async |app| {
        let receiver = Receiver::start().await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        let wallet = app.open_wallet("EUR", "0").await;
        deposit(app, &wallet, "1").await;
        eventually("it was told", async || receiver.heard().len() == 1).await;
        let log = "/wallet/webhook/1/deliveries";
        eventually("it is noted", async || app.get(log).await.json()[0]["state"] == "delivered").await;
        app.database.execute("update delivery set created_at = now() - interval '2 days'").await;
        // As if the job had died of something else.
        app.database
            .execute("insert into delivery (webhook, wallet, seq, event, body, created_at) select webhook, wallet, seq, event, body, now() - interval '1 hour' from delivery")
            .await;

        app.app().webhooks.keep().await.unwrap();

        eventually("it was told after all", async || receiver.heard().len() == 2).await;
        assert_eq!(app.get(log).await.json().as_array().unwrap().len(), 1, "the old one is forgotten");
    })
    .await;
}

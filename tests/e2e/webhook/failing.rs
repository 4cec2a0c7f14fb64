//! Webhook failures: receivers that fail or hang, programs that are killed.

use std::time::Duration;

use serde_json::json;

use super::{LOCAL, deposit, subscribe};
use crate::harness::receiver::Receiver;
use crate::harness::{eventually, run_with};

#[tokio::test]
async fn a_failed_delivery_is_retried_and_delays_only_its_wallet() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let (failing, healthy) =
            (app.open_wallet("EUR", "0").await, app.open_wallet("EUR", "0").await);
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        receiver.script.lock().unwrap().insert(failing.clone(), vec![500, 301]);

        for amount in ["1", "2", "3"] {
            deposit(app, &failing, amount).await;
            deposit(app, &healthy, amount).await;
        }

        eventually("all events of the other wallet are delivered", async || {
            receiver.events(&healthy).len() == 3
        })
        .await;
        let amounts = |wallet: &str| -> Vec<f64> {
            let events = receiver.events(wallet);
            events.iter().map(|event| event["data"]["amount"].as_f64().unwrap()).collect()
        };
        assert_eq!(amounts(&healthy), [1.0, 2.0, 3.0]);
        tokio::time::timeout(Duration::from_secs(25), async {
            while amounts(&failing).len() < 3 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await
        .expect("the backoff of two attempts takes about ten seconds");
        let attempts: Vec<_> = receiver
            .deliveries()
            .into_iter()
            .filter(|delivery| delivery.json()["data"]["wallet"] == failing)
            .collect();
        assert_eq!(attempts.len(), 5, "three events and two failed attempts");
        assert_eq!(attempts[0].id, attempts[2].id, "a retry keeps the id");
        assert_eq!(amounts(&failing), [1.0, 2.0, 3.0]);
    })
    .await;
}

#[tokio::test]
async fn new_events_do_not_shorten_the_backoff_of_a_failing_receiver() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        receiver.script.lock().unwrap().insert(wallet.clone(), vec![500; 50]);
        deposit(app, &wallet, "1").await;
        let attempts = async || {
            let mut db = app.database.connect().await;
            let attempts: Option<i16> =
                sqlx::query_scalar("select max(attempts) from graphile_worker._private_jobs")
                    .fetch_one(&mut db)
                    .await
                    .unwrap();
            attempts.unwrap_or_default()
        };
        eventually("the first attempt fails", async || {
            !receiver.deliveries().is_empty() && attempts().await >= 1
        })
        .await;

        for _ in 0..30 {
            deposit(app, &wallet, "1").await;
        }

        eventually("all deliveries are recorded", async || {
            app.get("/wallet/webhook/1/deliveries").await.json().as_array().unwrap().len() == 31
        })
        .await;
        eventually("the delivery is retried after the backoff", async || attempts().await >= 2)
            .await;
        let first = &receiver.deliveries()[0].id;
        assert!(
            receiver.deliveries().iter().all(|delivery| delivery.id == *first),
            "a later event overtook the first one"
        );
        assert!(receiver.deliveries().len() <= 4, "{} attempts", receiver.deliveries().len());
    })
    .await;
}

#[tokio::test]
async fn a_dead_delivery_does_not_block_later_ones() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let wallet = app.open_wallet("EUR", "0").await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        // More failures than attempts within a day.
        receiver.script.lock().unwrap().insert(wallet.clone(), vec![500; 100]);
        deposit(app, &wallet, "1").await;
        deposit(app, &wallet, "2").await;
        let state = async |n: usize| {
            let log = app.get("/wallet/webhook/1/deliveries").await.json();
            log[n]["state"].as_str().unwrap_or_default().to_owned()
        };
        // Skips to the last attempt of the day once the first attempt has failed.
        eventually("the delivery waits for its next attempt", async || {
            let mut db = app.database.connect().await;
            let update = sqlx::query(
                "update graphile_worker._private_jobs set attempts = 12, run_at = now()
                where locked_at is null and attempts = 1",
            );
            update.execute(&mut db).await.unwrap().rows_affected() > 0
        })
        .await;

        eventually("the first delivery is dead", async || state(1).await == "dead").await;
        receiver.script.lock().unwrap().clear();
        eventually("the second delivery succeeds", async || state(0).await == "delivered").await;
        assert!(app.logs.lines().iter().any(|line| line["event"] == "webhook.dead"));
        let log = app.get("/wallet/webhook/1/deliveries").await.json();
        let replay = json!({ "delivery": log[1]["id"] });
        assert_eq!(app.post("/wallet/webhook/1/replay", replay).await.status, 200);
        eventually("the replayed delivery succeeds", async || state(1).await == "delivered").await;
    })
    .await;
}

#[tokio::test]
async fn two_processes_share_the_work_and_deliver_each_event_once() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        let url = format!("--database-url={}", app.database.url);
        let arguments = [url.as_str(), LOCAL, "--access=open", "--allow-unsafe-server"];
        let other = crate::harness::program::Program::start(&arguments).await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        let mut wallets = Vec::new();
        for _ in 0..6 {
            wallets.push(app.open_wallet("EUR", "0").await);
        }

        for round in 1..=10 {
            for wallet in &wallets {
                let client = if round % 2 == 0 { &other.public } else { &**app };
                deposit(client, wallet, &round.to_string()).await;
            }
        }

        eventually("all events are delivered", async || receiver.deliveries().len() >= 60).await;
        assert_eq!(receiver.deliveries().len(), 60, "an event was delivered twice");
        for wallet in &wallets {
            let amounts: Vec<f64> = receiver
                .events(wallet)
                .iter()
                .map(|event| event["data"]["amount"].as_f64().unwrap())
                .collect();
            assert_eq!(
                amounts,
                (1..=10).map(f64::from).collect::<Vec<_>>(),
                "the events of a wallet are out of order"
            );
        }
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn a_receiver_that_hangs_does_not_delay_others() {
    run_with(&[LOCAL], async |app| {
        let (hanging, quick) = (Receiver::start_hanging().await, Receiver::start().await);
        let mut wallets = Vec::new();
        for _ in 0..20 {
            wallets.push(app.open_wallet("EUR", "0").await);
        }
        subscribe(app, &hanging, json!(["*"])).await;
        subscribe(app, &quick, json!(["*"])).await;

        for wallet in &wallets {
            deposit(app, wallet, "1").await;
        }

        // A hanging attempt takes ten seconds until it times out.
        eventually("all events are delivered to the other receiver", async || {
            quick.deliveries().len() == 20
        })
        .await;
        assert!(
            hanging.deliveries().len() <= 4,
            "the number of concurrent deliveries per webhook is limited"
        );
    })
    .await;
}

#[tokio::test]
async fn a_delivery_is_repeated_if_the_program_is_killed_before_recording_it() {
    // This app serves the API only; the other processes deliver.
    run_with(&["--only=api"], async |app| {
        let receiver = Receiver::start_hanging().await;
        let url = format!("--database-url={}", app.database.url);
        let arguments = [url.as_str(), LOCAL, "--access=open", "--allow-unsafe-server"];
        let first = crate::harness::program::Program::start(&arguments).await;
        let body = json!({ "url": receiver.url(), "events": ["transfer.deposit"] });
        assert_eq!(first.public.post("/wallet/webhook", body).await.status, 201);
        let wallet = app.open_wallet("EUR", "0").await;
        deposit(&first.public, &wallet, "1").await;
        let delivered = async || receiver.deliveries().len();
        crate::harness::eventually_within(
            Duration::from_mins(1),
            "the event is delivered",
            async || delivered().await > 0,
        )
        .await;

        first.kill();
        receiver.resume();
        let second = crate::harness::program::Program::start(&arguments).await;

        crate::harness::eventually_within(
            Duration::from_mins(2),
            "the event is delivered again",
            async || delivered().await > 1,
        )
        .await;
        let deliveries = receiver.deliveries();
        assert!(
            deliveries
                .iter()
                .all(|delivery| delivery.id == deliveries[0].id
                    && delivery.body == deliveries[0].body),
            "{deliveries:?}"
        );
        let log = "/wallet/webhook/1/deliveries";
        eventually("the success is recorded", async || {
            app.get(log).await.json()[0]["state"] == "delivered"
        })
        .await;
        assert!(second.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn upkeep_requeues_deliveries_without_a_job_and_deletes_old_ones() {
    run_with(&[LOCAL, "--webhook-log-lifetime=1d"], async |app| {
        let receiver = Receiver::start().await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        let wallet = app.open_wallet("EUR", "0").await;
        deposit(app, &wallet, "1").await;
        eventually("the event is delivered", async || receiver.deliveries().len() == 1).await;
        let log = "/wallet/webhook/1/deliveries";
        eventually("the success is recorded", async || app.get(log).await.json()[0]["state"] == "delivered").await;
        app.database.execute("update delivery set created_at = now() - interval '2 days'").await;
        // A delivery whose job was lost.
        app.database
            .execute("insert into delivery (webhook, wallet, seq, event, body, created_at) select webhook, wallet, seq, event, body, now() - interval '1 hour' from delivery")
            .await;

        app.app().webhooks.upkeep().await.unwrap();

        eventually("the delivery without a job succeeds", async || receiver.deliveries().len() == 2).await;
        assert_eq!(app.get(log).await.json().as_array().unwrap().len(), 1, "the old delivery is still recorded");
    })
    .await;
}

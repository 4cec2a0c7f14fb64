//! Webhooks where something does not go as it should: receivers that fail or hang, programs that are killed.

use std::time::Duration;

use serde_json::json;

use super::{LOCAL, deposit, subscribe};
use crate::harness::receiver::Receiver;
use crate::harness::{eventually, run_with};

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

        app.app().webhooks.upkeep().await.unwrap();

        eventually("it was told after all", async || receiver.heard().len() == 2).await;
        assert_eq!(app.get(log).await.json().as_array().unwrap().len(), 1, "the old one is forgotten");
    })
    .await;
}

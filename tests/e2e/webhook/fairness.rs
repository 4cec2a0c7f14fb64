//! Fairness between owners of webhooks: receivers that hang occupy few workers, and are paused.

use serde_json::json;

use super::{LOCAL, deposit, subscribe};
use crate::harness::receiver::Receiver;
use crate::harness::{TestApp, eventually, run_with};

/// Maximum number of hanging deliveries that may be in flight while other owners wait for theirs; a process runs 256
/// jobs at once.
const HANGING_MAX: usize = 128;

async fn count(app: &TestApp, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&mut app.database.connect().await).await.unwrap()
}

/// Makes every waiting job due now.
async fn make_jobs_due(app: &TestApp) {
    app.database
        .execute("update graphile_worker._private_jobs set run_at = now() where locked_at is null")
        .await;
}

/// Makes jobs that wait for their backoff due now, but not those that wait for the end of a pause.
async fn make_jobs_with_backoff_due(app: &TestApp) {
    app.database
        .execute(
            "update graphile_worker._private_jobs set run_at = now()
            where locked_at is null and run_at between now() and now() + interval '20 minutes'",
        )
        .await;
}

#[tokio::test]
async fn owners_whose_receivers_hang_do_not_occupy_the_workers_of_others() {
    run_with(&[LOCAL, "--access=open"], async |app| {
        let (hanging, quick) = (Receiver::start_hanging().await, Receiver::start().await);
        let wallets = [app.open_wallet("EUR", "0").await, app.open_wallet("EUR", "0").await];
        // Rows instead of registrations: hashing the passwords of so many users takes long.
        app.database
            .execute(
                "insert into app_user (username, email, password_hash)
                select 'user-' || n, 'user-' || n || '@example.com', 'x' from generate_series(1, 30) n",
            )
            .await;
        let insert = format!(
            "insert into webhook (caller, url, events, secret, from_seq)
            select 'user:' || u.id, '{}', '{{transfer.deposit}}', 'whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA',
                (select max(seq) from ledger.seal)
            from app_user u cross join generate_series(1, 10)",
            hanging.url(),
        );
        app.database.execute(&insert).await;
        subscribe(app, &quick, json!(["transfer.deposit"])).await;

        for wallet in &wallets {
            deposit(app, wallet, "1").await;
        }

        eventually("the receivers hang", async || hanging.peak() >= 30).await;
        eventually("another owner gets its events", async || quick.deliveries().len() == 2).await;
        assert!(hanging.peak() <= HANGING_MAX, "{} deliveries hang at once", hanging.peak());
        let metrics = app.internal.get("/metrics").await.text;
        assert!(
            metrics.lines().any(|line| {
                line.strip_prefix(r#"wallet_webhook_deferrals_total{reason="limit"} "#)
                    .is_some_and(|count| count != "0")
            }),
            "{metrics}"
        );
    })
    .await;
}

#[tokio::test]
async fn one_owner_has_few_deliveries_in_flight_at_once() {
    run_with(&[LOCAL], async |app| {
        let hanging = Receiver::start_hanging().await;
        let user = app.user("ada").await;
        let mut wallets = Vec::new();
        for _ in 0..2 {
            let body = json!({ "owner": "ada", "currency": "EUR" });
            let opened = user.post("/wallet", body).await.json();
            wallets.push(opened["id"].as_str().unwrap().to_owned());
        }
        for _ in 0..10 {
            let body = json!({ "url": hanging.url(), "events": ["wallet.frozen"] });
            assert_eq!(user.post("/wallet/webhook", body).await.status, 201);
        }

        for wallet in &wallets {
            let body = json!({ "freeze": true });
            let path = format!("/wallet/{wallet}");
            let request = user.request(http::Method::PATCH, &path).json(&body);
            assert_eq!(user.send(request).await.json()["state"], "frozen");
        }

        // Twenty jobs; each has either run or waits for a later turn.
        eventually("every delivery is recorded", async || {
            count(app, "select count(*) from delivery where state = 'pending'").await == 20
        })
        .await;
        eventually("the receivers hang", async || hanging.peak() > 0).await;
        eventually("a delivery has timed out", async || {
            count(app, "select count(*) from delivery where attempts > 0").await > 0
        })
        .await;
        assert!(hanging.peak() <= 8, "{} deliveries of one owner hang at once", hanging.peak());
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_times_out_is_paused_until_its_receiver_responds() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start_hanging().await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        let mut wallets = Vec::new();
        for _ in 0..6 {
            wallets.push(app.open_wallet("EUR", "0").await);
        }
        for wallet in &wallets {
            deposit(app, wallet, "1").await;
        }

        eventually("the webhook is paused", async || {
            count(app, "select count(*) from webhook where timeouts > 0 and paused_until > now()")
                .await
                == 1
        })
        .await;
        // A pause that outlasts the test. A job that starts during it sends nothing, and does not use up an attempt.
        app.database.execute("update webhook set paused_until = now() + interval '1 hour'").await;
        let waiting = "select count(*) from graphile_worker._private_jobs
            where locked_at is null and run_at > now() + interval '30 minutes'";
        eventually("every job waits for the end of the pause", async || {
            make_jobs_with_backoff_due(app).await;
            count(app, waiting).await == 6
        })
        .await;
        assert!(receiver.deliveries().len() <= 4, "{} attempts", receiver.deliveries().len());
        assert!(
            count(app, "select max(attempts)::bigint from graphile_worker._private_jobs where locked_at is null").await
                <= 1
        );
        let metrics = app.internal.get("/metrics").await.text;
        let pauses =
            metrics.lines().find_map(|line| line.strip_prefix("wallet_webhook_pauses_total "));
        assert!(pauses.is_some_and(|pauses| pauses != "0"), "{metrics}");
        let deferrals = r#"wallet_webhook_deferrals_total{reason="paused"}"#;
        assert!(
            metrics.lines().any(|line| line.starts_with(deferrals) && !line.ends_with(" 0")),
            "{metrics}"
        );

        receiver.resume();
        app.database.execute("update webhook set paused_until = now()").await;
        eventually("every event is delivered", async || {
            make_jobs_due(app).await;
            count(app, "select count(*) from delivery where state = 'delivered'").await == 6
        })
        .await;
        assert_eq!(
            count(app, "select count(*) from webhook where timeouts = 0 and paused_until is null")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn a_delivery_that_waits_for_a_paused_webhook_for_a_day_is_given_up() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        subscribe(app, &receiver, json!(["transfer.deposit"])).await;
        let wallet = app.open_wallet("EUR", "0").await;
        app.database.execute("update webhook set timeouts = 9, paused_until = now() + interval '1 hour'").await;
        deposit(app, &wallet, "1").await;
        deposit(app, &wallet, "2").await;
        let states = async || -> Vec<String> {
            let log = app.get("/wallet/webhook/1/deliveries").await.json();
            let states = log.as_array().unwrap().iter();
            states.map(|delivery| delivery["state"].as_str().unwrap().to_owned()).collect()
        };
        eventually("the deliveries wait", async || states().await == ["pending", "pending"]).await;

        app.database
            .execute("update delivery set pending_since = now() - interval '25 hours' where id = (select min(id) from delivery)")
            .await;

        // Repeated, because a job may be running just then.
        eventually("the old delivery is dead", async || {
            make_jobs_due(app).await;
            states().await == ["pending", "dead"]
        })
        .await;
        assert!(receiver.deliveries().is_empty());
        // The replay of its owner counts its day anew.
        let log = app.get("/wallet/webhook/1/deliveries").await.json();
        let replay = json!({ "delivery": log[1]["id"] });
        assert_eq!(app.post("/wallet/webhook/1/replay", replay).await.status, 200);
        app.database.execute("update webhook set paused_until = null").await;
        eventually("both are delivered", async || {
            make_jobs_due(app).await;
            states().await == ["delivered", "delivered"]
        })
        .await;
    })
    .await;
}

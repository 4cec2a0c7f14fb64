//! The synthetic probe: moves money through the public address, and says when it cannot.

use serde_json::json;

use crate::harness::{eventually, free_address, run, run_with};

/// A series of the app's own metrics.
async fn counted(app: &crate::harness::TestApp, series: &str) -> f64 {
    let text = app.internal.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn a_probe_moves_money_and_leaves_nobody_richer() {
    run(async |app| {
        let first = app.post("/wallet/probe", json!({})).await;
        assert_eq!(first.status, 201, "{}", first.text);
        let second = app.post("/wallet/probe", json!({})).await.json();
        assert_ne!(first.json()["transfer"], second["transfer"]);

        let mut db = app.database.connect().await;
        let balances: Vec<(i64, i64)> = sqlx::query_as(
            "select debit_balance, credit_balance from ledger.transfer order by seq desc limit 1",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        assert_eq!(balances, [(0, 0)]);
        let listed = app.get("/wallet").await.json();
        assert_eq!(listed, json!([]), "no wallet is made for it");
    })
    .await;
}

#[tokio::test]
async fn where_access_is_closed_any_key_will_do_and_people_may_not() {
    run_with(&["--access=closed"], async |app| {
        let person = app.person("somebody").await;
        person.client.post("/wallet/probe", json!({})).await.problem(403, "forbidden");
        app.post("/wallet/probe", json!({})).await.problem(401, "unauthenticated");
        let key = app.key(&[revwallet::auth::Scope::EventsWrite]).await;

        assert_eq!(key.post("/wallet/probe", json!({})).await.status, 201);
    })
    .await;
}

#[tokio::test]
async fn a_program_probes_its_own_public_address() {
    let address = free_address();
    let (listen, probed) = (format!("--listen={address}"), format!("--probe-url=http://{address}"));
    run_with(&[&listen, &probed, "--probe-interval=50ms"], async |app| {
        eventually("probes succeed", async || {
            counted(app, r#"wallet_probe_total{outcome="ok"}"#).await > 2.0
                && counted(app, "wallet_probe_duration_seconds_count").await > 2.0
        })
        .await;
        let kind = r#"wallet_ledger_transfers_total{kind="probe",outcome="committed"}"#;
        assert!(counted(app, kind).await > 2.0);
    })
    .await;
}

#[tokio::test]
async fn a_probe_that_fails_is_counted_and_told_with_its_trace() {
    let nowhere = format!("--probe-url=http://{}", free_address());
    run_with(&[&nowhere, "--probe-interval=50ms"], async |app| {
        eventually("a failure is told", async || {
            app.logs.find("event", "probe.failed").is_some()
                && counted(app, r#"wallet_probe_total{outcome="failed"}"#).await > 0.0
        })
        .await;
        let line = app.logs.find("event", "probe.failed").unwrap();
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
    })
    .await;
}

//! The canary: moves money through the public address and reports failures.

use serde_json::json;

use crate::harness::{eventually, free_address, run, run_with};

/// Returns the value of a metric series, or 0 if the series does not exist.
async fn metric_value(app: &crate::harness::TestApp, series: &str) -> f64 {
    let text = app.internal.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn a_probe_moves_money_and_leaves_every_balance_unchanged() {
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
        assert_eq!(listed, json!([]), "the probe opens no wallet");
    })
    .await;
}

#[tokio::test]
async fn with_closed_access_any_api_key_may_probe_but_no_user() {
    run_with(&["--access=closed"], async |app| {
        let user = app.user("ada").await;
        user.post("/wallet/probe", json!({})).await.problem(403, "forbidden");
        app.post("/wallet/probe", json!({})).await.problem(401, "unauthenticated");
        let key = app.api_key(&[revwallet::auth::Scope::EventsWrite]).await;

        assert_eq!(key.post("/wallet/probe", json!({})).await.status, 201);
    })
    .await;
}

#[tokio::test]
async fn the_canary_probes_its_own_public_address() {
    let address = free_address();
    let (listen, probe_url) =
        (format!("--listen={address}"), format!("--probe-url=http://{address}"));
    run_with(&[&listen, &probe_url, "--probe-interval=50ms"], async |app| {
        eventually("probes succeed", async || {
            metric_value(app, r#"wallet_probe_total{outcome="ok"}"#).await > 2.0
                && metric_value(app, "wallet_probe_duration_seconds_count").await > 2.0
        })
        .await;
        let series = r#"wallet_ledger_transfers_total{kind="probe",outcome="committed"}"#;
        assert!(metric_value(app, series).await > 2.0);
    })
    .await;
}

#[tokio::test]
async fn a_failed_probe_is_counted_and_logged_with_its_trace() {
    let unreachable = format!("--probe-url=http://{}", free_address());
    run_with(&[&unreachable, "--probe-interval=50ms"], async |app| {
        eventually("a failure is logged", async || {
            app.logs.find("event", "probe.failed").is_some()
                && metric_value(app, r#"wallet_probe_total{outcome="failed"}"#).await > 0.0
        })
        .await;
        let line = app.logs.find("event", "probe.failed").unwrap();
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
    })
    .await;
}

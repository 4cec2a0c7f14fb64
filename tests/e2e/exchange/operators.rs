//! Commands of operators on orders that are stuck or whose outcome is unknown.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{
    assert_faults_happened, balances, buy, fault, fund_hot, hot_wallets, order_id, reaches, step,
    texts, trader,
};
use crate::harness::users::User;
use crate::harness::{Client, Response, TestApp, run, run_with};

async fn command(admin: &Client, order: i64, name: &str, further: Value) -> Response {
    let mut body = json!({ "reason": "told so" });
    if let Some(outcome) = further.get("outcome") {
        body["outcome"] = outcome.clone();
    }
    admin.post(&format!("/api/orders/{order}/{name}"), body).await
}

/// An order whose undo of the trade was refused.
async fn stuck(app: &TestApp, user: &User) -> i64 {
    fault(app, "withdraw-do", "refused", 1).await;
    fault(app, "exchange-undo", "refused", 1).await;
    let id = order_id(&buy(user, json!({ "fiat_amount": 30 })).await);
    reaches(user, id, "stuck").await;
    assert_faults_happened(app).await;
    id
}

#[tokio::test]
async fn a_stuck_order_is_ended_by_retry_skip_and_abort() {
    run(async |app| {
        let (ada, admin) = (trader(app, "ada", 10_000).await, app.api_key(&[Scope::Admin]).await);
        let id = stuck(app, &ada).await;
        command(&admin, id, "approve", json!({})).await.problem(409, "order-fixed");
        command(&admin, id, "resolve", json!({ "outcome": "done" }))
            .await
            .problem(409, "order-fixed");
        command(&admin, id, "explode", json!({})).await.problem(404, "not-found");
        assert_eq!(command(&admin, id, "retry", json!({})).await.status, 200);
        let failed = reaches(&ada, id, "failed").await;
        assert_eq!(step(&failed, "exchange")["state"], "undone");
        assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));

        for name in ["skip", "abort"] {
            let id = stuck(app, &ada).await;
            assert_eq!(command(&admin, id, name, json!({})).await.status, 200);
            // The trade was not undone, so the house is short until it is funded.
            fund_hot(app, "EUR", "30").await;
            let failed = reaches(&ada, id, "failed").await;
            assert_eq!(step(&failed, "exchange")["state"], "skipped");
            assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
            command(&admin, id, name, json!({})).await.problem(409, "order-fixed");
        }
        assert_eq!(hot_wallets(app).await, texts("0.00", "6.00000000"));
    })
    .await;
}

#[tokio::test]
async fn stuck_orders_are_retried_in_bulk() {
    run(async |app| {
        let (ada, admin) = (trader(app, "ada", 10_000).await, app.api_key(&[Scope::Admin]).await);
        let ids = [stuck(app, &ada).await, stuck(app, &ada).await];
        let listed = admin.get("/api/orders?state=stuck").await.json();
        assert_eq!(listed.as_array().unwrap().len(), 2);
        let bulk = json!({ "state": "stuck", "command": "retry", "reason": "it is back" });
        ada.post("/api/orders/commands", bulk.clone()).await.problem(403, "forbidden");
        let taken = admin.post("/api/orders/commands", bulk).await;
        assert_eq!((taken.status, &taken.json()["orders"]), (200, &json!(ids)));
        for id in ids {
            reaches(&ada, id, "failed").await;
        }
        assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn an_unknown_outcome_can_only_be_resolved() {
    let settings = ["--order-attempts=1", "--order-unknown-interval=1h"];
    run_with(&settings, async |app| {
        let (ada, admin) = (trader(app, "ada", 10_000).await, app.api_key(&[Scope::Admin]).await);
        for (outcome, state) in [("done", "completed"), ("not-done", "failed")] {
            fault(app, "exchange-do", "mute", 1).await;
            let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
            reaches(&ada, id, "unknown").await;
            assert_faults_happened(app).await;
            for name in ["approve", "retry", "skip", "abort"] {
                command(&admin, id, name, json!({})).await.problem(409, "order-fixed");
            }
            command(&admin, id, "resolve", json!({})).await.problem(422, "invalid");
            let resolved = command(&admin, id, "resolve", json!({ "outcome": outcome })).await;
            assert_eq!(resolved.status, 200, "{}", resolved.text);
            reaches(&ada, id, state).await;
        }
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn an_undo_whose_outcome_is_unknown_is_resolved_then_retried() {
    let settings = ["--order-attempts=1", "--order-unknown-interval=1h"];
    run_with(&settings, async |app| {
        let (ada, admin) = (trader(app, "ada", 10_000).await, app.api_key(&[Scope::Admin]).await);
        for outcome in ["done", "not-done"] {
            fault(app, "withdraw-do", "refused", 1).await;
            fault(app, "exchange-undo", "mute", 1).await;
            let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
            reaches(&ada, id, "unknown").await;
            assert_faults_happened(app).await;
            let resolved = command(&admin, id, "resolve", json!({ "outcome": outcome })).await;
            assert_eq!(resolved.status, 200, "{}", resolved.text);
            if outcome == "not-done" {
                reaches(&ada, id, "stuck").await;
                // What the operator said was about that call only.
                assert_eq!(command(&admin, id, "retry", json!({})).await.status, 200);
            }
            let failed = reaches(&ada, id, "failed").await;
            assert_eq!(failed["reason"], "the order was rejected", "the first cause stays");
            assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
            assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
        }
    })
    .await;
}

#[tokio::test]
async fn a_payout_that_an_operator_made_by_hand_is_not_made_again() {
    let settings = ["--order-attempts=1", "--order-unknown-interval=1h", "--order-deadline=2s"];
    run_with(&settings, async |app| {
        let (ada, admin) = (trader(app, "ada", 10_000).await, app.api_key(&[Scope::Admin]).await);
        fault(app, "withdraw-do", "lost", 1).await;
        fault(app, "withdraw-do", "mute", 1).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        reaches(&ada, id, "unknown").await;
        assert_faults_happened(app).await;
        fund_hot(app, "BTC", "-3").await;
        let resolved = command(&admin, id, "resolve", json!({ "outcome": "done" })).await;
        assert_eq!(resolved.status, 200, "{}", resolved.text);
        // It cannot be booked before the deadline, and the payout cannot be undone.
        reaches(&ada, id, "stuck").await;
        fund_hot(app, "BTC", "3").await;
        assert_eq!(command(&admin, id, "retry", json!({})).await.status, 200);
        reaches(&ada, id, "completed").await;
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
        let mut db = app.database.connect().await;
        let payouts = "select count(*) from simulated_call where reference like '%withdraw-do%'";
        let payouts: i64 = sqlx::query_scalar(payouts).fetch_one(&mut db).await.unwrap();
        assert_eq!(payouts, 0, "the operator has made the only one");
    })
    .await;
}

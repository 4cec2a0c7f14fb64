//! Orders that an earlier version of the program has begun, and those of a version that it does not know.

use serde_json::{Value, json};

use super::{
    assert_faults_happened, balances, buy, fault, order, order_id, reaches, texts, trader,
};
use crate::harness::{eventually, run, run_with};

/// Sagas as each released version has stored them, one for each step.
const STORED: &str = include_str!("sagas.json");

#[tokio::test]
async fn orders_of_every_released_version_are_finished_under_it() {
    let stored: Vec<Value> = serde_json::from_str(STORED).unwrap();
    assert!(stored.len() >= 4);
    run_with(&["--order-call-timeout=200ms"], async |app| {
        let ada = trader(app, "ada", 100_000).await;
        // Crypto to sell.
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 100 })).await);
        reaches(&ada, id, "completed").await;
        for saga in &stored {
            let kind = saga["kind"].as_str().unwrap();
            let before = balances(&ada).await;
            // The order holds its money as the newest version does; then its saga is the stored one.
            fault(app, "exchange-do", "lost", 1).await;
            let body = match kind {
                "buy" => json!({ "fiat_amount": 30 }),
                _ => json!({ "crypto_amount": 3 }),
            };
            let placed = ada.post(&format!("/exchange/{kind}/{}", ada.id), body).await;
            let id = order_id(&placed);
            let text = saga.to_string().replace('\'', "''");
            let replace = format!(
                "with stored as (select '{text}'::json as saga), replaced as (
                    update saga set version = (stored.saga ->> 'version')::smallint, step = (stored.saga ->> 'step')::smallint,
                        state = stored.saga ->> 'state', input = stored.saga -> 'input', fence = fence + 1, run_at = now()
                    from stored where id = {id} and ended_at is null
                )
                update saga_step set state = 'running', attempts = 1 where saga = {id} and step = 1"
            );
            app.database.execute(&replace).await;
            reaches(&ada, id, "completed").await;
            assert_ne!(balances(&ada).await, before, "{saga}");
        }
        assert_faults_happened(app).await;
    })
    .await;
}

#[tokio::test]
async fn an_order_of_an_unknown_version_waits_and_the_others_go_on() {
    run(async |app| {
        let ada = trader(app, "ada", 100_000).await;
        fault(app, "exchange-do", "lost", 1).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        app.database
            .execute("update saga set version = 99, fence = fence + 1, run_at = now()")
            .await;
        eventually("the order is left alone", async || {
            order(&ada, id).await["reason"] == "version 99 of buy is unknown to this program"
        })
        .await;
        let other = order_id(&buy(&ada, json!({ "fiat_amount": 10 })).await);
        reaches(&ada, other, "completed").await;
        let metrics = app.internal.get("/metrics").await.text;
        assert!(metrics.contains("wallet_saga_unknown_versions_total 1"), "{metrics}");
        assert_eq!(order(&ada, id).await["state"], "processing");
        assert_eq!(balances(&ada).await, texts("960.00", "1.00000000"));
        // A worker of that version finishes it.
        app.database
            .execute("update saga set version = 1, run_at = now() where version = 99")
            .await;
        reaches(&ada, id, "completed").await;
    })
    .await;
}

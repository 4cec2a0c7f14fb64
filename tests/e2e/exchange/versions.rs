//! Orders that an earlier version of the program has begun, and those of a version that it does not know.

use serde_json::{Value, json};

use super::{balances, buy, fault, order, order_id, reaches, texts, trader};
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
        let before = balances(&ada).await;
        for saga in &stored {
            let kind = saga["kind"].as_str().unwrap();
            let quote = json!({ "side": kind, "fiat_amount": 30 });
            let quote = ada.post("/exchange/quote", quote).await.json();
            // The order holds its money as the newest version does; while the outside is down, its saga becomes the stored one.
            app.database
                .execute("update simulated_outside set down_until = now() + interval '1 hour'")
                .await;
            let body = json!({ "quote_id": quote["quote_id"] });
            let id = order_id(&ada.post(&format!("/exchange/{kind}/{}", ada.id), body).await);
            let text = saga.to_string();
            let mut db = app.database.connect().await;
            let replaced = sqlx::query(
                "update saga set version = ($1::json ->> 'version')::smallint, step = ($1::json ->> 'step')::smallint,
                    state = $1::json ->> 'state', input = $1::json -> 'input', fence = fence + 1
                where id = $2 and ended_at is null",
            )
            .bind(&text)
            .bind(id)
            .execute(&mut db)
            .await
            .unwrap();
            assert_eq!(replaced.rows_affected(), 1, "{saga}");
            app.database.execute("update simulated_outside set down_until = null").await;
            reaches(&ada, id, "completed").await;
        }
        // As much was bought as was sold.
        assert_eq!(balances(&ada).await, before);
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

//! Limits of orders, fees, and approval.

use revwallet::auth::Scope;
use serde_json::json;

use super::{balances, buy, order, order_id, reaches, texts, trader};
use crate::harness::run_with;

#[tokio::test]
async fn limits_hold_for_an_order_a_day_and_a_month() {
    let limits = ["--exchange-min=5", "--exchange-max=40", "--exchange-day-max=60"];
    run_with(&limits, async |app| {
        let ada = trader(app, "ada", 100_000).await;
        let refused = buy(&ada, json!({ "fiat_amount": 4.99 })).await.problem(422, "order-limit");
        assert_eq!(refused["detail"], "an order must be worth at least 5.00");
        let refused = buy(&ada, json!({ "fiat_amount": 40.01 })).await.problem(422, "order-limit");
        assert_eq!(refused["detail"], "the order exceeds the limit of 40.00 for an order");
        let mut ids = vec![order_id(&buy(&ada, json!({ "fiat_amount": 40 })).await)];
        let refused = buy(&ada, json!({ "fiat_amount": 20.01 })).await.problem(422, "order-limit");
        assert_eq!(refused["detail"], "the order exceeds the limit of 60.00 in 24 hours");
        ids.push(order_id(&buy(&ada, json!({ "fiat_amount": 20 })).await));
        app.database.execute("update exchange_order set at = at - interval '25 hours'").await;
        ids.push(order_id(&buy(&ada, json!({ "fiat_amount": 10 })).await));
        for id in ids {
            reaches(&ada, id, "completed").await;
        }
    })
    .await;
    run_with(&["--exchange-month-max=60"], async |app| {
        let ada = trader(app, "ada", 100_000).await;
        // A failed order does not count.
        super::fault(app, "exchange", "refused", 1).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 60 })).await);
        reaches(&ada, id, "failed").await;
        let concurrent = (0..10).map(|_| buy(&ada, json!({ "fiat_amount": 20 })));
        let statuses: Vec<u16> = futures_util::future::join_all(concurrent)
            .await
            .iter()
            .map(|done| done.status)
            .collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 422].contains(status)), "{statuses:?}");
        super::assert_faults_happened(app).await;
    })
    .await;
}

#[tokio::test]
async fn a_large_order_waits_for_approval() {
    run_with(&["--exchange-approval=50"], async |app| {
        let (ada, admin) = (trader(app, "ada", 100_000).await, app.api_key(&[Scope::Admin]).await);
        let small = order_id(&buy(&ada, json!({ "fiat_amount": 50 })).await);
        reaches(&ada, small, "completed").await;
        let ids = [
            order_id(&buy(&ada, json!({ "fiat_amount": 51 })).await),
            order_id(&buy(&ada, json!({ "fiat_amount": 52 })).await),
        ];
        let waiting = order(&ada, ids[0]).await;
        assert_eq!(
            (&waiting["state"], &waiting["reason"]),
            (&json!("pending"), &json!("waits for approval"))
        );
        let reason = json!({ "reason": "known customer" });
        let path = |id: i64, command: &str| format!("/api/orders/{id}/{command}");
        ada.post(&path(ids[0], "approve"), reason.clone()).await.problem(403, "forbidden");
        admin.post(&path(ids[0], "approve"), json!({})).await.problem(422, "invalid");
        assert_eq!(admin.post(&path(ids[0], "approve"), reason.clone()).await.status, 200);
        reaches(&ada, ids[0], "completed").await;
        admin.post(&path(ids[0], "approve"), reason.clone()).await.problem(409, "order-fixed");
        assert_eq!(admin.post(&path(ids[1], "abort"), reason).await.status, 200);
        let failed = reaches(&ada, ids[1], "failed").await;
        assert_eq!(failed["reason"], "operator: known customer");
        assert_eq!(balances(&ada).await, texts("899.00", "10.10000000"));
        let entries = admin.get(&format!("/api/audit?subject=order:{}", ids[1])).await.json();
        assert_eq!(
            (&entries[0]["action"], &entries[0]["reason"]),
            (&json!("order.aborted"), &json!("known customer"))
        );
    })
    .await;
}

//! Faults of the outside world: each at each call, and only the question by our reference decides.

use serde_json::json;

use super::{
    assert_faults_happened, balances, buy, fault, hot_wallets, order, order_id, reaches, sell,
    step, texts, trader,
};
use crate::harness::{eventually, run, run_with};

#[tokio::test]
async fn an_order_completes_whatever_happens_to_the_answer_of_a_call() {
    run(async |app| {
        let ada = trader(app, "ada", 100_000).await;
        let mut bought = 0;
        for call in ["exchange-do", "withdraw-do"] {
            for kind in ["lost", "silent", "late", "contradictory", "twice"] {
                fault(app, call, kind, 1).await;
                let id = order_id(&buy(&ada, json!({ "fiat_amount": 10 })).await);
                reaches(&ada, id, "completed").await;
                assert_faults_happened(app).await;
                bought += 1;
                let expected =
                    texts(&format!("{}.00", 1000 - 10 * bought), &format!("{bought}.00000000"));
                assert_eq!(balances(&ada).await, expected, "{call} {kind}");
                assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
            }
        }
        for kind in ["lost", "silent", "late", "contradictory", "twice"] {
            fault(app, "exchange-do", kind, 1).await;
            let id = order_id(&sell(&ada, json!({ "crypto_amount": 1 })).await);
            reaches(&ada, id, "completed").await;
            assert_faults_happened(app).await;
        }
        assert_eq!(balances(&ada).await, texts("950.00", "5.00000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn an_order_whose_call_is_refused_is_undone() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        // The trade is refused; then the transfer on the chain, which undoes the trade.
        for (call, undone) in
            [("exchange-do", vec!["hold"]), ("withdraw-do", vec!["hold", "exchange"])]
        {
            fault(app, call, "refused", 1).await;
            let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
            let failed = reaches(&ada, id, "failed").await;
            assert_faults_happened(app).await;
            for name in undone {
                let step = step(&failed, name);
                assert_eq!(step["state"], "undone", "{failed}");
                assert!(step["undo_transfer_id"].is_string(), "{failed}");
            }
            assert_eq!(failed["reason"], "the order was rejected");
            assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
            assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
        }
    })
    .await;
}

#[tokio::test]
async fn an_undo_succeeds_whatever_happens_to_its_answer() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        for kind in ["lost", "silent", "late", "contradictory", "twice"] {
            fault(app, "withdraw-do", "refused", 1).await;
            fault(app, "exchange-undo", kind, 1).await;
            let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
            reaches(&ada, id, "failed").await;
            assert_faults_happened(app).await;
            assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"), "{kind}");
            assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"), "{kind}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_outcome_that_cannot_be_learned_leaves_the_money_held() {
    let settings = ["--order-attempts=2", "--order-unknown-interval=100ms"];
    run_with(&settings, async |app| {
        let ada = trader(app, "ada", 10_000).await;
        for call in ["exchange-do", "withdraw-do"] {
            fault(app, call, "silent", 1).await;
            // Twice before the attempts are used up, then a few times while it is unknown.
            fault(app, call, "mute", 6).await;
            let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
            let before = balances(&ada).await;
            let unknown = reaches(&ada, id, "unknown").await;
            let name = call.split('-').next().unwrap();
            assert_eq!(step(&unknown, name)["state"], "unknown");
            assert_eq!(balances(&ada).await, before);
            // When the outside answers at last, the order goes on.
            reaches(&ada, id, "completed").await;
            assert_faults_happened(app).await;
        }
        assert_eq!(balances(&ada).await, texts("40.00", "6.00000000"));
        assert_eq!(hot_wallets(app).await, texts("0.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn a_call_that_never_arrives_is_canceled_before_the_order_is_undone() {
    run_with(&["--order-attempts=3"], async |app| {
        let ada = trader(app, "ada", 10_000).await;
        fault(app, "exchange-do", "lost", 3).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        let failed = reaches(&ada, id, "failed").await;
        assert_eq!(failed["reason"], "given up after 3 attempts");
        assert_eq!(step(&failed, "exchange")["attempts"], 3, "{failed}");
        assert_eq!(balances(&ada).await, texts("100.00", "0.00000000"));
        // A call that arrives late takes no effect: its reference is refused.
        let mut db = app.database.connect().await;
        let answers: Vec<Option<String>> =
            sqlx::query_scalar("select answer::text from simulated_call")
                .fetch_all(&mut db)
                .await
                .unwrap();
        assert_eq!(answers, [None]);
    })
    .await;
}

#[tokio::test]
async fn a_failed_undo_does_not_stop_other_orders() {
    run(async |app| {
        let ada = trader(app, "ada", 100_000).await;
        fault(app, "withdraw-do", "refused", 1).await;
        fault(app, "exchange-undo", "refused", 1).await;
        let stuck = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        let found = reaches(&ada, stuck, "stuck").await;
        assert_eq!(step(&found, "exchange")["state"], "undoing", "{found}");
        for _ in 0..5 {
            let id = order_id(&buy(&ada, json!({ "fiat_amount": 10 })).await);
            reaches(&ada, id, "completed").await;
        }
        assert_eq!(order(&ada, stuck).await["state"], "stuck");
        assert_faults_happened(app).await;
        assert_eq!(balances(&ada).await, texts("920.00", "5.00000000"));
        // What the trade brought is still the house's.
        assert_eq!(hot_wallets(app).await, texts("0.00", "3.00000000"));
        eventually("the metric counts it", async || {
            let metrics = app.internal.get("/metrics").await.text;
            metrics.contains(r#"wallet_saga_in_flight{saga="buy",state="stuck"} 1"#)
        })
        .await;
    })
    .await;
}

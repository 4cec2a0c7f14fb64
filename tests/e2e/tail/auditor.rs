//! The auditor, which follows the book and checks every seal.

use super::{Process, deposits};
use crate::harness::postgres::Database;
use crate::harness::{eventually, run};

#[tokio::test]
async fn the_auditor_checks_every_new_seal() {
    run(async |app| {
        deposits(app, 20).await;
        let checks =
            r#"wallet_ledger_invariant_checks_total{check="running_balance",outcome="ok"}"#;

        eventually("all transfers are checked", async || {
            let text = app.internal.get("/metrics").await.text;
            text.contains(&format!("{checks} 22\n"))
        })
        .await;

        let text = app.internal.get("/metrics").await.text;
        assert!(
            text.contains(r#"wallet_ledger_imbalance_minor_units{currency="EUR"} 0"#),
            "{text}"
        );
        assert!(text.contains(r#"{check="chain",outcome="violated"} 0"#), "{text}");
        assert!(
            text.contains(r#"wallet_book_reader_lag_transfers{reader="auditor",book="1"} 0"#),
            "{text}"
        );
        assert!(app.logs.lines().iter().any(|line| line["event"] == "ledger.anchor"));
    })
    .await;
}

#[tokio::test]
async fn the_auditor_finds_inconsistent_rows() {
    let database = Database::create().await;
    database.fill().await;
    database
        .execute(
            "set session_replication_role = replica;
             alter table ledger.transfer disable trigger transfer_is_append_only;
             update ledger.transfer set credit_balance = credit_balance + 5 where seq = 4",
        )
        .await;
    let process = Process::start(&database);

    revwallet::ledger::auditor::start(&process.tail, &process.metrics, &process.tasks);

    let violated = |check: &str| {
        process.metric(&format!(
            r#"wallet_ledger_invariant_checks_total{{check="{check}",outcome="violated"}}"#
        ))
    };
    eventually("the violation is counted", async || violated("running_balance") > 0.5).await;
    assert!(violated("chain") > 0.5, "the seal's hash covers the balance");
    assert!(violated("gap") < 0.5);
    let off = process.metric(r#"wallet_ledger_imbalance_minor_units{currency="EUR"}"#);
    assert!((off - 5.0).abs() < 0.5, "{off}");
    process.stop().await;
    database.drop().await;
}

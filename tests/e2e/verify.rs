//! `revwallet verify` on consistent books, and on tampered ones.

use serde_json::json;

use crate::harness::postgres::Database;
use crate::harness::program::command;
use crate::harness::{TestApp, run};

/// Runs the command. Returns its exit code and its output.
fn verify(database: &Database, options: &[&str]) -> (Option<i32>, String) {
    let url = format!("--database-url={}", database.url);
    let output =
        command(&[&["verify", "--log-filter=warn", &url], options].concat()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

async fn make_transfers(app: &TestApp) {
    for currency in ["EUR", "JPY"] {
        let id = app.open_wallet(currency, "100").await;
        for n in 0..5 {
            app.post_with_key(
                "/wallet/deposit",
                &format!("{currency}{n}"),
                json!({ "id": id, "amount": 7 }),
            )
            .await;
        }
        app.post("/wallet/withdraw", json!({ "id": id, "amount": 135 })).await;
        app.post("/wallet/withdraw", json!({ "id": id, "amount": 135 })).await;
    }
}

fn head_of(report: &str) -> &str {
    report.lines().find_map(|line| line.strip_prefix("head ")).unwrap()
}

#[tokio::test]
async fn a_consistent_book_has_no_faults() {
    run(async |app| {
        let (code, report) = verify(&app.database, &[]);
        assert_eq!(code, Some(0), "an empty book: {report}");
        make_transfers(app).await;

        let (code, report) = verify(&app.database, &[]);

        assert_eq!(code, Some(0), "{report}");
        assert!(report.contains("no faults found"), "{report}");
        assert!(
            report.starts_with("16 transfers in 14 seals, 10 with a key, 4 accounts"),
            "{report}"
        );
        let anchor = format!("--anchor={}", head_of(&report));
        assert_eq!(verify(&app.database, &[&anchor]).0, Some(0));
        app.open_wallet("EUR", "1").await;
        assert_eq!(
            verify(&app.database, &[&anchor]).0,
            Some(0),
            "an anchor must stay valid while the book grows"
        );
    })
    .await;
}

#[tokio::test]
async fn an_anchor_with_another_hash_is_reported() {
    run(async |app| {
        make_transfers(app).await;
        let head = head_of(&verify(&app.database, &[]).1).to_owned();
        let (seq, hash) = head.split_once(':').unwrap();

        let other = format!("--anchor={seq}:{}", hash.chars().rev().collect::<String>());
        let (code, report) = verify(&app.database, &[&other]);
        assert_eq!(code, Some(1));
        assert!(
            report.contains(&format!("seal {seq}: its hash differs from the anchor's")),
            "{report}"
        );
        let beyond = format!("--anchor=99999:{hash}");
        assert!(verify(&app.database, &[&beyond]).1.contains("not in the book"));
        assert_eq!(verify(&app.database, &["--anchor=nonsense"]).0, Some(2));
    })
    .await;
}

#[tokio::test]
async fn each_tampered_row_is_found_and_named() {
    let tampered = [
        ("update ledger.transfer set amount = amount + 1 where seq = 5", "transfer 5: account"),
        (
            "update ledger.transfer set credit_balance = credit_balance + 1 where seq = 5",
            "transfer 5: account",
        ),
        (
            "update ledger.transfer set trace_id = gen_random_uuid() where seq = 5",
            "seal 5: its hash",
        ),
        ("update ledger.transfer set metadata = '{}' where seq = 5", "seal 5: its hash"),
        ("update ledger.transfer set kind = 12 where seq = 5", "seal 5: its hash"),
        (
            "update ledger.transfer set at = at + interval '1 s' where seq = 5",
            "transfer 5: its time",
        ),
        ("delete from ledger.transfer where seq = 5", "seal 5: transfers between"),
        ("delete from ledger.posting where first_seq = 5", "seal 5: its hash"),
        (
            "update ledger.posting set content_hash = gen_random_uuid() where first_seq = 5",
            "seal 5: its hash",
        ),
        ("update ledger.seal set hash = sha256('x') where seq = 5", "seal 5: its hash"),
        ("update ledger.seal set batch_id = gen_random_uuid() where seq = 5", "seal 5: its hash"),
        ("update ledger.account set currency = 'USD' where account = 1", "seal 1: its hash"),
        ("update ledger.seal set hash = sha256('x') where seq = 0", "seal 0: its hash"),
    ];
    for (statement, named) in tampered {
        // Without the triggers: an attacker with all permissions.
        let database = Database::create().await;
        database.fill().await;
        assert_eq!(verify(&database, &[]).0, Some(0), "before {statement}");
        database
            .execute(
                "alter table ledger.transfer disable trigger all; alter table ledger.seal disable trigger all;
                 alter table ledger.posting disable trigger all; alter table ledger.account disable trigger all",
            )
            .await;
        database.execute(statement).await;

        let (code, report) = verify(&database, &[]);

        assert_eq!(code, Some(1), "{statement}: {report}");
        assert!(report.contains(&format!("first fault: {named}")), "{statement}: {report}");
        database.drop().await;
    }
}

//! Partitions of the book: transfers across their borders, archives, and what reads and writes do with an archive.

mod archive;
mod restore;

use revwallet::ledger::partition;
use serde_json::{Value, json};
use sqlx::Row;

use crate::harness::program::command;
use crate::harness::{TestApp, eventually, run_with};

/// Transfers of a partition in these tests.
const ROWS: i64 = 100;

/// No balance is read from the cache of the writer.
const SETTINGS: [&str; 2] = ["--ledger-partition-rows=100", "--ledger-cache-max=0"];

/// Makes the first partition as small as the later ones.
async fn shrink_first_partition(app: &TestApp) {
    app.database
        .execute(&format!(
            "begin;
             alter table ledger.transfer detach partition ledger.transfer_open;
             alter table ledger.transfer attach partition ledger.transfer_open for values from (0) to ({ROWS});
             update ledger.partition set end_seq = {ROWS};
             commit"
        ))
        .await;
    extend(app).await;
}

/// Does what the task of the app does every few seconds.
async fn extend(app: &TestApp) -> i64 {
    let pool = &app.app().tail.pool();
    partition::extend(pool, ROWS).await.unwrap()
}

async fn head(app: &TestApp) -> i64 {
    let mut db = app.database.connect().await;
    let head = sqlx::query_scalar("select max(seq) from ledger.seal");
    head.fetch_one(&mut db).await.unwrap()
}

/// Makes transfers of a wallet until the book has this many.
async fn fill(app: &TestApp, wallet: &str, end: i64) {
    while head(app).await < end {
        extend(app).await;
        let missing = (end - head(app).await).min(ROWS / 4);
        let deposits = (0..missing)
            .map(|_| app.post("/wallet/deposit", json!({ "id": wallet, "amount": "0.01" })));
        for response in futures_util::future::join_all(deposits).await {
            assert_eq!(response.status, 200, "{}", response.text);
        }
    }
    extend(app).await;
}

/// Waits until the readers of the book have read all complete partitions.
async fn wait_for_readers(app: &TestApp) {
    let mut db = app.database.connect().await;
    let behind = "select count(*) from ledger.cursor
        where channel = 'book' and seq < (
            select max(seq) from ledger.seal
            where seq < (select first_seq from ledger.partition where name = 'transfer_open'))";
    eventually("the readers have read the complete partitions", async || {
        sqlx::query_scalar::<_, i64>(behind).fetch_one(&mut db).await.unwrap() == 0
    })
    .await;
}

/// Runs a command of the program on the database of the app. Returns its exit code and its output.
async fn run_command(app: &TestApp, arguments: &[&str]) -> (Option<i32>, String) {
    let url = format!("--database-url={}", app.database.url);
    let mut command = command(&[arguments, &["--log-filter=warn", &url]].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Archives every complete partition. Transfers that are posted meanwhile can complete another partition, which the
/// command refuses to archive until the readers have read it and the task of the app has closed it.
async fn archive(app: &TestApp) -> String {
    let mut output = String::new();
    eventually("the complete partitions are archived", async || {
        wait_for_readers(app).await;
        let (code, text) = run_command(app, &["partition", "archive", "--older-than=0s"]).await;
        let reasons = ["these readers have not read partition", "is not complete"];
        let is_refused = reasons.iter().any(|reason| text.contains(reason));
        assert_eq!(code, Some(i32::from(is_refused)), "{text}");
        output += &text;
        !is_refused
    })
    .await;
    output
}

async fn assert_archived(app: &TestApp, path: &str) {
    let response = app.get(path).await;
    assert_eq!(response.status, 410, "{path}: {}", response.text);
    assert_eq!(response.json()["type"], "/problems/archived", "{}", response.text);
}

/// Balance and available amount of a wallet, in cents.
async fn balance(app: &TestApp, wallet: &str) -> (i64, i64) {
    let body = app.get(&format!("/wallet/{wallet}")).await.json();
    (cents(&body["balance"]), cents(&body["available"]))
}

fn cents(amount: &Value) -> i64 {
    let text = format!("{:.2}", amount.as_f64().unwrap());
    text.replace('.', "").parse().unwrap()
}

async fn post_ok(app: &TestApp, path: &str, body: Value) -> Value {
    let response = app.post(path, body).await;
    assert!([200, 201].contains(&response.status), "{path}: {}", response.text);
    response.json()
}

/// Restores every archived partition, the one that was archived last first.
async fn restore_all(app: &TestApp) {
    let archived = sqlx::query_scalar::<_, i64>(
        "select first_seq from ledger.partition where rest is not null order by 1 desc",
    );
    for first in archived.fetch_all(&mut app.database.connect().await).await.unwrap() {
        let (code, text) = run_command(app, &["partition", "restore", &first.to_string()]).await;
        assert_eq!(code, Some(0), "{text}");
    }
    let (code, report) = run_command(app, &["verify"]).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(!report.contains("archived"), "{report}");
}

#[tokio::test]
async fn transfers_go_on_across_partitions() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "0").await;
        let other = app.open_wallet("EUR", "5").await;

        fill(app, &wallet, 3 * ROWS + 50).await;

        let mut db = app.database.connect().await;
        let rows = sqlx::query(
            "select tableoid::regclass::text as name, min(seq) as first, max(seq) as last
             from ledger.transfer group by 1 order by 2",
        );
        let rows: Vec<(String, i64, i64)> = rows
            .fetch_all(&mut db)
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get("name"), row.get("first"), row.get("last")))
            .collect();
        let names: Vec<&str> = rows.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "ledger.transfer_0",
                "ledger.transfer_100",
                "ledger.transfer_200",
                "ledger.transfer_open"
            ]
        );
        assert_eq!(rows[1], ("ledger.transfer_100".to_owned(), 100, 199));
        let (code, list) = run_command(app, &["partition", "list"]).await;
        assert_eq!(code, Some(0), "{list}");
        assert!(list.starts_with("0 to 99: complete, "), "{list}");
        assert!(list.contains("\n300 to 399: open, "), "{list}");
        let history = app.get(&format!("/wallet/{wallet}/history?limit=1000")).await.json();
        // All but the openings of both wallets and the deposit to the other one.
        assert_eq!(i64::try_from(history.as_array().unwrap().len()), Ok(head(app).await - 2));
        assert_eq!(balance(app, &other).await.0, 500);
        let metrics = app.internal.get("/metrics").await.text;
        assert!(metrics.contains("wallet_ledger_partition_room_transfers "), "{metrics}");
    })
    .await;
}

#[tokio::test]
async fn a_new_reader_begins_after_the_archive() {
    run_with(&SETTINGS, async |app| {
        shrink_first_partition(app).await;
        let wallet = app.open_wallet("EUR", "0").await;
        fill(app, &wallet, ROWS + 10).await;
        archive(app).await;

        app.database.execute("delete from ledger.cursor where name = 'auditor'").await;

        // A fault that the auditor finds is an error in the log, which ends the test.
        fill(app, &wallet, ROWS + 30).await;
        wait_for_readers(app).await;
        let (code, text) = run_command(app, &["partition", "restore", "0"]).await;
        assert_eq!(code, Some(0), "{text}");
    })
    .await;
}

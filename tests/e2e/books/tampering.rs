//! Changes to the rows of a transfer between books, which `revwallet verify` and the auditor must find.

use revwallet::ledger::verify::CheckKind;

use super::*;

/// Makes one transfer between two books, runs a statement as an attacker who owns the database, and verifies.
async fn faults_after(statement: &str) -> Vec<CheckKind> {
    let database = books(2).await;
    let process = Process::start(&database, 2).await;
    let (from, to) = (customer(1, 1), customer(2, 1));
    process.open(&[from, to]).await;
    process.deposit(from, 100).await;
    process.post(transfer(from, to, 30)).await.unwrap();
    process.stop().await;
    assert_verified(&database).await;
    let tamper = format!("set session_replication_role = replica; {statement}");
    let mut db = database.connect().await;
    for table in ["transfer_open", "transfer_17592186044416", "transfer_copy"] {
        let trigger = sqlx::query_scalar::<_, String>(
            "select tgname::text from pg_trigger where tgrelid = ('ledger.' || $1)::regclass and not tgisinternal",
        );
        let trigger = trigger.bind(table).fetch_one(&mut db).await.unwrap();
        let disable = format!("alter table ledger.{table} disable trigger {trigger}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(disable)).execute(&mut db).await.unwrap();
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(tamper)).execute(&mut db).await.unwrap();
    drop(db);
    let report = verify(&database).await;
    database.drop().await;
    report.faults.iter().map(|fault| fault.check).collect()
}

#[tokio::test]
async fn verify_finds_a_copy_that_differs_from_its_original() {
    let faults = faults_after(
        "update ledger.transfer_17592186044416 set trace_id = gen_random_uuid() where home is not null",
    )
    .await;

    assert!(
        faults.contains(&CheckKind::Copies) && faults.contains(&CheckKind::Chain),
        "{faults:?}"
    );
}

#[tokio::test]
async fn verify_finds_a_copy_that_is_missing_or_not_registered() {
    let unregistered = faults_after("delete from ledger.transfer_copy").await;
    let missing =
        faults_after("delete from ledger.transfer_17592186044416 where home is not null").await;

    assert_eq!(unregistered, [CheckKind::Copies; 2]);
    assert!(
        missing.contains(&CheckKind::Copies) && missing.contains(&CheckKind::Gap),
        "{missing:?}"
    );
}

#[tokio::test]
async fn anchors_of_all_books_are_checked() {
    let database = books(2).await;
    let process = Process::start(&database, 2).await;
    let accounts = [customer(1, 1), customer(2, 1)];
    process.open(&accounts).await;
    let report = verify(&database).await;
    let mut anchors = vec![report.head, report.other_heads[0].clone()];
    process.deposit(accounts[1], 100).await;
    process.stop().await;
    let mut db = database.connect().await;

    let sound = verify::run_all(&mut db, anchors.clone(), |_, _| {}).await.unwrap();
    anchors[1].hash[0] ^= 1;
    let differs = verify::run_all(&mut db, anchors, |_, _| {}).await.unwrap();

    assert!(sound.faults.is_empty(), "{sound}");
    let [fault] = &differs.faults[..] else { panic!("{differs}") };
    assert_eq!(fault.check, CheckKind::Anchor);
    drop(db);
    database.drop().await;
}

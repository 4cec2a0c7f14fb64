//! A database that loses its last commits while programs run: by a restore, or by a failover to a standby without them.

use super::*;

const OTHER: AccountId = AccountId(2);

/// Removes the end of the book, from this transfer on.
async fn lose_commits(database: &Database, from: i64) {
    let mut db = database.connect().await;
    for table in ["seal", "posting", "transfer", "account"] {
        let column = if table == "posting" { "first_seq" } else { "seq" };
        let statement = format!(
            "alter table ledger.{table} disable trigger all;
             delete from ledger.{table} where {column} >= {from};
             alter table ledger.{table} enable trigger all;
             alter table ledger.{table} enable always trigger {table}_is_append_only"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut db).await.unwrap();
    }
}

/// Opens an account and makes this many deposits of 1, with keys from 0 on: the last seq is their number plus one.
async fn start_with_deposits(database: &Database, deposits: u128) -> Writer {
    let writer = Writer::start(database, Failpoints::default()).await;
    writer.open().await;
    for key in 0..deposits {
        writer.ledger.post(deposit(key)).await.unwrap();
    }
    writer
}

#[tokio::test]
async fn lost_commits_are_detected_although_the_book_has_grown_beyond_them() {
    let database = Database::create().await;
    let writer = start_with_deposits(&database, 5).await;
    lose_commits(&database, 4).await;
    let rival = Writer::start(&database, Failpoints::default()).await;
    let open = Action::Open { account: OTHER, currency: euro() };
    rival.ledger.post(posting(None, open)).await.unwrap();
    let world = AccountId::system(SystemRole::World, euro());
    for key in 100..105 {
        let (kind, amount) = (TransferKind::Deposit, Minor(1));
        let other = Action::Move { kind, debit: world, credit: OTHER, amount };
        rival.ledger.post(posting(Some(key), other)).await.unwrap();
    }

    let refused = send_with_retry(&writer.ledger, withdraw(200, 5)).await;

    assert!(matches!(refused, Err(Refusal::InsufficientFunds { .. })), "{refused:?}");
    // The deposit was lost, so its retry is written, and no other transfer is taken for it.
    let again = send_with_retry(&writer.ledger, deposit(4)).await.unwrap();
    assert!(!again.replayed);
    assert!(
        send_with_retry(&writer.ledger, deposit(0)).await.unwrap().replayed,
        "this deposit was not lost"
    );
    writer.stop().await;
    rival.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 3);
    database.drop().await;
}

#[tokio::test]
async fn a_key_whose_transfer_was_lost_is_not_answered_with_the_transfer_of_the_same_seq() {
    let database = Database::create().await;
    let writer = start_with_deposits(&database, 5).await;
    lose_commits(&database, 6).await;
    let rival = Writer::start(&database, Failpoints::default()).await;
    let world = AccountId::system(SystemRole::World, euro());
    let (kind, amount) = (TransferKind::Deposit, Minor(100));
    let other = Action::Move { kind, debit: world, credit: ACCOUNT, amount };
    rival.ledger.post(posting(Some(100), other)).await.unwrap();

    // Before the writer has detected the loss, and after it has reconnected.
    let before = writer.ledger.post(deposit(4)).await;
    assert!(matches!(before, Err(PostError::Unavailable)), "{before:?}");
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()";
    database.execute(cut).await;
    let again = send_with_retry(&writer.ledger, deposit(4)).await.unwrap();

    assert!(!again.replayed && again.rows[0].amount == Minor(1), "{again:?}");
    writer.stop().await;
    rival.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 105);
    database.drop().await;
}

#[tokio::test]
async fn a_refusal_is_not_final_on_a_head_that_a_rival_has_sealed_again() {
    let database = Database::create().await;
    let writer = start_with_deposits(&database, 5).await;
    lose_commits(&database, 6).await;
    let rival = Writer::start(&database, Failpoints::default()).await;
    let world = AccountId::system(SystemRole::World, euro());
    let (kind, amount) = (TransferKind::Deposit, Minor(100));
    let more = Action::Move { kind, debit: world, credit: ACCOUNT, amount };
    rival.ledger.post(posting(Some(100), more)).await.unwrap();

    let taken = send_with_retry(&writer.ledger, withdraw(200, 50)).await;

    assert!(taken.is_ok(), "{taken:?}");
    writer.stop().await;
    rival.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 54);
    database.drop().await;
}

//! A database that lost its last commits under programs that run on: it was restored, or a standby took over that lacked them.

use super::*;

const OTHER: AccountId = AccountId(2);

/// Takes the end of the book away, from this transfer on.
async fn lose(database: &Database, from: i64) {
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

/// An account with this many deposits of 1, under keys from 0 on: the book ends one behind their number.
async fn filled(database: &Database, deposits: u128) -> Writer {
    let writer = Writer::start(database, Failpoints::default()).await;
    writer.open().await;
    for key in 0..deposits {
        writer.ledger.post(deposit(key)).await.unwrap();
    }
    writer
}

#[tokio::test]
async fn what_was_lost_is_forgotten_although_the_book_has_grown_beyond_it() {
    let database = Database::create().await;
    let writer = filled(&database, 5).await;
    lose(&database, 4).await;
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
    // Its deposit is gone, so it is done, and no other transfer is taken for it.
    let again = send_with_retry(&writer.ledger, deposit(4)).await.unwrap();
    assert!(!again.replayed);
    assert!(
        send_with_retry(&writer.ledger, deposit(0)).await.unwrap().replayed,
        "this one was not lost"
    );
    writer.stop().await;
    rival.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 3);
    database.drop().await;
}

#[tokio::test]
async fn a_key_whose_transfer_was_lost_is_not_answered_with_what_stands_there_now() {
    let database = Database::create().await;
    let writer = filled(&database, 5).await;
    lose(&database, 6).await;
    let rival = Writer::start(&database, Failpoints::default()).await;
    let world = AccountId::system(SystemRole::World, euro());
    let (kind, amount) = (TransferKind::Deposit, Minor(100));
    let other = Action::Move { kind, debit: world, credit: ACCOUNT, amount };
    rival.ledger.post(posting(Some(100), other)).await.unwrap();

    // As long as the writer has not noticed, and when it has a new connection.
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
async fn a_refusal_is_not_certain_on_a_head_that_somebody_else_has_sealed_anew() {
    let database = Database::create().await;
    let writer = filled(&database, 5).await;
    lose(&database, 6).await;
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

//! Several books: postings that touch more than one of them, and what each book shows of them.

mod citus;
mod concurrency;
mod faults;
mod model;
mod partitions;
mod server;
mod tampering;

use std::sync::Arc;
use std::time::Duration;

use revwallet::idempotency_key::HashedKey;
use revwallet::ledger::account::{AccountId, SystemRole};
use revwallet::ledger::book::first_seal;
use revwallet::ledger::companion::{Companion, CompanionKind};
use revwallet::ledger::currency::{Currencies, Currency};
use revwallet::ledger::decide::Rules;
use revwallet::ledger::money::Minor;
use revwallet::ledger::read::{self, END, HistoryRange};
use revwallet::ledger::transfer::{Action, Leg, Posted, Posting, TransferKind};
use revwallet::ledger::verify::{self, VerifyReport};
use revwallet::ledger::{Failpoints, Ledger, LedgerOptions, PostError, Refusal, Settings};
use revwallet::tasks::Tasks;
use revwallet::telemetry::Metrics;
use serde::Serialize;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::harness::postgres::Database;

fn euro() -> Currency {
    Currencies::default().find("EUR").unwrap()
}

fn world() -> AccountId {
    AccountId::system(SystemRole::World, euro())
}

/// The customer account `n` of a book.
fn customer(book: i32, n: i64) -> AccountId {
    AccountId(first_seal(book) + n)
}

/// A database with several books.
async fn books(count: i32) -> Database {
    let database = Database::create().await;
    database.execute(&format!("select ledger.create_books({count}, 100000)")).await;
    database
}

/// The writers of a process.
struct Process {
    ledger: Ledger,
    tasks: Tasks,
}

impl Process {
    async fn start(database: &Database, books: i32) -> Self {
        Self::start_with(database, books, Vec::new(), Failpoints::default()).await
    }

    async fn start_with(
        database: &Database,
        books: i32,
        companions: Vec<&'static CompanionKind>,
        failpoints: Failpoints,
    ) -> Self {
        let tasks = Tasks::default();
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&database.url).unwrap();
        let options = LedgerOptions {
            database: database.pipelined(),
            pool,
            settings: Settings { books, allow_unsafe_server: true, ..Settings::default() },
            rules: Rules { amount_max: Minor(1_000_000), currencies: Currencies::default() },
            companions,
            candidacy: None,
            failpoints,
            metrics: Metrics::new(),
        };
        Self { ledger: Ledger::start(options, &tasks).await.unwrap(), tasks }
    }

    async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(20)).await, "the writers did not drain");
    }

    async fn post(&self, action: Action) -> Result<Posted, PostError> {
        self.ledger.post(Posting { legs: vec![action.into()], ..Posting::default() }).await
    }

    async fn open(&self, accounts: &[AccountId]) {
        for account in accounts {
            let action = Action::Open { account: *account, currency: euro() };
            self.post(action).await.unwrap();
        }
    }

    async fn deposit(&self, account: AccountId, amount: i64) -> Posted {
        self.post(pay(TransferKind::Deposit, world(), account, amount)).await.unwrap()
    }
}

fn pay(kind: TransferKind, debit: AccountId, credit: AccountId, amount: i64) -> Action {
    Action::Move { kind, debit, credit, amount: Minor(amount) }
}

fn transfer(debit: AccountId, credit: AccountId, amount: i64) -> Action {
    pay(TransferKind::Transfer, debit, credit, amount)
}

fn keyed(key: u128, content: u128, action: Action) -> Posting {
    let key = HashedKey { hash: Uuid::from_u128(key), content: Uuid::from_u128(content) };
    Posting { key: Some(key), legs: vec![action.into()], ..Posting::default() }
}

/// The balance of an account in its own book.
async fn balance(database: &Database, account: AccountId) -> i64 {
    let mut db = database.connect().await;
    read::balances(&mut db, &[account], END).await.unwrap()[0].0
}

async fn verify(database: &Database) -> VerifyReport {
    verify::run_all(&mut database.connect().await, Vec::new(), |_, _| {}).await.unwrap()
}

async fn assert_verified(database: &Database) {
    let report = verify(database).await;
    assert!(report.faults.is_empty(), "{report}");
}

fn refusal(result: Result<Posted, PostError>) -> Refusal {
    match result {
        Err(PostError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_transfer_between_books_has_one_id_and_both_balances() {
    let database = books(2).await;
    let process = Process::start(&database, 2).await;
    let (from, to) = (customer(2, 1), customer(1, 1));
    process.open(&[from, to]).await;
    process.deposit(from, 100).await;

    let posting = keyed(1, 7, transfer(from, to, 30));
    let posted = process.ledger.post(posting.clone()).await.unwrap();
    let replayed = process.ledger.post(posting).await.unwrap();

    assert_eq!((posted.available(from), posted.available(to)), (Some(Minor(70)), Some(Minor(30))));
    assert_eq!(replayed, Posted { replayed: true, ..posted.clone() });
    let mut db = database.connect().await;
    for (account, available) in [(from, 70), (to, 30)] {
        let range = HistoryRange { from: 0, before: END, oldest_first: false, limit: 10 };
        let entries = read::history(&mut db, account, range).await.unwrap().entries;
        assert_eq!(entries[0].transfer, posted.first_seq);
        assert_eq!(entries[0].available, Minor(available));
        assert_eq!((entries[0].debit, entries[0].credit), (from, to));
    }
    drop(db);
    process.stop().await;
    assert_verified(&database).await;
    database.drop().await;
}

#[tokio::test]
async fn a_posting_to_several_books_is_refused_as_a_whole() {
    let database = books(2).await;
    let process = Process::start(&database, 2).await;
    let (from, to) = (customer(1, 1), customer(2, 1));
    process.open(&[from, to]).await;
    process.deposit(from, 100).await;

    let short = refusal(process.post(transfer(from, to, 101)).await);
    let missing = refusal(process.post(transfer(from, customer(2, 9), 1)).await);
    let unknown_book = process.post(transfer(from, customer(3, 1), 1)).await;
    process.post(Action::Freeze { account: to }).await.unwrap();
    let frozen = refusal(process.post(transfer(to, from, 1)).await);
    let legs = vec![transfer(from, to, 60).into(), transfer(from, to, 60).into()];
    let second = process.ledger.post(Posting { legs, ..Posting::default() }).await;

    let (available, required) = (Minor(100), Minor(101));
    assert_eq!(short, Refusal::InsufficientFunds { account: from, available, required });
    assert_eq!(missing, Refusal::NoSuchAccount(customer(2, 9)));
    assert_eq!(unknown_book, Err(PostError::Unavailable));
    assert_eq!(frozen, Refusal::AccountFrozen(to));
    assert!(matches!(refusal(second), Refusal::InLeg { leg: 1, .. }));
    assert_eq!((balance(&database, from).await, balance(&database, to).await), (100, 0));
    process.stop().await;
    assert_verified(&database).await;
    database.drop().await;
}

#[tokio::test]
async fn a_key_has_one_effect_over_all_books() {
    let database = books(2).await;
    let process = Process::start(&database, 2).await;
    let (one, other) = (customer(1, 1), customer(2, 1));
    process.open(&[one, other]).await;
    let deposit = |account| pay(TransferKind::Deposit, world(), account, 5);

    process.ledger.post(keyed(1, 7, deposit(one))).await.unwrap();
    let reused = process.ledger.post(keyed(1, 8, deposit(other))).await;
    let reused_between = process.ledger.post(keyed(1, 9, transfer(one, other, 1))).await;
    let replayed = process.ledger.post(keyed(1, 7, deposit(one))).await.unwrap();

    assert_eq!(refusal(reused), Refusal::KeyReused);
    assert_eq!(refusal(reused_between), Refusal::KeyReused);
    assert!(replayed.replayed);
    assert_eq!((balance(&database, one).await, balance(&database, other).await), (5, 0));
    process.stop().await;
    assert_verified(&database).await;
    database.drop().await;
}

#[tokio::test]
async fn holds_prizes_and_refunds_work_between_books() {
    let database = books(3).await;
    let process = Process::start(&database, 3).await;
    let (payer, payee) = (customer(3, 1), customer(2, 1));
    let prize = AccountId::system(SystemRole::Prize, euro());
    process.open(&[payer, payee]).await;
    process.deposit(payer, 100).await;

    // A hold stays in its book; its capture pays an account of another book.
    let hold = payer.hold().unwrap();
    process.post(pay(TransferKind::Hold, payer, hold, 40)).await.unwrap();
    let capture = process.post(pay(TransferKind::Capture, hold, payee, 25)).await.unwrap();
    assert_eq!(capture.held(payer), Minor(15));
    // A reserve of the operator is in the first book.
    process.post(pay(TransferKind::Transfer, payer, prize, 10)).await.unwrap();
    let overdrawn = process.post(pay(TransferKind::Payout, prize, payee, 11)).await;
    assert!(matches!(refusal(overdrawn), Refusal::InsufficientFunds { .. }));
    process.post(pay(TransferKind::Payout, prize, payee, 10)).await.unwrap();
    // The book of the refunded transfer shows the refund, too.
    let refund = pay(TransferKind::Refund, payee, payer, 5);
    let refund = Leg { linked: Some(capture.first_seq), ..refund.into() };
    process.ledger.post(Posting { legs: vec![refund], ..Posting::default() }).await.unwrap();

    assert_eq!(balance(&database, payer).await, 100 - 40 - 10 + 5);
    assert_eq!(balance(&database, payee).await, 25 + 10 - 5);
    let mut db = database.connect().await;
    let linked: Vec<i64> = sqlx::query_scalar(
        "select coalesce(home, seq) from ledger.transfer where book = $1 and linked = $2",
    )
    .bind(revwallet::ledger::book::book_of(capture.first_seq))
    .bind(capture.first_seq)
    .fetch_all(&mut db)
    .await
    .unwrap();
    assert_eq!(linked.len(), 1);
    drop(db);
    process.stop().await;
    assert_verified(&database).await;
    database.drop().await;
}

static NOTE: CompanionKind = CompanionKind {
    name: "note",
    sql: "
        with input as (
            select distinct on (note) *
            from json_to_recordset($2::text::json) as (n int, seq bigint, note int)
            order by note, n
        ), done as (
            insert into note (note, seq) select note, seq from input on conflict do nothing returning note
        ), took as (
            select n from input join done using (note)
        )",
};

#[derive(Serialize)]
struct Note {
    note: i32,
}

#[tokio::test]
async fn companions_commit_with_a_posting_to_several_books() {
    let database = books(2).await;
    let mut db = database.connect().await;
    let table = "create table note (note int primary key, seq bigint not null);
        grant select, insert on note to revwallet_app";
    sqlx::raw_sql(table).execute(&mut db).await.unwrap();
    let process = Process::start_with(&database, 2, vec![&NOTE], Failpoints::default()).await;
    let (from, to) = (customer(1, 1), customer(2, 1));
    process.open(&[from, to]).await;
    process.deposit(from, 100).await;

    let noted = |note| {
        let companion = Companion::new(&NOTE, &Note { note }, "noted already").unwrap();
        let legs = vec![transfer(from, to, 10).into()];
        Posting { legs, companions: vec![companion], ..Posting::default() }
    };
    let (first, second, other) = tokio::join!(
        process.ledger.post(noted(1)),
        process.ledger.post(noted(1)),
        process.ledger.post(noted(2)),
    );

    let done: Vec<Posted> = [first, second, other].into_iter().flatten().collect();
    assert_eq!(done.len(), 2, "the same note was taken twice");
    let mut seqs: Vec<i64> =
        sqlx::query_scalar("select seq from note").fetch_all(&mut db).await.unwrap();
    seqs.sort_unstable();
    let mut expected: Vec<i64> = done.iter().map(|posted| posted.first_seq).collect();
    expected.sort_unstable();
    assert_eq!(seqs, expected);
    assert_eq!(balance(&database, to).await, 20);
    drop(db);
    process.stop().await;
    assert_verified(&database).await;
    database.drop().await;
}

#[tokio::test]
async fn a_process_refuses_to_write_a_database_with_more_books_than_it_knows() {
    let database = books(2).await;
    let tasks = Tasks::default();
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&database.url).unwrap();
    let options = LedgerOptions {
        database: database.pipelined(),
        pool,
        settings: Settings { allow_unsafe_server: true, ..Settings::default() },
        rules: Rules { amount_max: Minor(1_000_000), currencies: Currencies::default() },
        companions: Vec::new(),
        candidacy: None,
        failpoints: Failpoints::default(),
        metrics: Metrics::new(),
    };

    let Err(error) = Ledger::start(options, &tasks).await else { panic!("it started") };

    assert!(error.to_string().contains("2 books"), "{error}");
    database.drop().await;
}

#[tokio::test]
async fn the_first_transfer_of_the_first_book_can_be_the_copy_of_a_later_leg() {
    let database = books(2).await;
    let process = Process::start(&database, 2).await;
    let payer = customer(2, 1);
    let publisher = AccountId::payable(7, euro()).unwrap();
    process.open(&[payer]).await;
    process.deposit(payer, 100).await;

    let legs = vec![
        transfer(payer, AccountId::system(SystemRole::Revenue, euro()), 3).into(),
        Leg { with_previous: true, ..transfer(payer, publisher, 7).into() },
    ];
    let posted = process.ledger.post(Posting { legs, ..Posting::default() }).await.unwrap();

    assert_eq!(posted.available(payer), Some(Minor(90)));
    assert_eq!(balance(&database, publisher).await, 7);
    process.stop().await;
    assert_verified(&database).await;
    database.drop().await;
}

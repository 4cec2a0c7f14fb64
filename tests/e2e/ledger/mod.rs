//! The ledger under faults: each acknowledged posting is in the book exactly once.

mod companions;
mod contention;
mod election;
mod failover;
mod faults;
mod leader;
mod leader_refusals;
mod leader_service;
mod lost_commits;
mod model;
mod proxy;
mod rules;
mod scale;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use revwallet::idempotency_key::HashedKey;
use revwallet::ledger::account::{AccountId, SystemRole};
use revwallet::ledger::companion::CompanionKind;
use revwallet::ledger::currency::{Currencies, Currency};
use revwallet::ledger::decide::Rules;
use revwallet::ledger::money::Minor;
use revwallet::ledger::transfer::{Action, Leg, Posted, Posting, TransferKind};
use revwallet::ledger::{
    AdvertisedAddress, Candidacy, Failpoints, InjectedFault, Ledger, LedgerOptions, PostError,
    Refusal, Settings, WriterStage,
};
use revwallet::tasks::Tasks;
use revwallet::telemetry::{Exposition, ExpositionFormat, Metrics};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::harness::check::book;
use crate::harness::postgres::{Database, pipelined};

const ACCOUNT: AccountId = AccountId(1);

fn euro() -> Currency {
    Currencies::default().find("EUR").unwrap()
}

/// A writer on a database.
struct Writer {
    ledger: Ledger,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

/// Options of a test's writer.
#[derive(Clone)]
struct Setup {
    url: String,
    settings: Settings,
    companions: Vec<&'static CompanionKind>,
    candidacy: Option<Candidacy>,
    failpoints: Failpoints,
}

impl Setup {
    fn new(database: &Database) -> Self {
        let settings = Settings {
            allow_unsafe_server: true,
            // Small limits, so that there are many batches and the queue fills up.
            batch_legs_max: 16,
            queue_max: 64,
            ..Settings::default()
        };
        Self {
            url: database.url.clone(),
            settings,
            companions: Vec::new(),
            candidacy: None,
            failpoints: Failpoints::default(),
        }
    }

    async fn start(self) -> Writer {
        let Self { url, settings, companions, candidacy, failpoints } = self;
        let (tasks, metrics) = (Tasks::default(), Metrics::new());
        let options = LedgerOptions {
            database: pipelined(&url),
            pool: PgPoolOptions::new().max_connections(4).connect_lazy(&url).unwrap(),
            settings,
            rules: Rules { amount_max: Minor(1_000_000), currencies: Currencies::default() },
            companions,
            candidacy,
            failpoints,
            metrics: Arc::clone(&metrics),
        };
        let ledger = Ledger::start(options, &tasks).await.unwrap();
        Writer { ledger, tasks, metrics }
    }
}

impl Writer {
    async fn start(database: &Database, failpoints: Failpoints) -> Self {
        Setup { failpoints, ..Setup::new(database) }.start().await
    }

    /// The value of a metric; 0 before its first increment.
    fn metric(&self, line: &str) -> f64 {
        let text =
            Exposition::new(Arc::clone(&self.metrics), []).render(ExpositionFormat::Prometheus);
        text.lines()
            .find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
            .unwrap_or_default()
    }

    async fn stop(self) {
        assert!(self.tasks.stop(Duration::from_secs(20)).await, "the writer did not drain");
    }

    async fn open(&self) {
        let action = Action::Open { account: ACCOUNT, currency: euro() };
        self.ledger.post(posting(None, action)).await.unwrap();
    }
}

fn posting(key: Option<u128>, action: Action) -> Posting {
    let key = key.map(|key| HashedKey { hash: Uuid::from_u128(key), content: Uuid::from_u128(7) });
    Posting { key, legs: vec![Leg::from(action)], companions: Vec::new(), trace_id: None }
}

fn deposit(key: u128) -> Posting {
    let world = AccountId::system(SystemRole::World, euro());
    let amount = Minor(1);
    posting(
        Some(key),
        Action::Move { kind: TransferKind::Deposit, debit: world, credit: ACCOUNT, amount },
    )
}

fn withdraw(key: u128, amount: i64) -> Posting {
    let world = AccountId::system(SystemRole::World, euro());
    let amount = Minor(amount);
    posting(
        Some(key),
        Action::Move { kind: TransferKind::Withdrawal, debit: ACCOUNT, credit: world, amount },
    )
}

impl Database {
    /// Opens an account and makes nine deposits, each in a batch of its own.
    pub async fn fill(&self) {
        let writer = Writer::start(self, Failpoints::default()).await;
        writer.open().await;
        for key in 0..9 {
            send_with_retry(&writer.ledger, deposit(key)).await.unwrap();
        }
        writer.stop().await;
    }
}

/// Retries until the posting is acknowledged or refused, as a client with a key does.
async fn send_with_retry(ledger: &Ledger, posting: Posting) -> Result<Posted, Refusal> {
    for _ in 0..2_000 {
        match ledger.post(posting.clone()).await {
            Ok(posted) => return Ok(posted),
            Err(PostError::Refused(refusal)) => return Err(refusal),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    panic!("the posting was neither acknowledged nor refused");
}

/// Injects a fault each `nth` time that a stage is reached.
fn every_nth(stage: WriterStage, nth: u32, fault: InjectedFault) -> Failpoints {
    let passed = Arc::new(AtomicU32::new(0));
    Failpoints::new(move |here| {
        let hit = here == stage && passed.fetch_add(1, Ordering::Relaxed) % nth == nth - 1;
        async move { hit.then_some(fault) }.boxed()
    })
}

/// Injects a fault the first, third, sixth, tenth ... time that a stage is reached: intervals that grow.
fn at_growing_intervals(stage: WriterStage, fault: InjectedFault) -> Failpoints {
    let passed = Arc::new(AtomicU32::new(0));
    Failpoints::new(move |here| {
        let count = if here == stage { passed.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        let hit = (1..=count).any(|n| n * (n + 1) / 2 == count);
        async move { hit.then_some(fault) }.boxed()
    })
}

const STAGES: [WriterStage; 6] = [
    WriterStage::BeforeSend,
    WriterStage::AfterSend,
    WriterStage::AfterReply,
    WriterStage::BeforeAnswer,
    WriterStage::BeforeReconnect,
    WriterStage::BeforeResend,
];

#[tokio::test]
async fn each_posting_is_written_once_when_the_connection_is_cut_at_any_stage() {
    for stage in STAGES {
        let database = Database::create().await;
        let writer =
            Writer::start(&database, every_nth(stage, 3, InjectedFault::CutConnection)).await;
        writer.open().await;

        let answers =
            join_all((0..200).map(|key| send_with_retry(&writer.ledger, deposit(key)))).await;

        assert!(answers.iter().all(Result::is_ok), "{stage:?}");
        let again =
            join_all((0..200).map(|key| send_with_retry(&writer.ledger, deposit(key)))).await;
        for (first, again) in answers.iter().zip(&again) {
            let (first, again) = (first.as_ref().unwrap(), again.as_ref().unwrap());
            assert_eq!((first.first_seq, &first.rows), (again.first_seq, &again.rows), "{stage:?}");
        }
        writer.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 200, "{stage:?}");
        database.drop().await;
    }
}

#[tokio::test]
async fn each_posting_is_written_at_most_once_when_the_writer_is_killed_at_any_stage() {
    for stage in STAGES[..4].iter().copied() {
        let database = Database::create().await;
        let first = Writer::start(&database, Failpoints::default()).await;
        first.open().await;
        first.stop().await;
        for round in 0..3 {
            let writer =
                Writer::start(&database, every_nth(stage, 2 + round, InjectedFault::KillWriter))
                    .await;

            // A killed writer does not reply, so clients retry with the next writer.
            join_all((0..50).map(|key| writer.ledger.post(deposit(key)))).await;
        }
        let last = Writer::start(&database, Failpoints::default()).await;
        let answers =
            join_all((0..50).map(|key| send_with_retry(&last.ledger, deposit(key)))).await;

        assert!(answers.iter().all(Result::is_ok), "{stage:?}");
        last.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 50, "{stage:?}");
        database.drop().await;
    }
}

#[tokio::test]
async fn each_posting_is_written_once_when_backends_are_terminated_under_load() {
    let database = Database::create().await;
    let writer = Writer::start(&database, Failpoints::default()).await;
    writer.open().await;
    let killer = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            database.end_other_sessions().await;
        }
    };

    let load = async {
        let mut answers = Vec::new();
        for round in 0..20 {
            let keys = (0..50).map(|n| round * 50 + n);
            answers.extend(
                join_all(keys.map(|key| send_with_retry(&writer.ledger, deposit(key)))).await,
            );
        }
        answers
    };
    let (answers, ()) = tokio::join!(load, killer);

    assert!(answers.iter().all(Result::is_ok));
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 1_000);
    database.drop().await;
}

#[tokio::test]
async fn each_posting_is_written_once_by_many_writers_of_one_book() {
    for count in [2, 4] {
        let database = Database::create().await;
        let writers =
            join_all((0..count).map(|_| Writer::start(&database, Failpoints::default()))).await;
        writers[0].open().await;

        let all = (0..400_u128).map(|key| {
            let writer = &writers[usize::try_from(key).unwrap() % writers.len()];
            send_with_retry(&writer.ledger, deposit(key))
        });
        let answers = join_all(all).await;

        assert!(answers.iter().all(Result::is_ok));
        for writer in writers {
            writer.stop().await;
        }
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 400);
        database.drop().await;
    }
}

#[tokio::test]
async fn equal_keys_at_two_writers_are_written_once() {
    let database = Database::create().await;
    let one = Writer::start(&database, Failpoints::default()).await;
    let other = Writer::start(&database, Failpoints::default()).await;
    one.open().await;

    let both = (0..100).flat_map(|key| {
        [send_with_retry(&one.ledger, deposit(key)), send_with_retry(&other.ledger, deposit(key))]
    });
    let answers = join_all(both).await;

    for pair in answers.chunks(2) {
        let (one, other) = (pair[0].as_ref().unwrap(), pair[1].as_ref().unwrap());
        assert_eq!(one.first_seq, other.first_seq);
        assert_eq!(u8::from(one.replayed) + u8::from(other.replayed), 1);
    }
    one.stop().await;
    other.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 100);
    database.drop().await;
}

#[tokio::test]
async fn two_writers_never_overdraw_an_account() {
    let database = Database::create().await;
    let one = Writer::start(&database, Failpoints::default()).await;
    let other = Writer::start(&database, Failpoints::default()).await;
    one.open().await;
    for key in 0..10 {
        send_with_retry(&one.ledger, deposit(key)).await.unwrap();
    }

    let all = (100..140).map(|key| {
        let writer = if key % 2 == 0 { &one } else { &other };
        send_with_retry(&writer.ledger, withdraw(key, 1))
    });
    let answers = join_all(all).await;

    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10);
    // The refusals were correct: the balance was 0, and it is 0 now.
    one.stop().await;
    other.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 0);
    database.drop().await;
}

#[tokio::test]
async fn a_withdrawal_whose_reply_was_lost_is_not_refused_on_retry() {
    for stage in [WriterStage::AfterSend, WriterStage::AfterReply, WriterStage::BeforeAnswer] {
        let database = Database::create().await;
        let first = Writer::start(&database, Failpoints::default()).await;
        first.open().await;
        send_with_retry(&first.ledger, deposit(1)).await.unwrap();
        first.stop().await;
        let killed = Writer::start(&database, every_nth(stage, 1, InjectedFault::KillWriter)).await;
        assert!(killed.ledger.post(withdraw(2, 1)).await.is_err(), "a killed writer replied");

        let next = Writer::start(&database, Failpoints::default()).await;
        let answer = send_with_retry(&next.ledger, withdraw(2, 1)).await;

        assert!(answer.is_ok(), "{stage:?}: {answer:?}");
        next.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 0, "{stage:?}");
        database.drop().await;
    }
}

#[tokio::test]
async fn the_database_refuses_changes_of_the_book() {
    let database = Database::create().await;
    let writer = Writer::start(&database, Failpoints::default()).await;
    writer.open().await;
    send_with_retry(&writer.ledger, deposit(1)).await.unwrap();

    for statement in [
        "update ledger.transfer set amount = 5",
        "delete from ledger.transfer",
        "truncate ledger.transfer cascade",
        "update ledger.seal set at = now()",
        "delete from ledger.posting",
        "delete from ledger.account",
        "set session_replication_role = replica; delete from ledger.transfer",
    ] {
        let refused = database.try_execute(statement).await.expect_err(statement);
        assert!(refused.to_string().contains("append-only"), "{statement}: {refused}");
    }
    for statement in [
        "set role revwallet_app; insert into ledger.seal (seq) values (1)",
        "set role revwallet_app; insert into ledger.transfer (seq) values (1)",
    ] {
        let refused = database.try_execute(statement).await.expect_err(statement);
        assert!(refused.to_string().contains("permission denied"), "{statement}: {refused}");
    }
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 1);
    database.drop().await;
}

#[tokio::test]
async fn a_full_queue_sheds_load_and_loses_no_posting() {
    let database = Database::create().await;
    let slow = Failpoints::new(|_| {
        async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            None
        }
        .boxed()
    });
    let writer = Writer::start(&database, slow).await;
    writer.open().await;

    let answers = join_all((0..4_000).map(|key| writer.ledger.post(deposit(key)))).await;

    let done = answers.iter().filter(|answer| answer.is_ok()).count();
    let shed = answers.iter().filter(|answer| matches!(answer, Err(PostError::Overloaded))).count();
    assert!(shed > 0, "no load was shed");
    assert_eq!(done + shed, answers.len());
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), i64::try_from(done).unwrap());
    database.drop().await;
}

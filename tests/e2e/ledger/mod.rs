//! The book, with everything around it breaking: what was acknowledged is there, once.

mod companions;
mod contention;
mod faults;
mod lost_commits;
mod model;
mod proxy;
mod scale;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use revwallet::idempotency::HashedKey;
use revwallet::ledger::account::{AccountId, SystemRole};
use revwallet::ledger::companion::CompanionKind;
use revwallet::ledger::currency::{Currencies, Currency};
use revwallet::ledger::decide::Rules;
use revwallet::ledger::money::Minor;
use revwallet::ledger::transfer::{Action, Leg, Posted, Posting, TransferKind};
use revwallet::ledger::{
    Failpoints, Fault, Ledger, LedgerOptions, PostError, Refusal, Settings, Stage,
};
use revwallet::tasks::Tasks;
use revwallet::telemetry::{Exposition, Format, Metrics};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::harness::check::book;
use crate::harness::postgres::Database;

const ACCOUNT: AccountId = AccountId(1);

fn euro() -> Currency {
    Currencies::default().find("EUR").unwrap()
}

/// One writer on a database.
struct Writer {
    ledger: Ledger,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

/// How a test wants its writer.
#[derive(Clone)]
struct Setup {
    url: String,
    settings: Settings,
    companions: Vec<&'static CompanionKind>,
    failpoints: Failpoints,
}

impl Setup {
    fn of(database: &Database) -> Self {
        let settings = Settings {
            allow_unsafe_server: true,
            // Small, so that batches follow each other and the queue fills up.
            batch_legs_max: 16,
            queue_max: 64,
            ..Settings::default()
        };
        Self {
            url: database.url.clone(),
            settings,
            companions: Vec::new(),
            failpoints: Failpoints::default(),
        }
    }

    async fn start(self) -> Writer {
        let Self { url, settings, companions, failpoints } = self;
        let (tasks, metrics) = (Tasks::default(), Metrics::new());
        let options = LedgerOptions {
            database: url.parse().unwrap(),
            pool: PgPoolOptions::new().max_connections(4).connect_lazy(&url).unwrap(),
            settings,
            rules: Rules { amount_max: Minor(1_000_000), currencies: Currencies::default() },
            companions,
            failpoints,
            metrics: Arc::clone(&metrics),
        };
        let ledger = Ledger::start(options, &tasks).await.unwrap();
        Writer { ledger, tasks, metrics }
    }
}

impl Writer {
    async fn start(database: &Database, failpoints: Failpoints) -> Self {
        Setup { failpoints, ..Setup::of(database) }.start().await
    }

    /// The value of a metric, 0 before it was counted for the first time.
    fn metric(&self, line: &str) -> f64 {
        let text = Exposition::new(Arc::clone(&self.metrics))
            .render(&tokio::runtime::Handle::current(), Format::Plain);
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
    /// An account and nine deposits, each in a batch of its own.
    pub async fn fill(&self) {
        let writer = Writer::start(self, Failpoints::default()).await;
        writer.open().await;
        for key in 0..9 {
            send_with_retry(&writer.ledger, deposit(key)).await.unwrap();
        }
        writer.stop().await;
    }
}

/// Posts until there is an answer that is one, as a client with a key would.
async fn send_with_retry(ledger: &Ledger, posting: Posting) -> Result<Posted, Refusal> {
    for _ in 0..2_000 {
        match ledger.post(posting.clone()).await {
            Ok(posted) => return Ok(posted),
            Err(PostError::Refused(refusal)) => return Err(refusal),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    panic!("never answered");
}

/// A fault at every `nth` time that a stage is passed.
fn at(stage: Stage, nth: u32, fault: Fault) -> Failpoints {
    let passed = Arc::new(AtomicU32::new(0));
    Failpoints::new(move |here| {
        let hit = here == stage && passed.fetch_add(1, Ordering::Relaxed) % nth == nth - 1;
        async move { hit.then_some(fault) }.boxed()
    })
}

/// A fault at the first, third, sixth, tenth ... time that a stage is passed: no rhythm to fall in with.
fn ever_rarer(stage: Stage, fault: Fault) -> Failpoints {
    let passed = Arc::new(AtomicU32::new(0));
    Failpoints::new(move |here| {
        let count = if here == stage { passed.fetch_add(1, Ordering::Relaxed) + 1 } else { 0 };
        let hit = (1..=count).any(|n| n * (n + 1) / 2 == count);
        async move { hit.then_some(fault) }.boxed()
    })
}

const STAGES: [Stage; 6] = [
    Stage::BeforeSend,
    Stage::AfterSend,
    Stage::AfterReply,
    Stage::BeforeAnswer,
    Stage::BeforeReconnect,
    Stage::BeforeResend,
];

#[tokio::test]
async fn a_connection_that_is_cut_at_any_stage_loses_and_doubles_nothing() {
    for stage in STAGES {
        let database = Database::create().await;
        let writer = Writer::start(&database, at(stage, 3, Fault::Cut)).await;
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
async fn a_writer_that_dies_at_any_stage_leaves_each_posting_there_once_or_not_at_all() {
    for stage in STAGES[..4].iter().copied() {
        let database = Database::create().await;
        let first = Writer::start(&database, Failpoints::default()).await;
        first.open().await;
        first.stop().await;
        for life in 0..3 {
            let writer = Writer::start(&database, at(stage, 2 + life, Fault::Die)).await;

            // Nobody is told anything when the writer dies, so a client asks the next one.
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
async fn a_backend_that_is_ended_under_load_loses_and_doubles_nothing() {
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
async fn many_writers_of_one_book_lose_and_double_nothing() {
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
async fn equal_keys_of_two_writers_are_done_once() {
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
async fn two_writers_never_withdraw_more_than_there_is() {
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
    // The refused ones were told the truth: there was nothing left, and there is nothing now.
    one.stop().await;
    other.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 0);
    database.drop().await;
}

#[tokio::test]
async fn a_withdrawal_whose_answer_was_lost_is_not_refused_when_it_is_asked_again() {
    for stage in [Stage::AfterSend, Stage::AfterReply, Stage::BeforeAnswer] {
        let database = Database::create().await;
        let first = Writer::start(&database, Failpoints::default()).await;
        first.open().await;
        send_with_retry(&first.ledger, deposit(1)).await.unwrap();
        first.stop().await;
        let dying = Writer::start(&database, at(stage, 1, Fault::Die)).await;
        assert!(dying.ledger.post(withdraw(2, 1)).await.is_err(), "nobody is told");

        let next = Writer::start(&database, Failpoints::default()).await;
        let answer = send_with_retry(&next.ledger, withdraw(2, 1)).await;

        assert!(answer.is_ok(), "{stage:?}: {answer:?}");
        next.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 0, "{stage:?}");
        database.drop().await;
    }
}

#[tokio::test]
async fn the_book_cannot_be_changed_behind_its_back() {
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
async fn a_full_queue_sheds_load_and_forgets_nothing() {
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
    assert!(shed > 0, "nothing was shed");
    assert_eq!(done + shed, answers.len());
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), i64::try_from(done).unwrap());
    database.drop().await;
}

//! Two attempts to seal one head: by one writer whose connection broke, or by two writers.

use std::sync::atomic::AtomicBool;

use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::Barrier;

use super::proxy::Proxy;
use super::*;
use crate::harness::eventually;
use crate::harness::program::signal;

/// A URL with a user that may not terminate backends, so the writer cannot know that an earlier attempt is over.
async fn unprivileged_url(database: &Database, url: &str) -> String {
    database
        .execute(
            "do $$ begin
                 create role unprivileged login in role revwallet_app;
             exception when duplicate_object or unique_violation then null;
             end $$;
             revoke execute on function pg_catalog.pg_terminate_backend(int, bigint) from public",
        )
        .await;
    url.replace("://revwallet@", "://unprivileged@")
}

async fn transfers(db: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from ledger.transfer").fetch_one(db).await.unwrap()
}

/// Opens a transaction that has sealed the head and neither commits nor rolls back.
async fn begin_rival_seal(db: &mut PgConnection) -> sqlx::Transaction<'_, sqlx::Postgres> {
    let mut tx = db.begin().await.unwrap();
    tx.execute(
        "insert into ledger.seal (seq, prev_seq, at, batch_id, book, hash)
         select seq + 1, seq, at, gen_random_uuid(), book, sha256('x')
         from ledger.seal order by seq desc limit 1",
    )
    .await
    .unwrap();
    tx
}

/// Waits until this many backends wait for a lock of another transaction. Returns them, the oldest first.
async fn wait_for_blocked_backends(database: &Database, count: usize) -> Vec<i32> {
    let mut db = database.connect().await;
    let mut blocked = Vec::new();
    eventually("the attempts are blocked", async || {
        blocked = sqlx::query_scalar(
            "select pid from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'
             order by backend_start",
        )
        .fetch_all(&mut db)
        .await
        .unwrap();
        blocked.len() == count
    })
    .await;
    db.close().await.unwrap();
    blocked
}

#[tokio::test]
async fn a_committed_first_attempt_is_found_by_the_second() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database);
    let url = unprivileged_url(&database, &proxy.url()).await;
    let writer = Setup { url, ..Setup::new(&database) }.start().await;
    writer.open().await;
    let mut rival = database.connect().await;
    let tx = begin_rival_seal(&mut rival).await;
    let mut other = database.connect().await;

    let settling = async {
        wait_for_blocked_backends(&database, 1).await;
        // The reply is lost, and a new connection is delayed.
        proxy.hold();
        proxy.cut();
        tx.rollback().await.unwrap();
        eventually("the first attempt committed", async || transfers(&mut other).await == 2).await;
        proxy.release();
    };
    let (posted, ()) = tokio::join!(writer.ledger.post(deposit(1)), settling);

    let posted = posted.unwrap();
    assert_eq!((posted.first_seq, posted.replayed), (2, false));
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 1);
    database.drop().await;
}

#[tokio::test]
async fn of_two_blocked_attempts_one_commits() {
    for _ in 0..5 {
        let database = Database::create().await;
        let proxy = Proxy::start(&database);
        let url = unprivileged_url(&database, &proxy.url()).await;
        let writer = Setup { url, ..Setup::new(&database) }.start().await;
        writer.open().await;
        let mut rival = database.connect().await;
        let tx = begin_rival_seal(&mut rival).await;

        let settling = async {
            wait_for_blocked_backends(&database, 1).await;
            proxy.cut();
            wait_for_blocked_backends(&database, 2).await;
            tx.rollback().await.unwrap();
        };
        let (posted, ()) = tokio::join!(writer.ledger.post(deposit(1)), settling);

        assert_eq!(posted.unwrap().first_seq, 2);
        writer.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 1);
        database.drop().await;
    }
}

/// A process that is stopped, and continues when this value is dropped.
struct StoppedProcess(u32);

impl StoppedProcess {
    fn new(process: i32) -> Self {
        let process = u32::try_from(process).unwrap();
        signal(process, "STOP");
        Self(process)
    }
}

impl Drop for StoppedProcess {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

#[tokio::test]
async fn the_end_of_the_second_attempt_says_nothing_about_the_first() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database);
    let writer = Setup { url: proxy.url(), ..Setup::new(&database) }.start().await;
    writer.open().await;
    let mut rival = database.connect().await;
    let tx = begin_rival_seal(&mut rival).await;

    let settling = async {
        // A stopped backend cannot be terminated, so it is not certain that it will not commit.
        let first = StoppedProcess::new(wait_for_blocked_backends(&database, 1).await[0]);
        proxy.cut();
        let second = wait_for_blocked_backends(&database, 2).await[1];
        database.execute(&format!("select pg_terminate_backend({second})")).await;
        let third = wait_for_other_attempt(&database, second).await;
        // An ordinary error, after which nothing would be written if this were the only attempt.
        database.execute(&format!("select pg_cancel_backend({third})")).await;
        wait_for_other_attempt(&database, third).await;
        drop(first);
        tx.rollback().await.unwrap();
    };
    let (posted, ()) = tokio::join!(writer.ledger.post(deposit(1)), settling);

    assert_eq!(posted.unwrap().first_seq, 2);
    assert!(writer.metric(r#"wallet_ledger_batches_total{outcome="unsettled"}"#) > 0.0);
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 1);
    database.drop().await;
}

/// Waits until a newer attempt than that of the backend `previous` is blocked, besides the first one. Returns its backend.
async fn wait_for_other_attempt(database: &Database, previous: i32) -> i32 {
    let mut newest = previous;
    eventually("a newer attempt is blocked", async || {
        newest = wait_for_blocked_backends(database, 2).await[1];
        newest != previous
    })
    .await;
    newest
}

#[tokio::test]
async fn a_first_attempt_that_arrives_after_the_second_has_no_effect() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database);
    let url = unprivileged_url(&database, &proxy.url()).await;
    let writer = Setup { url, ..Setup::new(&database) }.start().await;
    writer.open().await;
    // The account is cached now, so the next request is a batch.
    send_with_retry(&writer.ledger, deposit(1)).await.unwrap();
    proxy.hold();

    let settling = async {
        eventually("the batch is in flight", async || proxy.held_bytes() > 0).await;
        proxy.cut_and_hold()
    };
    let (posted, held) = tokio::join!(writer.ledger.post(deposit(2)), settling);

    assert_eq!(posted.unwrap().first_seq, 3);
    let undelivered = proxy.undelivered_bytes();
    held.deliver();
    eventually("the server replied to the first attempt", async || {
        proxy.undelivered_bytes() > undelivered
    })
    .await;
    assert_eq!(transfers(&mut database.connect().await).await, 3);
    send_with_retry(&writer.ledger, deposit(3)).await.unwrap();
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 3);
    database.drop().await;
}

#[tokio::test]
async fn two_writers_with_the_same_content_on_the_same_head_both_commit() {
    let database = Database::create().await;
    let barrier = Arc::new(Barrier::new(2));
    let wait_for_other = |armed: &Arc<AtomicBool>| {
        let (barrier, armed) = (Arc::clone(&barrier), Arc::clone(armed));
        Failpoints::new(move |stage| {
            let (barrier, armed) = (Arc::clone(&barrier), Arc::clone(&armed));
            async move {
                if stage == WriterStage::BeforeSend && armed.swap(false, Ordering::SeqCst) {
                    barrier.wait().await;
                }
                None
            }
            .boxed()
        })
    };
    let armed = [Arc::<AtomicBool>::default(), Arc::default()];
    let one = Writer::start(&database, wait_for_other(&armed[0])).await;
    one.open().await;
    let other = Writer::start(&database, wait_for_other(&armed[1])).await;
    // Both writers cache the account, so that their next request is a batch.
    send_with_retry(&one.ledger, deposit(1)).await.unwrap();
    send_with_retry(&other.ledger, deposit(2)).await.unwrap();
    send_with_retry(&one.ledger, deposit(3)).await.unwrap();
    send_with_retry(&other.ledger, deposit(4)).await.unwrap();
    send_with_retry(&one.ledger, deposit(5)).await.unwrap();
    let same = || Posting { key: None, ..deposit(9) };
    for armed in &armed {
        armed.store(true, Ordering::SeqCst);
    }

    let (first, second) = tokio::join!(one.ledger.post(same()), other.ledger.post(same()));

    let mut seqs = [first.unwrap().first_seq, second.unwrap().first_seq];
    seqs.sort_unstable();
    assert_eq!(seqs, [7, 8], "each posting must be written once");
    let stale = r#"wallet_ledger_batches_total{outcome="stale"}"#;
    assert!(one.metric(stale) + other.metric(stale) >= 1.0);
    one.stop().await;
    other.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 7);
    database.drop().await;
}

#[tokio::test]
async fn a_batch_of_another_writer_with_the_same_content_is_not_taken_for_ones_own() {
    let database = Database::create().await;
    let rival = Writer::start(&database, Failpoints::default()).await;
    rival.open().await;
    let same = || Posting { key: None, ..deposit(9) };
    let resume = Arc::new(tokio::sync::Notify::new());
    let was_cut = Arc::new(AtomicBool::new(false));
    let (resumed, cut) = (Arc::clone(&resume), Arc::clone(&was_cut));
    // The batch is not sent, and before it is resent a rival posts the same content.
    let failpoints = Failpoints::new(move |stage| {
        let (resumed, cut) = (Arc::clone(&resumed), Arc::clone(&cut));
        async move {
            match stage {
                WriterStage::BeforeSend if !cut.swap(true, Ordering::SeqCst) => {
                    Some(InjectedFault::CutConnection)
                }
                WriterStage::BeforeResend => {
                    resumed.notified().await;
                    None
                }
                _ => None,
            }
        }
        .boxed()
    });
    let writer = Writer::start(&database, failpoints).await;

    let rivalry = async {
        eventually("the first batch was cut", async || was_cut.load(Ordering::SeqCst)).await;
        let posted = rival.ledger.post(same()).await.unwrap();
        resume.notify_one();
        posted
    };
    let (ours, theirs) = tokio::join!(writer.ledger.post(same()), rivalry);

    assert_eq!((theirs.first_seq, ours.unwrap().first_seq), (2, 3));
    writer.stop().await;
    rival.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 2);
    database.drop().await;
}

#[tokio::test]
async fn a_batch_does_not_wait_for_the_lock_of_the_book() {
    let database = Database::create().await;
    let writer = Setup::new(&database).start().await;
    writer.open().await;
    let mut holder = database.connect().await;
    let mut tx = holder.begin().await.unwrap();
    // Locks the book as a writer does that lost a race. If a seal waited for this lock, a deadlock would be possible.
    tx.execute("select * from ledger.catch_up(1, 0, 0, true)").await.unwrap();

    let posted = writer.ledger.post(deposit(1)).await.unwrap();

    assert_eq!(posted.first_seq, 2);
    tx.rollback().await.unwrap();
    writer.stop().await;
    database.drop().await;
}

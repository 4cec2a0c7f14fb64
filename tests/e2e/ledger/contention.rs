//! Two attempts at one head: of one writer whose connection broke, or of two that want the same.

use std::sync::atomic::AtomicBool;

use sqlx::{Connection, Executor, PgConnection};
use tokio::sync::Barrier;

use super::proxy::Proxy;
use super::*;
use crate::harness::eventually;

/// A user who may not end backends, and so cannot know that an earlier attempt is dead.
async fn powerless(database: &Database, url: &str) -> String {
    database
        .execute(
            "do $$ begin
                 create role powerless login in role revwallet_app;
             exception when duplicate_object or unique_violation then null;
             end $$;
             revoke execute on function pg_catalog.pg_terminate_backend(int, bigint) from public",
        )
        .await;
    url.replace("://revwallet@", "://powerless@")
}

async fn transfers(db: &mut PgConnection) -> i64 {
    sqlx::query_scalar("select count(*) from ledger.transfer").fetch_one(db).await.unwrap()
}

/// Somebody who is about to seal the head, and has not made up his mind.
async fn undecided(db: &mut PgConnection) -> sqlx::Transaction<'_, sqlx::Postgres> {
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

/// Waits until this many backends wait for somebody else's transaction.
async fn waiting(database: &Database, count: i64) {
    let mut db = database.connect().await;
    eventually("attempts wait", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock'",
        )
        .fetch_one(&mut db)
        .await
        .unwrap();
        waiting == count
    })
    .await;
    db.close().await.unwrap();
}

#[tokio::test]
async fn a_first_attempt_that_landed_is_found_by_the_second() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database);
    let url = powerless(&database, &proxy.url()).await;
    let writer = Setup { url, ..Setup::of(&database) }.start().await;
    writer.open().await;
    let mut rival = database.connect().await;
    let tx = undecided(&mut rival).await;
    let mut other = database.connect().await;

    let settling = async {
        waiting(&database, 1).await;
        // The answer will not come through, and neither will a new connection yet.
        proxy.hold();
        proxy.cut();
        tx.rollback().await.unwrap();
        eventually("the first attempt landed", async || transfers(&mut other).await == 2).await;
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
async fn of_two_attempts_that_wait_together_one_lands() {
    for _ in 0..5 {
        let database = Database::create().await;
        let proxy = Proxy::start(&database);
        let url = powerless(&database, &proxy.url()).await;
        let writer = Setup { url, ..Setup::of(&database) }.start().await;
        writer.open().await;
        let mut rival = database.connect().await;
        let tx = undecided(&mut rival).await;

        let settling = async {
            waiting(&database, 1).await;
            proxy.cut();
            waiting(&database, 2).await;
            tx.rollback().await.unwrap();
        };
        let (posted, ()) = tokio::join!(writer.ledger.post(deposit(1)), settling);

        assert_eq!(posted.unwrap().first_seq, 2);
        writer.stop().await;
        assert_eq!(book(&database).await.balance(ACCOUNT.0), 1);
        database.drop().await;
    }
}

#[tokio::test]
async fn a_first_attempt_that_comes_after_the_second_changes_nothing() {
    let database = Database::create().await;
    let proxy = Proxy::start(&database);
    let url = powerless(&database, &proxy.url()).await;
    let writer = Setup { url, ..Setup::of(&database) }.start().await;
    writer.open().await;
    // The account is known, so the next thing that is sent is a batch.
    send_with_retry(&writer.ledger, deposit(1)).await.unwrap();
    proxy.hold();

    let settling = async {
        eventually("the batch is on its way", async || proxy.kept_back() > 0).await;
        proxy.cut_and_keep()
    };
    let (posted, kept) = tokio::join!(writer.ledger.post(deposit(2)), settling);

    assert_eq!(posted.unwrap().first_seq, 3);
    let unheard = proxy.unheard();
    kept.deliver();
    eventually("the first attempt was told that it is stale", async || proxy.unheard() > unheard)
        .await;
    assert_eq!(transfers(&mut database.connect().await).await, 3);
    send_with_retry(&writer.ledger, deposit(3)).await.unwrap();
    writer.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 3);
    database.drop().await;
}

#[tokio::test]
async fn two_writers_with_the_same_content_at_the_same_head_do_both() {
    let database = Database::create().await;
    let together = Arc::new(Barrier::new(2));
    let meet = |armed: &Arc<AtomicBool>| {
        let (together, armed) = (Arc::clone(&together), Arc::clone(armed));
        Failpoints::new(move |stage| {
            let (together, armed) = (Arc::clone(&together), Arc::clone(&armed));
            async move {
                if stage == Stage::BeforeSend && armed.swap(false, Ordering::SeqCst) {
                    together.wait().await;
                }
                None
            }
            .boxed()
        })
    };
    let armed = [Arc::<AtomicBool>::default(), Arc::default()];
    let one = Writer::start(&database, meet(&armed[0])).await;
    one.open().await;
    let other = Writer::start(&database, meet(&armed[1])).await;
    // Both know the account, so that the next thing they do is to send a batch.
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
    assert_eq!(seqs, [7, 8], "each of them, once");
    let stale = r#"wallet_ledger_batches_total{outcome="stale"}"#;
    assert!(one.metric(stale) + other.metric(stale) >= 1.0);
    one.stop().await;
    other.stop().await;
    assert_eq!(book(&database).await.balance(ACCOUNT.0), 7);
    database.drop().await;
}

#[tokio::test]
async fn a_batch_of_the_same_content_is_not_mistaken_for_ones_own() {
    let database = Database::create().await;
    let rival = Writer::start(&database, Failpoints::default()).await;
    rival.open().await;
    let same = || Posting { key: None, ..deposit(9) };
    let (go, gone) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicBool::new(false)));
    let (told, wait) = (Arc::clone(&go), Arc::clone(&gone));
    // Its batch never leaves, and before it is sent again somebody else does the very same.
    let failpoints = Failpoints::new(move |stage| {
        let (told, wait) = (Arc::clone(&told), Arc::clone(&wait));
        async move {
            match stage {
                Stage::BeforeSend if !wait.swap(true, Ordering::SeqCst) => Some(Fault::Cut),
                Stage::BeforeResend => {
                    told.notified().await;
                    None
                }
                _ => None,
            }
        }
        .boxed()
    });
    let writer = Writer::start(&database, failpoints).await;

    let rivalry = async {
        eventually("the first batch was cut", async || gone.load(Ordering::SeqCst)).await;
        let posted = rival.ledger.post(same()).await.unwrap();
        go.notify_one();
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
async fn a_batch_does_not_wait_for_who_holds_the_lock_of_the_book() {
    let database = Database::create().await;
    let writer = Setup::of(&database).start().await;
    writer.open().await;
    let mut holder = database.connect().await;
    let mut tx = holder.begin().await.unwrap();
    // As a writer does that lost a race; if a seal waited for it, and it for that seal, that would be a deadlock.
    tx.execute("select * from ledger.catch_up(1, 0, 0, true)").await.unwrap();

    let posted = writer.ledger.post(deposit(1)).await.unwrap();

    assert_eq!(posted.first_seq, 2);
    tx.rollback().await.unwrap();
    writer.stop().await;
    database.drop().await;
}

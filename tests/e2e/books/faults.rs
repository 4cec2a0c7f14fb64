//! Faults at each stage of a transaction for several books.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use futures_util::future::join_all;
use revwallet::ledger::{InjectedFault, WriterStage};

use super::*;

const STAGES: [WriterStage; 3] =
    [WriterStage::BooksLocked, WriterStage::BooksPosted, WriterStage::BooksCommitted];

const TRANSFERS: u128 = 40;

/// Injects a fault each third time that a stage is reached.
fn every_third(stage: WriterStage, fault: InjectedFault) -> Failpoints {
    let passed = Arc::new(AtomicU32::new(0));
    Failpoints::new(move |here| {
        let hit = here == stage && passed.fetch_add(1, Ordering::Relaxed) % 3 == 2;
        async move { hit.then_some(fault) }.boxed()
    })
}

/// Opens an account in each of two books, the first with 1,000.
async fn prepare(database: &Database) -> (AccountId, AccountId) {
    let process = Process::start(database, 2).await;
    let (from, to) = (customer(1, 1), customer(2, 1));
    process.open(&[from, to]).await;
    process.deposit(from, 1_000).await;
    process.stop().await;
    (from, to)
}

#[tokio::test]
async fn a_cut_connection_at_any_stage_loses_and_doubles_no_transfer_between_books() {
    for stage in STAGES {
        let database = books(2).await;
        let (from, to) = prepare(&database).await;
        let failpoints = every_third(stage, InjectedFault::CutConnection);
        let process = Process::start_with(&database, 2, Vec::new(), failpoints).await;

        for round in 0..TRANSFERS / 4 {
            let keys = (0..4).map(|n| round * 4 + n);
            let posts = keys.map(|key| process.ledger.post(keyed(key, 7, transfer(from, to, 1))));
            for result in join_all(posts).await {
                assert!(result.is_ok_and(|posted| !posted.replayed), "{stage:?}");
            }
        }

        let moved = i64::try_from(TRANSFERS).unwrap();
        assert_eq!(balance(&database, from).await, 1_000 - moved, "{stage:?}");
        assert_eq!(balance(&database, to).await, moved, "{stage:?}");
        process.stop().await;
        assert_verified(&database).await;
        database.drop().await;
    }
}

#[tokio::test]
async fn a_killed_process_leaves_a_transfer_in_both_books_or_in_none() {
    for stage in STAGES {
        let database = books(2).await;
        let (from, to) = prepare(&database).await;
        let mut written = 0;
        for key in 0..12 {
            let failpoints = Failpoints::new(move |here| {
                async move { (here == stage).then_some(InjectedFault::KillWriter) }.boxed()
            });
            let process = Process::start_with(&database, 2, Vec::new(), failpoints).await;
            let killed = process.ledger.post(keyed(key, 7, transfer(from, to, 1))).await;
            assert_eq!(killed, Err(PostError::Unknown), "{stage:?}");
            drop(process);
            assert_verified(&database).await;

            // The client tries again with the same key.
            let process = Process::start(&database, 2).await;
            let posted = process.ledger.post(keyed(key, 7, transfer(from, to, 1))).await.unwrap();
            written += 1;
            assert_eq!(posted.replayed, stage == WriterStage::BooksCommitted, "{stage:?}");
            assert_eq!(posted.available(to), Some(Minor(written)));
            process.stop().await;
        }
        assert_eq!(balance(&database, from).await, 1_000 - written);
        assert_verified(&database).await;
        database.drop().await;
    }
}

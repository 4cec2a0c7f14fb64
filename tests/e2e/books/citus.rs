//! Books on a Citus cluster. These tests run with `scripts/test --citus`, and are skipped without it.

use std::io::Write;
use std::time::Instant;

use super::*;
use crate::harness::{eventually_within, postgres};

/// Number of transfers between the books.
const TRANSFERS: u128 = 400;

/// Maximum number of crashes until the transfers have ended.
const CRASHES_MAX: usize = 200;

/// Longest time that a client sends one transfer again and again.
const RETRY_MAX: Duration = Duration::from_mins(1);

/// Returns whether the test run has no cluster, and says so.
fn is_skipped() -> bool {
    let is_skipped = !postgres::is_distributed();
    if is_skipped {
        let note = "skipped: scripts/test --citus runs this test, where Citus is installed";
        drop(writeln!(std::io::stderr(), "{note}"));
    }
    is_skipped
}

/// Returns a book that is stored on another worker than book 1.
async fn book_of_another_worker(database: &Database, count: i32) -> i32 {
    sqlx::query_scalar(
        "with place as (
            select b.book, p.nodename
            from ledger.book b
            join pg_dist_shard_placement p
                on p.shardid = get_shard_id_for_distribution_column('ledger.seal', b.book)
            where b.book <= $1
        )
        select o.book from place o join place f on f.book = 1 and f.nodename <> o.nodename
        order by o.book limit 1",
    )
    .bind(count)
    .fetch_one(&mut database.connect().await)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crashes_of_servers_lose_and_double_nothing() {
    if is_skipped() {
        return;
    }
    let database = books(8).await;
    let other = book_of_another_worker(&database, 8).await;
    let (from, to, saver) = (customer(1, 1), customer(other, 1), customer(1, 2));
    let process = Process::start(&database, 8).await;
    process.open(&[from, to, saver]).await;
    process.deposit(from, 1_000).await;

    let transfers = async {
        let mut retries = 0;
        for key in 0..TRANSFERS {
            let started = Instant::now();
            while let Err(error) = process.ledger.post(keyed(key, 7, transfer(from, to, 1))).await {
                assert!(started.elapsed() < RETRY_MAX, "transfer {key}: {error:?}");
                retries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        retries
    };
    // Deposits without a key: they are not sent again, so each response must be true.
    let (mut saved, mut unknown) = (0, 0);
    let deposits = async {
        loop {
            match process.post(pay(TransferKind::Deposit, world(), saver, 1)).await {
                Ok(_) => saved += 1,
                Err(PostError::Unknown) => unknown += 1,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let crashes = async {
        for count in 0..CRASHES_MAX {
            tokio::time::sleep(Duration::from_millis(700)).await;
            postgres::crash_server(count % 3).await;
        }
    };
    let retries = tokio::select! {
        retries = transfers => retries,
        () = crashes => panic!("the transfers did not end"),
        () = deposits => unreachable!("deposits do not end"),
    };

    assert!(retries > 0 && saved > 0, "no crash met a transfer");
    process.stop().await;
    let moved = i64::try_from(TRANSFERS).unwrap();
    eventually_within(RETRY_MAX, "both books have all transfers", async || {
        balance(&database, from).await == 1_000 - moved && balance(&database, to).await == moved
    })
    .await;
    // The last deposit may have been canceled while it was written.
    let found = balance(&database, saver).await;
    assert!((saved..=saved + unknown + 1).contains(&found), "{found}: {saved} {unknown}");
    assert_verified(&database).await;
    database.drop().await;
}

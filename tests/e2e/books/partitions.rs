//! Partitions of a further book: created in time, archived and restored on their own.

use revwallet::ledger::partition;
use sqlx::postgres::PgPoolOptions;
use time::OffsetDateTime;

use super::*;

/// Transfers of a partition.
const ROWS: i64 = 100;

#[tokio::test]
async fn each_book_has_partitions_of_its_own() {
    let database = Database::create().await;
    let mut db = database.connect().await;
    sqlx::query("select ledger.create_book(2, 'second', $1)")
        .bind(ROWS)
        .execute(&mut db)
        .await
        .unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy(&database.url).unwrap();
    let process = Process::start(&database, 2).await;
    let (one, other) = (customer(1, 1), customer(2, 1));
    process.open(&[one, other]).await;
    process.deposit(other, 1_000).await;

    process.ledger.post(keyed(1, 7, transfer(other, one, 1))).await.unwrap();
    process.post(transfer(one, other, 1)).await.unwrap();
    for round in 0..3 * ROWS {
        partition::extend(&pool, ROWS).await.unwrap();
        let action = if round % 2 == 0 { transfer(other, one, 1) } else { transfer(one, other, 1) };
        process.post(action).await.unwrap();
    }

    let partitions = partition::list(&mut db).await.unwrap();
    let of_second: Vec<_> =
        partitions.iter().filter(|partition| partition.first_seq >= first_seal(2)).collect();
    assert!(of_second.len() >= 3, "{of_second:?}");
    let archived =
        partition::archive_next(&mut db, OffsetDateTime::now_utc()).await.unwrap().unwrap();
    assert_eq!(archived.first_seq, first_seal(2));
    assert_eq!(balance(&database, other).await, 1_000);
    assert_eq!(process.post(transfer(other, one, 7)).await.unwrap().available(one), Some(Minor(7)));
    // The first reply to a key needs the copy in the archive.
    let replayed = process.ledger.post(keyed(1, 7, transfer(other, one, 1))).await;
    assert!(matches!(replayed, Err(PostError::Archived { .. })), "{replayed:?}");
    assert_verified(&database).await;
    partition::restore(&mut db, archived.first_seq).await.unwrap();
    drop(db);
    process.stop().await;
    assert_verified(&database).await;
    database.drop().await;
}

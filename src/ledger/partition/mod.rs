//! Partitions of the ledger's transfers table, each for a range of seqs, and their archiving.
//!
//! New transfers go into the open partition. A task creates the next partition before the open partition is full. A
//! complete partition can be archived: its table is replaced by a table with the few rows that later balances, states
//! and holds depend on, and the operator can move the original table elsewhere. Reads that need an archived transfer
//! fail with 410.

pub mod cli;
mod sql;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{Connection, PgConnection, PgPool};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::db::{Database, migrations};
use crate::ledger::book::book_of;
use crate::telemetry::Metrics;

/// Interval at which the task checks whether the ledger needs another partition.
const INTERVAL: Duration = Duration::from_secs(15);

/// Interval at which `revwallet partition` checks whether the transactions that it is waiting for have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Maximum number of attempts to replace a partition's table while queries keep the table locked.
const EXCHANGE_ATTEMPTS_MAX: u32 = 60;

/// Pause between two attempts to replace a partition's table.
const EXCHANGE_PAUSE: Duration = Duration::from_millis(500);

/// Time after which `revwallet partition` logs that it is still waiting for earlier transactions.
const REPORT_AFTER: Duration = Duration::from_secs(5);

/// State of a partition: whether it still gets transfers, and whether its transfers can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// New transfers go into the partition, or will go into it once the partitions before it are complete.
    Open,
    /// The partition is full.
    Complete,
    /// Archiving has begun: the transfers of the partition can no longer be read.
    Archiving,
    /// Only the rows that later balances depend on are still in the ledger.
    Archived,
}

impl PartitionState {
    const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Archiving => "archiving",
            Self::Archived => "archived",
        }
    }
}

/// A partition of the ledger's transfers table.
#[derive(Debug, Clone, Serialize)]
pub struct Partition {
    pub first_seq: i64,
    /// Last seq that the partition can contain.
    pub last_seq: i64,
    pub state: PartitionState,
    /// Size of the table and its indexes; 0 if the table is not in this database.
    pub bytes: i64,
    /// Time of the last transfer; `None` if the partition has none yet.
    #[serde(with = "time::serde::rfc3339::option")]
    pub newest: Option<OffsetDateTime>,
    /// Table in the schema `ledger` that contains the transfers of the partition.
    pub table: String,
    /// Whether the table is in this database. An operator can move the table of an archived partition elsewhere.
    pub is_in_database: bool,
}

/// Result of archiving a partition.
#[derive(Debug, Clone, Serialize)]
pub struct ArchivedPartition {
    pub first_seq: i64,
    /// Table in the schema `ledger` that contains the transfers of the partition.
    pub table: String,
    /// Number of transfers that stay in the ledger, because later balances depend on them.
    pub kept: i64,
}

/// Creates partitions before they are needed, with room for `rows` transfers each, until the program stops.
pub async fn run(
    pool: PgPool,
    rows: i64,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    metrics.wallet_ledger_partition_size_transfers.set(crate::telemetry::gauge_value(rows));
    loop {
        match extend(&pool, rows).await {
            Ok(room) => {
                metrics
                    .wallet_ledger_partition_room_transfers
                    .set(crate::telemetry::gauge_value(room));
            }
            Err(error) => tracing::warn!(
                error.message = %error,
                "the next partition of the ledger cannot be created; retrying in {INTERVAL:?}"
            ),
        }
        if stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

/// Adds partitions, for `rows` transfers each, to every book that has room for at most `rows / 2` more transfers.
/// Returns the number of transfers that still fit into the book with the least room.
pub async fn extend(pool: &PgPool, rows: i64) -> sqlx::Result<i64> {
    sql::extend(&mut *pool.acquire().await?, rows).await
}

/// Connects as the owner of the ledger's tables, because the role of the application may not change tables.
pub async fn connect_as_owner(db: &Database) -> anyhow::Result<PgConnection> {
    let mut connection = PgConnection::connect_with(db.options()).await?;
    migrations::require_current(&mut connection).await?;
    Ok(connection)
}

/// Creates books until there are `wanted`, with partitions of `rows` transfers. Returns the number of books.
pub(super) async fn create_books(
    pool: &PgPool,
    wanted: Option<i32>,
    rows: i64,
) -> anyhow::Result<i32> {
    let mut db = Box::pin(pool.acquire()).await?;
    let found = sql::count_books(&mut db).await?;
    let wanted = wanted.unwrap_or(found);
    if wanted < found {
        anyhow::bail!("--books {wanted} is less than the {found} books that the database has");
    }
    if wanted > found {
        sql::create_books(&mut db, wanted, rows).await?;
        tracing::info!(books = wanted, "the ledger now has {wanted} books instead of {found}");
    }
    Ok(wanted)
}

/// Lists all partitions, oldest first.
pub async fn list(db: &mut PgConnection) -> sqlx::Result<Vec<Partition>> {
    sql::list(db).await
}

/// Archives one partition: the oldest unarchived partition of a book, if it is complete and its last transfer is
/// earlier than `before`. Returns `None` if no book has a partition to archive. If a call is interrupted, the next call
/// continues its work.
pub async fn archive_next(
    db: &mut PgConnection,
    before: OffsetDateTime,
) -> sqlx::Result<Option<ArchivedPartition>> {
    let mut partitions = list(db).await?;
    partitions.retain(|partition| partition.state != PartitionState::Archived);
    // Keeps only the oldest of the remaining partitions of each book.
    partitions.dedup_by_key(|partition| book_of(partition.first_seq));
    let mut archivable = partitions.iter().filter(|partition| {
        partition.state != PartitionState::Open
            && partition.newest.is_none_or(|newest| newest < before)
    });
    let Some(partition) = archivable.next() else { return Ok(None) };
    let first_seq = partition.first_seq;
    let kept = sql::begin_archive(db, first_seq).await?;
    wait_for_transactions(db).await?;
    retry_exchange(async || sql::finish_archive(db, first_seq).await).await?;
    let table = sql::table(db, first_seq).await?;
    Ok(Some(ArchivedPartition { first_seq, table, kept }))
}

/// Waits until every transaction that is running now has ended, so that every remaining transaction sees the data that
/// is committed now.
async fn wait_for_transactions(db: &mut PgConnection) -> sqlx::Result<()> {
    let mut running = sql::running_transactions(db).await?;
    let (started, mut is_reported) = (Instant::now(), false);
    while !running.is_empty() {
        if started.elapsed() >= REPORT_AFTER && !std::mem::replace(&mut is_reported, true) {
            tracing::warn!(
                "the partition command is waiting until {} earlier transactions have ended; pg_stat_activity shows them",
                running.len()
            );
        }
        tokio::time::sleep(POLL_INTERVAL).await;
        let still_running = sql::running_transactions(db).await?;
        running.retain(|transaction| still_running.contains(transaction));
    }
    Ok(())
}

/// Puts the most recently archived partition back into the ledger, or reverts an unfinished archiving.
pub async fn restore(db: &mut PgConnection, first_seq: i64) -> sqlx::Result<()> {
    wait_for_transactions(db).await?;
    retry_exchange(async || sql::restore(db, first_seq).await).await
}

/// Acquires the exclusive right to archive and restore partitions, until the session ends.
pub async fn lock(db: &mut PgConnection) -> anyhow::Result<()> {
    let is_locked = sql::try_lock(db).await?;
    anyhow::ensure!(
        is_locked,
        "another process is archiving or restoring a partition; try again when it has finished"
    );
    Ok(())
}

/// Replaces a partition's table, with retries while queries keep the table locked.
async fn retry_exchange(mut exchange: impl AsyncFnMut() -> sqlx::Result<()>) -> sqlx::Result<()> {
    for attempt in 1.. {
        match exchange().await {
            Err(error) if attempt < EXCHANGE_ATTEMPTS_MAX && is_lock_timeout(&error) => {
                tokio::time::sleep(EXCHANGE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
    Ok(())
}

/// Returns whether the database gave up waiting for a lock.
fn is_lock_timeout(error: &sqlx::Error) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    error
        .as_database_error()
        .is_some_and(|error| error.code().as_deref() == Some(LOCK_NOT_AVAILABLE))
}

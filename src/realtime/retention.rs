//! Retention of events: events that move no money are deleted when they are older than `--event-retention`.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::ledger::tail::{self, Tail};

/// Interval at which old events are deleted.
const INTERVAL: Duration = Duration::from_mins(1);

/// Maximum number of events that are deleted in one transaction.
const EVENTS_MAX: i32 = 5_000;

/// Deletes old events until the program stops. Several processes can run this task at the same time; each process
/// deletes events that no other process has deleted yet.
pub async fn run(
    tail: Tail,
    retention: Duration,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    while stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if let Err(error) = prune(&tail, retention).await {
            tracing::warn!(
                error.message = %error,
                "could not delete old events from the event table; retrying in {INTERVAL:?}"
            );
        }
    }
    Ok(())
}

/// Deletes all events that are older than `retention`. Returns the number of deleted events.
pub async fn prune(tail: &Tail, retention: Duration) -> sqlx::Result<i64> {
    let mut total = 0;
    loop {
        let mut db = tail.pool().acquire().await?;
        let before = OffsetDateTime::now_utc() - retention;
        let deleted = tail::prune_events(&mut db, before, EVENTS_MAX).await?;
        total += deleted;
        if deleted == 0 {
            return Ok(total);
        }
    }
}

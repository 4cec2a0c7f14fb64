//! Retention: events that move no money are deleted after `--event-retention`.

use std::time::Duration;

use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::BOOK;
use crate::ledger::tail::{self, Tail};

/// Interval at which old events are deleted.
const INTERVAL: Duration = Duration::from_mins(1);

/// Maximum number of events that one transaction deletes.
const EVENTS_MAX: i32 = 5_000;

/// Deletes old events until the program stops. Several processes may do this; each deletes what the others have left.
pub async fn run(
    tail: Tail,
    retention: Duration,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    while stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if let Err(error) = prune(&tail, retention).await {
            tracing::warn!(
                error.message = %error,
                "old events cannot be deleted; retrying in {INTERVAL:?}"
            );
        }
    }
    Ok(())
}

/// Deletes every event that is older than the retention, and returns the number of deleted events.
pub async fn prune(tail: &Tail, retention: Duration) -> sqlx::Result<i64> {
    let mut total = 0;
    loop {
        let mut db = tail.book().pool.acquire().await?;
        let before = OffsetDateTime::now_utc() - retention;
        let deleted = tail::prune_events(&mut db, BOOK, before, EVENTS_MAX).await?;
        total += deleted;
        if deleted == 0 {
            return Ok(total);
        }
    }
}

//! Removal of the idempotency keys of game events after 30 days.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{GameEvents, sql};
use crate::error::Result;

/// Interval at which expired idempotency keys of game events are deleted.
const INTERVAL: Duration = Duration::from_mins(10);

/// Time for which an idempotency key is kept. A request that is repeated within this time does not publish its event
/// again.
const KEY_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// Maximum number of idempotency keys that a single statement deletes. The limit keeps the transaction short.
const KEYS_MAX: i64 = 10_000;

/// Deletes expired idempotency keys of game events at startup, and then regularly until the process stops. Several
/// processes can delete keys at the same time.
pub async fn run(events: GameEvents, stopping: CancellationToken) -> anyhow::Result<()> {
    let mut clock = tokio::time::interval(INTERVAL);
    while stopping.run_until_cancelled(clock.tick()).await.is_some() {
        if let Err(error) = events.remove_old_keys(&stopping).await {
            tracing::warn!(
                error.message = format!("{:#}", error.into_cause()),
                "could not delete expired idempotency keys of game events; retrying in {INTERVAL:?}"
            );
        }
    }
    Ok(())
}

impl GameEvents {
    async fn remove_old_keys(&self, stopping: &CancellationToken) -> Result<()> {
        let mut db = self.db.acquire("play.event_keys").await?;
        while !stopping.is_cancelled()
            && sql::remove_keys(&mut db, KEY_LIFETIME.as_secs_f64(), KEYS_MAX).await? == KEYS_MAX
        {
        }
        Ok(())
    }
}

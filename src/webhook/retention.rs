//! Upkeep of the deliveries: old ones are deleted, and pending ones without a job get one.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{DeliverWebhook, Webhooks, fan_out, sql};
use crate::error::{Error, Result};
use crate::telemetry::gauge_value;

/// Pause between two samples of the gauges.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// Pause between two rounds of upkeep.
const UPKEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Age at which a pending delivery gets another job. If its job exists, the second one changes nothing.
const STALLED_AFTER: Duration = Duration::from_mins(2);

/// Most deliveries that one round deletes, to keep its transaction short.
const DELETED_MAX: i64 = 10_000;

/// Runs until shutdown.
pub async fn run(webhooks: Webhooks, stopping: CancellationToken) -> anyhow::Result<()> {
    let mut upkeep = Instant::now();
    loop {
        // After a failure the next round sets the gauge.
        let _ignored = webhooks.sample_dead_letters().await;
        if stopping.run_until_cancelled(tokio::time::sleep(SAMPLE_INTERVAL)).await.is_none() {
            return Ok(());
        }
        if upkeep.elapsed() < UPKEEP_INTERVAL {
            continue;
        }
        upkeep = Instant::now();
        if let Err(error) = webhooks.upkeep().await {
            let cause = format!("{:#}", error.into_cause());
            tracing::warn!(
                error.message = cause,
                "upkeep of webhook deliveries failed; retrying in a minute"
            );
        }
    }
}

impl Webhooks {
    async fn sample_dead_letters(&self) -> Result<()> {
        let count = sql::count_dead(&mut *self.db.acquire("webhook.dead_letters").await?).await?;
        self.metrics.wallet_dead_letters.with([DeliverWebhook::QUEUE]).set(gauge_value(count));
        Ok(())
    }

    /// Runs one round of upkeep.
    pub async fn upkeep(&self) -> Result<()> {
        let mut db = self.db.acquire("webhook.keep").await?;
        sql::delete_finished(&mut db, self.log_lifetime, DELETED_MAX).await?;
        let stalled = sql::stalled(&mut db, STALLED_AFTER).await?;
        drop(db);
        for (webhook, wallet) in stalled {
            let mut tx = self.db.pool().begin().await?;
            fan_out::enqueue(&mut tx, webhook, wallet).await?;
            tx.commit().await.map_err(Error::from)?;
        }
        Ok(())
    }
}

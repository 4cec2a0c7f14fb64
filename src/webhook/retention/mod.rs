//! Delivery upkeep: deletes old deliveries, deletes pending deliveries to webhooks whose owner no longer exists, and
//! enqueues jobs for pending deliveries that have no job.

mod sql;

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::queue::DeliveryJob;
use super::{DeliverWebhook, Webhooks};
use crate::error::{Error, Result};
use crate::telemetry::gauge_value;

/// Pause between two updates of the gauges.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// Pause between two rounds of the upkeep.
const UPKEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Time without an attempt after which a pending delivery gets a new job. If its job is still waiting, no second job is
/// added.
const STALLED_AFTER: Duration = Duration::from_mins(2);

/// Maximum number of deliveries that a round deletes, so that its transaction stays short.
const DELETED_MAX: i64 = 10_000;

/// Updates the gauges and runs the upkeep regularly, until the program stops.
pub async fn run(webhooks: Webhooks, stopping: CancellationToken) -> anyhow::Result<()> {
    let mut upkeep = Instant::now();
    loop {
        // If the update fails, the gauges keep their values until the next update.
        let _ignored = webhooks.sample_gauges().await;
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
                "could not delete old webhook deliveries, or could not enqueue stalled deliveries again; retrying in a minute"
            );
        }
    }
}

impl Webhooks {
    async fn sample_gauges(&self) -> Result<()> {
        let mut db = self.db.acquire("webhook.sample").await?;
        let (dead, paused) = (sql::count_dead(&mut db).await?, sql::count_paused(&mut db).await?);
        self.metrics.wallet_dead_letters.with([DeliverWebhook::QUEUE]).set(gauge_value(dead));
        self.metrics.wallet_webhooks_paused.set(gauge_value(paused));
        Ok(())
    }

    /// Runs a round of the upkeep: deletes old deliveries, deletes the pending deliveries and the webhooks of owners
    /// that no longer exist, and enqueues jobs for stalled deliveries.
    pub async fn upkeep(&self) -> Result<()> {
        let mut db = self.db.acquire("webhook.keep").await?;
        sql::delete_finished(&mut db, self.log_lifetime, DELETED_MAX).await?;
        sql::delete_pending_of_inactive(&mut db, DELETED_MAX).await?;
        sql::delete_inactive(&mut db).await?;
        let stalled = sql::stalled(&mut db, STALLED_AFTER).await?;
        drop(db);
        for sql::Stalled { webhook, subject, owner } in stalled {
            let mut tx = self.db.pool().begin().await?;
            DeliveryJob { webhook, subject, owner: &owner }.enqueue(&mut tx).await?;
            tx.commit().await.map_err(Error::from)?;
        }
        Ok(())
    }
}

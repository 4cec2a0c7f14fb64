//! What is done about webhooks now and then: an old log is forgotten, and what waits without a job gets one.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Webhooks, feed, sql};
use crate::error::{Error, Result};

const INTERVAL: Duration = Duration::from_mins(1);

/// What has been waiting for longer than this is looked at. Its job may be waiting as well: one is enough.
const LATE: Duration = Duration::from_mins(2);

/// Most deliveries that are forgotten at once, so that nobody waits for it.
const FORGOTTEN_MAX: i64 = 10_000;

/// Until the program stops.
pub async fn run(webhooks: Webhooks, stopping: CancellationToken) -> anyhow::Result<()> {
    while stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if let Err(error) = webhooks.keep().await {
            let cause = format!("{:#}", error.into_cause());
            tracing::warn!(error.message = cause, "the log of webhooks could not be kept");
        }
    }
    Ok(())
}

impl Webhooks {
    /// One round of it.
    pub async fn keep(&self) -> Result<()> {
        let mut db = self.db.acquire("webhook.keep").await?;
        sql::forget(&mut db, self.log_lifetime, FORGOTTEN_MAX).await?;
        let waiting = sql::waiting(&mut db, LATE).await?;
        drop(db);
        for (webhook, wallet) in waiting {
            let mut tx = self.db.pool().begin().await?;
            feed::enqueue(&mut tx, webhook, wallet).await?;
            tx.commit().await.map_err(Error::from)?;
        }
        Ok(())
    }
}

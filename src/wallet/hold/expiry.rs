//! Expiry of holds that were not captured in time. Every process may run it: each hold ends once.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::sql;
use crate::error::{Error, Result};
use crate::telemetry::gauge_value;
use crate::wallet::Wallets;

/// Pause between two rounds.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the gauges of held amounts are updated.
const TOTALS_INTERVAL: Duration = Duration::from_mins(1);

/// How often wallets are counted, which reads all of them.
const COUNT_INTERVAL: Duration = Duration::from_mins(10);

/// Most holds that one round ends.
const HOLDS_MAX: i64 = 500;

/// Runs until shutdown.
pub async fn run(wallets: Wallets, stopping: CancellationToken) -> anyhow::Result<()> {
    let (mut summed, mut counted): (Option<Instant>, Option<Instant>) = (None, None);
    while stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if let Err(error) = wallets.expire_holds().await {
            tracing::warn!(
                event = "hold.expiry_failed",
                error.message = error.into_cause().to_string(),
                "expired holds could not be released; retrying"
            );
        }
        if summed.is_none_or(|summed| summed.elapsed() >= TOTALS_INTERVAL) {
            summed = Some(Instant::now());
            // After a failure the next round sets the gauge.
            let _ignored = wallets.sample_held().await;
        }
        if counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL) {
            counted = Some(Instant::now());
            let _ignored = wallets.sample_count().await;
        }
    }
    Ok(())
}

impl Wallets {
    /// Ends the holds that are due, and returns how many.
    pub async fn expire_holds(&self) -> Result<usize> {
        let due =
            sql::expired(&mut *self.db.acquire("wallet.expired_holds").await?, HOLDS_MAX).await?;
        let (mut ended, mut failed) = (0, Ok(()));
        for id in due {
            match self.expire_hold(id).await {
                Ok(_) => {
                    ended += 1;
                    self.metrics.wallet_holds_expired_total.increment(1);
                }
                // Another process or a capture ended it first.
                Err(Error::HoldEnded(_)) => {}
                // A hold that cannot end must not block the others.
                Err(error) => failed = Err(error),
            }
        }
        failed.map(|()| ended)
    }

    async fn sample_count(&self) -> Result<()> {
        let (open, closed) =
            crate::wallet::sql::count(&mut *self.db.acquire("wallet.count").await?).await?;
        for (state, count) in [("open", open), ("closed", closed)] {
            self.metrics.wallet_accounts.with([state]).set(gauge_value(count));
        }
        Ok(())
    }

    async fn sample_held(&self) -> Result<()> {
        let totals = sql::totals(&mut *self.db.acquire("wallet.held_totals").await?).await?;
        for currency in self.currencies.all() {
            let held = totals.iter().find(|(code, _)| code == currency.code());
            let held = gauge_value(held.map_or(0, |(_, held)| *held));
            self.metrics.wallet_held_minor_units.with([currency.code()]).set(held);
        }
        Ok(())
    }
}

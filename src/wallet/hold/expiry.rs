//! Ends the holds that nobody captured in time. Every process may do it: each hold ends once.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Change, sql};
use crate::error::{Error, Result};
use crate::wallet::Wallets;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the totals are looked up.
const TOTALS_INTERVAL: Duration = Duration::from_mins(1);

/// How often wallets are counted, which reads all of them.
const COUNT_INTERVAL: Duration = Duration::from_mins(10);

/// Most holds that are ended before looking again.
const HOLDS_MAX: i64 = 500;

/// Runs until the program stops.
pub async fn run(wallets: Wallets, stopping: CancellationToken) -> anyhow::Result<()> {
    let (mut told, mut counted): (Option<Instant>, Option<Instant>) = (None, None);
    while stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        if let Err(error) = wallets.expire_holds().await {
            tracing::warn!(
                event = "hold.expiry_failed",
                error.message = error.into_cause().to_string(),
                "holds that are due cannot be ended; trying again"
            );
        }
        if told.is_none_or(|told| told.elapsed() >= TOTALS_INTERVAL) {
            told = Some(Instant::now());
            // The next minute tells it if this one does not.
            let _told_later = wallets.tell_held().await;
        }
        if counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL) {
            counted = Some(Instant::now());
            let _counted_later = wallets.tell_count().await;
        }
    }
    Ok(())
}

impl Wallets {
    /// Ends what is due; how many.
    pub async fn expire_holds(&self) -> Result<usize> {
        let due =
            sql::expired(&mut *self.db.acquire("wallet.expired_holds").await?, HOLDS_MAX).await?;
        let (mut ended, mut failed) = (0, Ok(()));
        for id in due {
            match self.change_hold(id, Change::Expire, None).await {
                Ok(_) => {
                    ended += 1;
                    self.metrics.wallet_holds_expired_total.increment(1);
                }
                // Somebody else was faster.
                Err(Error::HoldEnded(_)) => {}
                // One that cannot end must not keep the others.
                Err(error) => failed = Err(error),
            }
        }
        failed.map(|()| ended)
    }

    async fn tell_count(&self) -> Result<()> {
        let (open, closed) =
            crate::wallet::sql::count(&mut *self.db.acquire("wallet.count").await?).await?;
        for (state, count) in [("open", open), ("closed", closed)] {
            self.metrics.wallet_accounts.with([state]).set(crate::ledger::to_metric(count));
        }
        Ok(())
    }

    async fn tell_held(&self) -> Result<()> {
        let totals = sql::totals(&mut *self.db.acquire("wallet.held_totals").await?).await?;
        for currency in self.currencies.all() {
            let held = totals.iter().find(|(code, _)| code == currency.code());
            let held = crate::ledger::to_metric(held.map_or(0, |(_, held)| *held));
            self.metrics.wallet_held_minor_units.with([currency.code()]).set(held);
        }
        Ok(())
    }
}

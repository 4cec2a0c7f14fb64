//! Ends holds that were not captured in time. All processes may run this task at the same time, because each hold can
//! end only once.
//!
//! A round reads all holds whose expiry has passed, page by page, and ends many of them concurrently, so that the
//! ledger commits them in shared batches. A hold that cannot be ended is retried with backoff, and never blocks other
//! holds.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::sql;
use crate::error::{Error, Result};
use crate::ids::HoldId;
use crate::telemetry::gauge_value;
use crate::wallet::Wallets;

/// Pause after a check that found expired holds, or that failed.
const PAUSE_AFTER_ROUND: Duration = Duration::from_secs(1);

/// Longest pause between two checks for expired holds. It is short, because a new hold may expire earlier than all
/// older holds.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Interval at which the held amount metrics are updated.
const TOTALS_INTERVAL: Duration = Duration::from_mins(1);

/// Interval at which the wallets are counted for the metrics. A count is expensive, because it reads all wallets.
const COUNT_INTERVAL: Duration = Duration::from_mins(10);

/// Maximum number of holds that are read from the database at once.
const PAGE_MAX: i64 = 1_000;

/// Maximum number of expired holds that are ended concurrently: enough to fill the batches of the ledger writer, and
/// few enough to leave room for requests in the writer's queue.
const CONCURRENCY: usize = 256;

/// Pause after the first failed attempt to end a hold. The pause doubles with each further failure.
const BACKOFF_MIN: Duration = Duration::from_secs(5);

/// Longest pause between two attempts to end a hold.
const BACKOFF_MAX: Duration = Duration::from_mins(10);

/// Maximum number of holds whose backoff is remembered. Further holds that could not be ended are retried in every
/// round.
const BACKOFFS_MAX: usize = 100_000;

/// Ends expired holds until shutdown. Also updates the held amount and wallet count metrics.
pub async fn run(wallets: Wallets, stopping: CancellationToken) -> anyhow::Result<()> {
    let (mut summed, mut counted): (Option<Instant>, Option<Instant>) = (None, None);
    let mut expiry = Expiry::new(wallets.clone());
    let mut pause = PAUSE_AFTER_ROUND;
    while stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = match stopping.run_until_cancelled(expiry.round_if_due()).await {
            Some(Ok(pause)) => pause,
            Some(Err(error)) => {
                tracing::warn!(
                    event = "hold.expiry_failed",
                    error.message = error.into_cause().to_string(),
                    "cannot read which holds have expired; retrying"
                );
                PAUSE_AFTER_ROUND
            }
            None => break,
        };
        if summed.is_none_or(|summed| summed.elapsed() >= TOTALS_INTERVAL) {
            summed = Some(Instant::now());
            // After a failure, the metric keeps its value until the next interval.
            let _ignored = wallets.sample_held().await;
        }
        if counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL) {
            counted = Some(Instant::now());
            let _ignored = wallets.sample_count().await;
        }
    }
    Ok(())
}

/// Backoff of a hold that could not be ended.
#[derive(Debug, Clone, Copy)]
struct Backoff {
    pause: Duration,
    until: Instant,
}

/// Ends the holds whose expiry has passed, and delays the next attempt for holds that could not be ended.
pub struct Expiry {
    wallets: Wallets,
    backoffs: HashMap<HoldId, Backoff>,
}

impl Expiry {
    pub fn new(wallets: Wallets) -> Self {
        Self { wallets, backoffs: HashMap::new() }
    }

    /// Ends the holds whose expiry has passed, if any, and returns the pause before the next check.
    async fn round_if_due(&mut self) -> Result<Duration> {
        let mut db = self.wallets.db.acquire("wallet.next_expiry").await?;
        let seconds = sql::seconds_to_next_expiry(&mut db).await?;
        drop(db);
        match seconds {
            None => Ok(PAUSE_MAX),
            Some(seconds) if seconds > 0.0 => Ok(Duration::from_secs_f64(seconds).min(PAUSE_MAX)),
            Some(_) => {
                self.round().await?;
                Ok(PAUSE_AFTER_ROUND)
            }
        }
    }

    /// Ends every hold whose expiry has passed, and returns how many holds ended.
    pub async fn round(&mut self) -> Result<usize> {
        let (mut ended, mut after) = (0, None);
        loop {
            let mut db = self.wallets.db.acquire("wallet.expired_holds").await?;
            let page = sql::expired(&mut db, after, PAGE_MAX).await?;
            drop(db);
            let Some(last) = page.last() else { return Ok(ended) };
            after = Some((last.expires_at, last.id));
            let is_last_page = i64::try_from(page.len()).is_ok_and(|count| count < PAGE_MAX);
            ended += self.end_page(page.into_iter().map(|due| due.id)).await;
            if is_last_page {
                return Ok(ended);
            }
        }
    }

    async fn end_page(&mut self, due: impl Iterator<Item = HoldId>) -> usize {
        let now = Instant::now();
        let is_ready =
            |id: &HoldId| self.backoffs.get(id).is_none_or(|backoff| backoff.until <= now);
        let ready: Vec<HoldId> = due.filter(is_ready).collect();
        let wallets = &self.wallets;
        let ends = ready.into_iter().map(|id| async move { (id, wallets.expire_hold(id).await) });
        let outcomes: Vec<_> = stream::iter(ends).buffer_unordered(CONCURRENCY).collect().await;
        let (mut ended, mut failed, mut failure) = (0, 0, None);
        for (id, outcome) in outcomes {
            match outcome {
                Ok(_) => {
                    ended += 1;
                    self.wallets.metrics.wallet_holds_expired_total.increment(1);
                    self.backoffs.remove(&id);
                }
                // Another process or a capture ended the hold first.
                Err(Error::HoldEnded(_)) => drop(self.backoffs.remove(&id)),
                Err(error) => {
                    // A database outage is not the fault of the hold, so the next round retries the hold without
                    // backoff.
                    if !matches!(error, Error::DatabaseUnavailable(_)) {
                        self.back_off(id);
                    }
                    failed += 1;
                    failure = Some((id, error));
                }
            }
        }
        if let Some((id, error)) = failure {
            tracing::warn!(
                event = "hold.expiry_failed",
                hold.id = id.0,
                holds = failed,
                error.message = error.to_string(),
                error.chain = error.cause().map(|cause| format!("{cause:#}")),
                "some expired holds could not be released; retrying them later"
            );
        }
        ended
    }

    fn back_off(&mut self, id: HoldId) {
        let pause = match self.backoffs.get(&id) {
            Some(backoff) => (backoff.pause * 2).min(BACKOFF_MAX),
            None => BACKOFF_MIN,
        };
        if self.backoffs.len() < BACKOFFS_MAX || self.backoffs.contains_key(&id) {
            self.backoffs.insert(id, Backoff { pause, until: Instant::now() + pause });
        }
    }
}

impl Wallets {
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
            let scale = 10_f64.powi(currency.decimals().into());
            self.metrics.wallet_currency_minor_units.with([currency.code()]).set(scale);
        }
        Ok(())
    }
}

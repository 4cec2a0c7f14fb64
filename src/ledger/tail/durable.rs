//! Durable readers: tasks that follow the ledger. Each has a name and a stored position (cursor), and its effects in
//! the database commit together with the position.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::{Acquire, PgConnection};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::source::{BookHandle, Position, Segment, Source};
use super::sql;
use super::wake::{
    Notifications, RECHECK_INTERVAL, sleep_unless_stopped, wait_for_change, wait_while_blocked,
};
use crate::error::Result;
use crate::telemetry::Metrics;

/// Lower and upper limit of the backoff before a reader retries a failed step (a read and its effects).
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Shortest pause after a read in which the source filtered out every item. The pause limits the number of reads that
/// return no items.
const FILTERED_PAUSE_MIN: Duration = Duration::from_millis(250);

/// Longest pause that a slow step causes. The limit is well below the lease of the cursor (stored position); otherwise,
/// another process could take over the cursor during the pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Settings of a durable reader.
#[derive(Debug, Clone, Copy)]
pub struct ReaderOptions {
    /// Name of the reader's cursor and task. Must never change, because it identifies the stored position.
    pub name: &'static str,
    /// Approximate number of items whose effects commit in one transaction.
    pub items_max: i64,
    /// Shortest pause after a read that did not reach its limit. A longer pause means fewer reads.
    pub pause: Duration,
    /// Shortest pause after a read that did not reach its limit, as a multiple of the time that the read and its
    /// effects took. Items accumulate during the pause, which saves work if many items share an effect.
    pub pause_steps: u32,
}

/// Handler of a durable reader, which applies the effects of the items.
pub trait SegmentHandler<S: Source>: Send + 'static {
    /// Applies the effects of the items, in the transaction that advances the cursor. After a failure, the items are
    /// read and handled again.
    fn apply(
        &mut self,
        db: &mut PgConnection,
        segment: &Segment<S::Item>,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// Outcome of a reader's step, which reads items and applies their effects.
enum StepOutcome {
    /// The read reached its limit, so there may be more to read.
    MoreToRead,
    /// The reader has read all items.
    CaughtUp,
    /// Items exist, but a running transaction could still add items before them.
    Blocked,
    /// The source filtered out every item of the read.
    Filtered,
    /// Another process holds the cursor (the reader's stored position).
    HeldElsewhere,
}

impl StepOutcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::MoreToRead | Self::CaughtUp | Self::Blocked | Self::Filtered => "read",
            Self::HeldElsewhere => "elsewhere",
        }
    }
}

/// The task of a durable reader in this process.
pub(super) struct DurableReader {
    book: BookHandle,
    notifications: Notifications,
    options: ReaderOptions,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
    /// Limits how many steps of all readers of this process run at the same time.
    steps: Arc<Semaphore>,
    /// Identifies this process as the holder of the cursor.
    holder: Uuid,
}

impl DurableReader {
    pub(super) fn new(
        book: BookHandle,
        notifications: Notifications,
        options: ReaderOptions,
        metrics: Arc<Metrics>,
        stopping: CancellationToken,
        steps: Arc<Semaphore>,
    ) -> Self {
        for outcome in ["read", "elsewhere", "failed"] {
            metrics.wallet_book_reader_steps_total.preregister([options.name, outcome]);
        }
        Self { book, notifications, options, stopping, metrics, steps, holder: Uuid::new_v4() }
    }

    pub(super) async fn run<S: Source>(
        self,
        mut handler: impl SegmentHandler<S>,
    ) -> anyhow::Result<()> {
        let mut changes = self.notifications.subscribe(S::CHANNEL, self.book.book);
        let mut backoff = self.options.pause;
        while !self.stopping.is_cancelled() {
            // The semaphore is never closed, so only shutdown ends the wait without a permit.
            let permit = self.stopping.run_until_cancelled(self.steps.acquire()).await;
            let Some(Ok(permit)) = permit else { break };
            changes.mark_unchanged();
            let began = Instant::now();
            // Shutdown does not interrupt a step, because its transaction is short.
            let stepped = self.step(&mut handler).await;
            drop(permit);
            match stepped {
                Ok(outcome) => {
                    backoff = self.options.pause;
                    self.count(outcome.name());
                    if !self.wait_after(&outcome, began.elapsed(), &mut changes).await {
                        break;
                    }
                }
                Err(error) => {
                    self.count("failed");
                    backoff = (backoff.max(BACKOFF_MIN) * 2).min(BACKOFF_MAX);
                    tracing::warn!(
                        event = "reader.failed",
                        reader = self.options.name,
                        error.message = error.to_string(),
                        error.chain = error.cause().map(|cause| format!("{cause:#}")),
                        "the background reader {} of the ledger failed; retrying in {backoff:?}",
                        self.options.name,
                    );
                    sleep_unless_stopped(backoff, &self.stopping).await;
                }
            }
        }
        self.release().await;
        Ok(())
    }

    /// Waits until the next step is due, after a step that took `time`. Returns false when the program stops.
    async fn wait_after(
        &self,
        outcome: &StepOutcome,
        time: Duration,
        changes: &mut watch::Receiver<()>,
    ) -> bool {
        let pause = self.options.pause.max((time * self.options.pause_steps).min(PAUSE_MAX));
        let pause = match outcome {
            StepOutcome::MoreToRead => return true,
            StepOutcome::HeldElsewhere => RECHECK_INTERVAL,
            StepOutcome::CaughtUp | StepOutcome::Blocked => pause,
            StepOutcome::Filtered => pause.max(FILTERED_PAUSE_MIN),
        };
        if !sleep_unless_stopped(pause, &self.stopping).await {
            return false;
        }
        match outcome {
            StepOutcome::MoreToRead | StepOutcome::HeldElsewhere => true,
            StepOutcome::CaughtUp => wait_for_change(changes, &self.stopping).await,
            StepOutcome::Blocked | StepOutcome::Filtered => {
                wait_while_blocked(changes, &self.stopping).await
            }
        }
    }

    /// Releases the cursor (stored position), so that another process can take it over before the lease expires.
    async fn release(&self) {
        let released = async {
            let mut db = self.book.pool.acquire().await?;
            sql::release_cursor(&mut db, self.book.book, self.options.name, self.holder).await
        };
        if let Err(error) = released.await {
            tracing::debug!(
                error.message = %error,
                "a background reader of the ledger could not give up the lease on its position; another process will take over when the lease expires"
            );
        }
    }

    fn count(&self, outcome: &'static str) {
        let name = self.options.name;
        self.metrics.wallet_book_reader_steps_total.with([name, outcome]).increment(1);
    }

    /// Reads the next items, applies their effects and advances the cursor (stored position), all in one transaction.
    async fn step<S: Source>(&self, handler: &mut impl SegmentHandler<S>) -> Result<StepOutcome> {
        let (book, name) = (self.book.book, self.options.name);
        let mut connection = self.book.pool.acquire().await?;
        let mut tx = connection.begin().await?;
        let Some(after) = sql::lock_cursor(&mut tx, book, name, self.holder).await? else {
            tx.rollback().await?;
            return self.report_or_create_cursor::<S>(&mut connection).await;
        };
        let segment = S::read(&mut tx, book, after, self.options.items_max).await?;
        if segment.until == after {
            tx.rollback().await?;
            return self.outcome_at::<S>(&mut connection, after).await;
        }
        let is_filtered = segment.items.is_empty();
        if is_filtered {
            // Items that the source leaves out have no effect, so they may be read again after a crash.
            sql::advance_cursor_asynchronously(&mut tx, book, name, segment.until, self.holder)
                .await?;
        } else {
            handler.apply(&mut tx, &segment).await?;
            sql::advance_cursor(&mut tx, book, name, segment.until, self.holder).await?;
        }
        tx.commit().await?;
        let outcome = self.outcome_at::<S>(&mut connection, segment.until).await?;
        Ok(match (segment.is_full, is_filtered) {
            (true, _) => StepOutcome::MoreToRead,
            (_, true) => StepOutcome::Filtered,
            _ => outcome,
        })
    }

    /// Updates the lag metric after a read that ended at `position`. Returns whether the reader has caught up or is
    /// blocked.
    async fn outcome_at<S: Source>(
        &self,
        db: &mut PgConnection,
        position: Position,
    ) -> Result<StepOutcome> {
        let lag = S::lag(db, self.book.book, position).await?;
        self.set_lag(lag);
        Ok(if lag == 0 { StepOutcome::CaughtUp } else { StepOutcome::Blocked })
    }

    /// Reports the lag of a reader that another process runs; creates the reader's cursor (stored position) if it does
    /// not exist yet.
    async fn report_or_create_cursor<S: Source>(
        &self,
        db: &mut PgConnection,
    ) -> Result<StepOutcome> {
        let (book, name) = (self.book.book, self.options.name);
        if let Some(position) = sql::find_cursor(db, book, name).await? {
            self.set_lag(S::lag(db, book, position).await?);
            return Ok(StepOutcome::HeldElsewhere);
        }
        // A new reader starts at the beginning of the source, because the first items may be older than its first step.
        sql::create_cursor(db, book, name, S::CHANNEL.name()).await?;
        Ok(StepOutcome::MoreToRead)
    }

    fn set_lag(&self, lag: i64) {
        self.metrics
            .wallet_book_reader_lag_transfers
            .with([self.options.name, &self.book.book.to_string()])
            .set(crate::telemetry::gauge_value(lag));
    }
}

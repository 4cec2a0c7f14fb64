//! Durable readers: a name, a row that tells how far it has come, and effects that commit together with that.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::{Acquire, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::source::{Followed, Position, Segment, Source};
use super::wake::{self, POLL, Wake};
use super::{Tail, pause, sql};
use crate::error::Result;
use crate::telemetry::Metrics;

/// Longest pause after an effect has failed, so that a lasting fault neither spins nor is forgotten.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How a durable reader reads.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// Names its cursor and its task: never change it.
    pub name: &'static str,
    /// Where it begins when it has no cursor yet.
    pub start: Start,
    /// About how many items take effect in one transaction.
    pub items_max: i64,
    /// Shortest time between two reads that did not fill up: what may wait a moment costs less.
    pub pause: Duration,
}

/// Where a new reader begins.
#[derive(Debug, Clone, Copy)]
pub enum Start {
    /// With the first item there ever was.
    Beginning,
    /// With what comes from now on.
    Now,
    Behind(Position),
}

/// What a durable reader does with what it reads.
pub trait Effect<S: Source>: Send + 'static {
    /// Runs in the transaction that moves the cursor. After a failure the same stretch comes again.
    fn apply(
        &mut self,
        db: &mut PgConnection,
        stretch: &Segment<S::Item>,
    ) -> impl Future<Output = Result<()>> + Send;
}

/// What became of one attempt to read.
enum Step {
    /// There is more.
    Filled,
    /// All was read.
    Emptied,
    /// Nobody wanted any of it.
    Unwanted,
    /// Another process does it.
    Elsewhere,
}

impl Step {
    const fn name(&self) -> &'static str {
        match self {
            Self::Filled | Self::Emptied | Self::Unwanted => "read",
            Self::Elsewhere => "elsewhere",
        }
    }
}

pub(super) struct Following {
    book: Followed,
    wake: Wake,
    reader: Reader,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
    /// Who this is, among all processes.
    holder: Uuid,
}

impl Following {
    pub(super) fn new(tail: &Tail, reader: Reader, stopping: CancellationToken) -> Self {
        let Tail { book, wake, metrics, .. } = tail.clone();
        for outcome in ["read", "elsewhere", "failed"] {
            metrics.wallet_book_reader_steps_total.preregister([reader.name, outcome]);
        }
        Self { book, wake, reader, stopping, metrics, holder: Uuid::new_v4() }
    }

    pub(super) async fn run<S: Source>(self, mut effect: impl Effect<S>) -> anyhow::Result<()> {
        let mut rings = self.wake.of(S::CHANNEL);
        let mut wait = self.reader.pause;
        while !self.stopping.is_cancelled() {
            rings.mark_unchanged();
            // A step is not cut off in the middle: its transaction is short.
            match self.step(&mut effect).await {
                Ok(step) => {
                    wait = self.reader.pause;
                    self.count(step.name());
                    let goes_on = match step {
                        Step::Filled => true,
                        Step::Emptied => {
                            pause(wait, &self.stopping).await
                                && wake::next(&mut rings, &self.stopping).await
                        }
                        Step::Unwanted | Step::Elsewhere => pause(POLL, &self.stopping).await,
                    };
                    if !goes_on {
                        break;
                    }
                }
                Err(error) => {
                    self.count("failed");
                    wait = (wait.max(Duration::from_millis(50)) * 2).min(PAUSE_MAX);
                    tracing::warn!(
                        event = "reader.failed",
                        reader = self.reader.name,
                        error.message = error.to_string(),
                        error.chain = error.cause().map(|cause| format!("{cause:#}")),
                        "the reader {} failed; again in {wait:?}",
                        self.reader.name,
                    );
                    pause(wait, &self.stopping).await;
                }
            }
        }
        self.release().await;
        Ok(())
    }

    /// The next process need not wait until this one counts as silent.
    async fn release(&self) {
        let released = async {
            let mut db = self.book.pool.acquire().await?;
            sql::release_cursor(&mut db, self.book.book, self.reader.name, self.holder).await
        };
        if let Err(error) = released.await {
            tracing::debug!(error = %error, "a cursor is left to whoever finds it silent");
        }
    }

    fn count(&self, outcome: &'static str) {
        let name = self.reader.name;
        self.metrics.wallet_book_reader_steps_total.with([name, outcome]).increment(1);
    }

    async fn step<S: Source>(&self, effect: &mut impl Effect<S>) -> Result<Step> {
        let (book, name) = (self.book.book, self.reader.name);
        let mut connection = self.book.pool.acquire().await?;
        let mut tx = connection.begin().await?;
        let Some(after) = sql::lock_cursor(&mut tx, book, name, self.holder).await? else {
            tx.rollback().await?;
            return self.elsewhere::<S>(&mut connection).await;
        };
        let stretch = S::read(&mut tx, book, after, self.reader.items_max).await?;
        if stretch.until == after {
            tx.rollback().await?;
            self.tell_lag(0);
            return Ok(Step::Emptied);
        }
        // A source may leave out what nobody wants; then there is no hurry.
        let idle = stretch.items.is_empty();
        if !idle {
            effect.apply(&mut tx, &stretch).await?;
        }
        sql::move_cursor(&mut tx, book, name, stretch.until, self.holder).await?;
        tx.commit().await?;
        let filled = S::is_full(&stretch.items, self.reader.items_max);
        self.tell_lag(S::behind(&mut connection, book, stretch.until).await?);
        Ok(match (idle, filled) {
            (true, _) => Step::Unwanted,
            (_, true) => Step::Filled,
            _ => Step::Emptied,
        })
    }

    /// The cursor is locked, or not there yet.
    async fn elsewhere<S: Source>(&self, db: &mut PgConnection) -> Result<Step> {
        let (book, name) = (self.book.book, self.reader.name);
        if let Some(position) = sql::find_cursor(db, book, name).await? {
            self.tell_lag(S::behind(db, book, position).await?);
            return Ok(Step::Elsewhere);
        }
        let position = match self.reader.start {
            Start::Beginning => Position::default(),
            Start::Now => S::end(db, book).await?,
            Start::Behind(position) => position,
        };
        sql::create_cursor(db, book, name, position).await?;
        Ok(Step::Filled)
    }

    fn tell_lag(&self, lag: i64) {
        self.metrics
            .wallet_book_reader_lag_transfers
            .with([self.reader.name])
            .set(crate::telemetry::gauge_value(lag));
    }
}

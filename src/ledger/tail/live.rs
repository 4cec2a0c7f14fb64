//! Live readers: many in one process, which cost one read.
//!
//! The hub reads while anybody follows and hands each stretch to all. Whoever missed one (it began earlier, or was
//! too slow) reads what is missing from the database and goes on: nobody ever waits for anybody else.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::pause;
use super::source::{Followed, Position, Segment, Source};
use super::wake::{self, Wake};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Stretches that a reader may be behind before it has to read by itself.
const STRETCHES_MAX: usize = 64;

/// Most items of one read.
const ITEMS_MAX: i64 = 1_000;

/// Shortest time between two reads: nobody sees a difference, and a busy book is read less often.
const PAUSE: Duration = Duration::from_millis(2);

/// Pause after a read that failed.
const PAUSE_FAILED: Duration = Duration::from_millis(500);

/// Reads for all live readers of a process.
pub(super) struct Hub<S: Source> {
    book: Followed,
    stretches: broadcast::Sender<Arc<Segment<S::Item>>>,
    somebody: Arc<Notify>,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
}

impl<S: Source> Clone for Hub<S> {
    fn clone(&self) -> Self {
        Self {
            book: self.book.clone(),
            stretches: self.stretches.clone(),
            somebody: Arc::clone(&self.somebody),
            stopping: self.stopping.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

impl<S: Source> Hub<S> {
    pub(super) fn start(
        name: &'static str,
        book: Followed,
        wake: Wake,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        let (stretches, _) = broadcast::channel(STRETCHES_MAX);
        let (stopping, metrics) = (tasks.stopping().clone(), Arc::clone(metrics));
        let hub = Self { book, stretches, somebody: Arc::default(), stopping, metrics };
        let task = hub.clone();
        tasks.spawn(name, async move {
            task.run(wake).await;
            Ok(())
        });
        hub
    }

    pub(super) async fn follow(&self, after: Option<Position>) -> sqlx::Result<Live<S>> {
        // First listen, then look where the end is: what comes in between is met twice and not missed.
        let stretches = self.stretches.subscribe();
        self.somebody.notify_one();
        let position = match after {
            Some(position) => position,
            None => S::end(&mut *self.book.pool.acquire().await?, self.book.book).await?,
        };
        Ok(Live {
            book: self.book.clone(),
            stretches,
            position,
            // What is there already was not heard.
            behind: after.is_some(),
            stopping: self.stopping.clone(),
            metrics: Arc::clone(&self.metrics),
            source: PhantomData,
        })
    }

    async fn run(self, wake: Wake) {
        let mut rings = wake.of(S::CHANNEL);
        let mut position = None;
        while !self.stopping.is_cancelled() {
            if self.stretches.receiver_count() == 0 {
                position = None;
                if self.stopping.run_until_cancelled(self.somebody.notified()).await.is_none() {
                    return;
                }
                continue;
            }
            rings.mark_unchanged();
            match self.read(&mut position).await {
                Ok(true) => {}
                Ok(false) => {
                    if !pause(PAUSE, &self.stopping).await
                        || !wake::next(&mut rings, &self.stopping).await
                    {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %error, "live readers wait: the book cannot be read");
                    pause(PAUSE_FAILED, &self.stopping).await;
                }
            }
        }
    }

    /// Reads what is new; whether there is more.
    async fn read(&self, position: &mut Option<Position>) -> sqlx::Result<bool> {
        let mut db = self.book.pool.acquire().await?;
        let after = if let Some(after) = *position {
            after
        } else {
            let end = S::end(&mut db, self.book.book).await?;
            // Whoever began earlier learns that it has to read up to here.
            let mark = Segment { after: end, until: end, items: Vec::new() };
            let _nobody = self.stretches.send(Arc::new(mark));
            *position.insert(end)
        };
        self.metrics.wallet_book_live_reads_total.with(["hub"]).increment(1);
        let stretch = S::read(&mut db, self.book.book, after, ITEMS_MAX).await?;
        drop(db);
        if stretch.items.is_empty() {
            return Ok(false);
        }
        let filled = i64::try_from(stretch.items.len()).is_ok_and(|count| count >= ITEMS_MAX);
        *position = Some(stretch.until);
        // The last one may just have gone.
        let _nobody = self.stretches.send(Arc::new(stretch));
        Ok(filled)
    }
}

/// Everything from a position on, once and in order.
pub struct Live<S: Source> {
    book: Followed,
    stretches: broadcast::Receiver<Arc<Segment<S::Item>>>,
    position: Position,
    /// Whether there is something to read that was not heard.
    behind: bool,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
    source: PhantomData<S>,
}

impl<S: Source> Live<S> {
    /// Up to where it has read.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What comes next, as much as there is; `None` when the program stops.
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Arc<Segment<S::Item>>> {
        loop {
            if self.behind {
                if let Some(stretch) = self.read().await? {
                    return Some(stretch);
                }
                continue;
            }
            let heard =
                self.stopping.clone().run_until_cancelled_owned(self.stretches.recv()).await?;
            match heard {
                Ok(stretch) if stretch.until <= self.position => {}
                Ok(stretch) if stretch.after > self.position => self.behind = true,
                Ok(stretch) => return Some(self.take(stretch)),
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Moves on to the end of a stretch that may begin earlier.
    fn take(&mut self, stretch: Arc<Segment<S::Item>>) -> Arc<Segment<S::Item>> {
        let after = std::mem::replace(&mut self.position, stretch.until);
        if stretch.after == after {
            return stretch;
        }
        let known = stretch.items.partition_point(|item| S::position_of(item) <= after);
        let items = stretch.items[known..].to_vec();
        Arc::new(Segment { after, until: stretch.until, items })
    }

    /// Reads by itself until nothing is missing; `None` inside when nothing was.
    async fn read(&mut self) -> Option<Option<Arc<Segment<S::Item>>>> {
        self.metrics.wallet_book_live_reads_total.with(["reader"]).increment(1);
        let reading = async {
            let mut db = self.book.pool.acquire().await?;
            S::read(&mut db, self.book.book, self.position, ITEMS_MAX).await
        };
        match self.stopping.run_until_cancelled(reading).await? {
            Ok(stretch) if stretch.items.is_empty() => {
                self.behind = false;
                Some(None)
            }
            Ok(stretch) => {
                self.position = stretch.until;
                Some(Some(Arc::new(stretch)))
            }
            Err(error) => {
                tracing::warn!(error = %error, "a live reader waits: the book cannot be read");
                pause(PAUSE_FAILED, &self.stopping).await.then_some(None)
            }
        }
    }
}

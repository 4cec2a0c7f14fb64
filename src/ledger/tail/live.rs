//! Live readers: streams of new items (transfers or events) of the ledger. All live readers of a process share the same
//! reads of the database.
//!
//! A task, the hub, reads new items from the database while there is a live reader, and broadcasts them in segments to
//! all live readers. A reader that missed a segment, because it starts at an earlier position or is too slow, reads the
//! missing items from the database: no reader ever waits for another reader.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::source::{BookHandle, Position, Segment, Source};
use super::wake::{Notifications, sleep_unless_stopped, wait_while_blocked};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Maximum number of broadcast segments that a reader may lag behind before it reads from the database.
const SEGMENTS_MAX: usize = 64;

/// Maximum number of items that a single read returns.
const ITEMS_MAX: i64 = 1_000;

/// Shortest time between two reads. The delay is too short for clients to notice, and reduces the number of reads while
/// the ledger is busy.
const READ_INTERVAL_MIN: Duration = Duration::from_millis(2);

/// Delay before a failed read is retried.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The task that reads a source for all live readers of this process.
pub(super) struct LiveHub<S: Source> {
    book: BookHandle,
    segments: broadcast::Sender<Arc<Segment<S::Item>>>,
    /// Wakes the task when the first live reader subscribes.
    subscribed: Arc<Notify>,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
}

impl<S: Source> Clone for LiveHub<S> {
    fn clone(&self) -> Self {
        Self {
            book: self.book.clone(),
            segments: self.segments.clone(),
            subscribed: Arc::clone(&self.subscribed),
            stopping: self.stopping.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

impl<S: Source> LiveHub<S> {
    pub(super) fn start(
        name: &'static str,
        book: &BookHandle,
        notifications: &Notifications,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        let (segments, _) = broadcast::channel(SEGMENTS_MAX);
        let (book, metrics) = (book.clone(), Arc::clone(metrics));
        let stopping = tasks.stopping().clone();
        let hub = Self { book, segments, subscribed: Arc::default(), stopping, metrics };
        let (task, changes) = (hub.clone(), notifications.subscribe(S::CHANNEL, hub.book.book));
        tasks.spawn(name, async move {
            task.run(changes).await;
            Ok(())
        });
        hub
    }

    pub(super) async fn subscribe(&self, after: Option<Position>) -> sqlx::Result<LiveReader<S>> {
        // Subscribes before reading the end of the source, so that no item in between is missed; `next` removes
        // duplicates.
        let segments = self.segments.subscribe();
        self.subscribed.notify_one();
        let position = match after {
            Some(position) => position,
            None => S::end(&mut *self.book.pool.acquire().await?, self.book.book).await?,
        };
        Ok(LiveReader {
            book: self.book.clone(),
            segments,
            position,
            // Items from before the subscription are not broadcast.
            needs_read: after.is_some(),
            stopping: self.stopping.clone(),
            metrics: Arc::clone(&self.metrics),
            source: PhantomData,
        })
    }

    async fn run(self, mut changes: watch::Receiver<()>) {
        let mut position = None;
        while !self.stopping.is_cancelled() {
            if self.segments.receiver_count() == 0 {
                position = None;
                if self.stopping.run_until_cancelled(self.subscribed.notified()).await.is_none() {
                    return;
                }
                continue;
            }
            changes.mark_unchanged();
            match self.read(&mut position).await {
                Ok(true) => {}
                Ok(false) => {
                    if !sleep_unless_stopped(READ_INTERVAL_MIN, &self.stopping).await
                        || !wait_while_blocked(&mut changes, &self.stopping).await
                    {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        error.message = %error,
                        "could not read new transfers or events, so clients that follow them are waiting; retrying in {RETRY_DELAY:?}"
                    );
                    sleep_unless_stopped(RETRY_DELAY, &self.stopping).await;
                }
            }
        }
    }

    /// Reads and broadcasts the new items. Returns whether there may be more items.
    async fn read(&self, position: &mut Option<Position>) -> sqlx::Result<bool> {
        let mut db = self.book.pool.acquire().await?;
        let after = if let Some(after) = *position {
            after
        } else {
            let end = S::end(&mut db, self.book.book).await?;
            // An empty segment tells readers at an earlier position to read up to here from the database.
            let mark = Segment { after: end, until: end, items: Vec::new(), is_full: false };
            let _no_receiver = self.segments.send(Arc::new(mark));
            *position.insert(end)
        };
        self.metrics.wallet_book_live_reads_total.with(["hub"]).increment(1);
        let segment = S::read(&mut db, self.book.book, after, ITEMS_MAX).await?;
        drop(db);
        if segment.items.is_empty() {
            return Ok(false);
        }
        let is_full = segment.is_full;
        *position = Some(segment.until);
        // Sending fails if the last reader has been dropped in the meantime.
        let _no_receiver = self.segments.send(Arc::new(segment));
        Ok(is_full)
    }
}

/// A live reader: yields every item after its position, once and in order.
pub struct LiveReader<S: Source> {
    book: BookHandle,
    segments: broadcast::Receiver<Arc<Segment<S::Item>>>,
    position: Position,
    /// Whether the reader missed broadcast segments, and has to read from the database.
    needs_read: bool,
    stopping: CancellationToken,
    metrics: Arc<Metrics>,
    source: PhantomData<S>,
}

impl<S: Source> LiveReader<S> {
    /// The position up to which the reader has read.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Returns the next segment; `None` when the program stops. Cancel-safe: a dropped future loses no item.
    pub async fn next(&mut self) -> Option<Arc<Segment<S::Item>>> {
        loop {
            if self.needs_read {
                if let Some(segment) = self.read().await? {
                    return Some(segment);
                }
                continue;
            }
            let received =
                self.stopping.clone().run_until_cancelled_owned(self.segments.recv()).await?;
            match received {
                Ok(segment) if segment.until <= self.position => {}
                Ok(segment) if segment.after > self.position => self.needs_read = true,
                Ok(segment) => return Some(self.advance(segment)),
                Err(broadcast::error::RecvError::Lagged(_)) => self.needs_read = true,
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// Advances the reader to the end of a segment. Returns the segment without the items that the reader has read
    /// before.
    fn advance(&mut self, segment: Arc<Segment<S::Item>>) -> Arc<Segment<S::Item>> {
        let after = std::mem::replace(&mut self.position, segment.until);
        if segment.after == after {
            return segment;
        }
        let known = segment.items.partition_point(|item| S::position_of(item) <= after);
        let items = segment.items[known..].to_vec();
        Arc::new(Segment { after, until: segment.until, items, is_full: segment.is_full })
    }

    /// Reads the missing items from the database. Returns `None` when the program stops, and `Some(None)` if no items
    /// were missing or the read failed.
    async fn read(&mut self) -> Option<Option<Arc<Segment<S::Item>>>> {
        self.metrics.wallet_book_live_reads_total.with(["reader"]).increment(1);
        let reading = async {
            let mut db = self.book.pool.acquire().await?;
            S::read(&mut db, self.book.book, self.position, ITEMS_MAX).await
        };
        match self.stopping.run_until_cancelled(reading).await? {
            Ok(segment) if segment.items.is_empty() => {
                self.needs_read = false;
                Some(None)
            }
            Ok(segment) => {
                self.position = segment.until;
                Some(Some(Arc::new(segment)))
            }
            Err(error) => {
                tracing::warn!(
                    error.message = %error,
                    "could not read the transfers or events that a reader of the ledger has missed; retrying in {RETRY_DELAY:?}"
                );
                sleep_unless_stopped(RETRY_DELAY, &self.stopping).await.then_some(None)
            }
        }
    }
}

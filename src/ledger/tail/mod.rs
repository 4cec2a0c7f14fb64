//! Readers that follow the ledger: code that reacts to transfers reads them from here, in order, each transfer once.
//!
//! | reader | position | guarantees |
//! |---|---|---|
//! | [durable](Tail::follow) | a row of `ledger.cursor` | runs in one process at a time, which holds a lease that its progress renews; its effects in the database commit together with its position, so each transfer takes effect exactly once |
//! | [live](Tail::live) | in memory | starts after the newest transfer or at a position, without gaps or repeats; all live readers of a process share one read |
//!
//! Notifications wake both kinds; polling is the fallback, so a lost notification only costs seconds.
//! Events that move no money are another [source](Source) with the same interface.

mod durable;
mod event;
mod live;
mod sealed;
mod source;
mod sql;
mod transfers;
mod wake;

use std::sync::Arc;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use self::durable::{ReaderOptions, SegmentHandler};
pub use self::event::{
    EventToAppend, Events, append_event, append_events, events_of_topic, prune_events,
};
pub use self::live::LiveReader;
pub use self::sealed::{SealedRow, SealedTransfers, rows_of_accounts, sealed_rows};
pub use self::source::{BookEvent, BookHandle, Position, Segment, Source};
pub use self::sql::PositionFacts;
pub use self::transfers::Transfers;
pub use self::wake::NotifyChannel;

use self::durable::DurableReader;
use self::live::LiveHub;
use self::wake::Notifications;

/// Dependencies and settings of a [`Tail`].
pub struct TailOptions {
    pub pool: PgPool,
    /// Options of the connection that listens for notifications.
    pub listener: PgConnectOptions,
    pub book: i32,
    pub metrics: Arc<Metrics>,
}

/// Starts the tasks and streams that follow a book (readers). Cheap to clone.
#[derive(Clone)]
pub struct Tail {
    book: BookHandle,
    notifications: Notifications,
    transfers: LiveHub<Transfers>,
    sealed: LiveHub<SealedTransfers>,
    events: LiveHub<Events>,
    metrics: Arc<Metrics>,
}

impl Tail {
    /// Starts to listen for notifications of new items. No items are read before the first reader starts.
    pub fn start(options: TailOptions, tasks: &Tasks) -> Self {
        let TailOptions { pool, listener, book, metrics } = options;
        let book = BookHandle { pool, book };
        let notifications = Notifications::start(book.clone(), listener, tasks);
        for by in ["hub", "reader"] {
            metrics.wallet_book_live_reads_total.preregister([by]);
        }
        let transfers = LiveHub::start("live-transfers", &book, &notifications, &metrics, tasks);
        let sealed = LiveHub::start("live-sealed", &book, &notifications, &metrics, tasks);
        let events = LiveHub::start("live-events", &book, &notifications, &metrics, tasks);
        Self { book, notifications, transfers, sealed, events, metrics }
    }

    /// Runs a durable reader, a background task that follows the ledger, until the program stops.
    pub fn follow<S: Source>(
        &self,
        options: ReaderOptions,
        handler: impl SegmentHandler<S>,
        tasks: &Tasks,
    ) {
        let reader = DurableReader::new(
            self.book.clone(),
            self.notifications.clone(),
            options,
            Arc::clone(&self.metrics),
            tasks.stopping().clone(),
        );
        tasks.spawn(options.name, reader.run(handler));
    }

    /// Starts a live reader of the transfers after `after`; if it is `None`, of those after the newest transfer.
    pub async fn live(&self, after: Option<Position>) -> sqlx::Result<LiveReader<Transfers>> {
        self.transfers.subscribe(after).await
    }

    /// Starts a live reader of the transfers with their batches, after `after`; if it is `None`, after the newest
    /// transfer.
    pub async fn live_sealed(
        &self,
        after: Option<Position>,
    ) -> sqlx::Result<LiveReader<SealedTransfers>> {
        self.sealed.subscribe(after).await
    }

    /// Reads the facts that decide whether a reader can continue after this transfer.
    pub async fn position_facts(
        &self,
        seq: i64,
        retention: std::time::Duration,
    ) -> sqlx::Result<PositionFacts> {
        let BookHandle { pool, book } = &self.book;
        let mut db = Box::pin(pool.acquire()).await?;
        sql::position_facts(&mut db, *book, seq, retention.as_secs_f64()).await
    }

    /// Returns a receiver that changes when there are new events. The events themselves are not read.
    pub fn event_notifications(&self) -> tokio::sync::watch::Receiver<()> {
        self.notifications.subscribe(NotifyChannel::Event)
    }

    /// The book that the readers follow, and the pool through which it is read.
    pub fn book(&self) -> &BookHandle {
        &self.book
    }

    /// Starts a live reader of the events after `after`; if it is `None`, of those after the newest event.
    pub async fn live_events(&self, after: Option<Position>) -> sqlx::Result<LiveReader<Events>> {
        self.events.subscribe(after).await
    }
}

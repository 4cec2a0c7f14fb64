//! Readers, which follow the ledger. Code that reacts to transfers receives them from a reader: in order, each transfer
//! once.
//!
//! | reader | position | guarantees |
//! |---|---|---|
//! | [durable](Tail::follow) | a row of `ledger.cursor` | runs in one process at a time, which holds a lease and renews it whenever the reader advances; its effects in the database commit together with its position, so each transfer takes effect exactly once |
//! | [live](Tail::live_transfers) | in memory | starts after the newest transfer or at a position, without gaps or repeats; all live readers of a process share their database reads |
//!
//! Notifications wake both kinds; polling is the fallback, so a lost notification only causes a delay of a few seconds.
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
use tokio::sync::Semaphore;

use crate::ledger::book::{FIRST_BOOK, book_of, index_of};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use self::durable::{ReaderOptions, SegmentHandler};
pub use self::event::{
    EventToAppend, Events, append_event, append_events, events_of_topic, prune_events,
};
pub use self::live::LiveReader;
pub use self::sealed::{SealedRow, SealedTransfers, rows_of_accounts, sealed_rows};
pub use self::source::{BookEvent, Position, Segment, Source};
pub use self::sql::PositionFacts;
pub use self::transfers::Transfers;
pub use self::wake::NotifyChannel;

use self::durable::DurableReader;
use self::live::LiveHub;
use self::source::BookHandle;
use self::wake::Notifications;

/// Divisor for the limit on steps (a read and its effects) that the durable readers run at the same time: the limit is
/// the size of the connection pool divided by this number. A step holds one connection and may need a second; the rest
/// of the pool is for requests.
const POOL_PART_OF_STEPS: u32 = 3;

/// Dependencies and settings of a [`Tail`].
pub struct TailOptions {
    pub pool: PgPool,
    /// Options of the connection that listens for notifications.
    pub listener: PgConnectOptions,
    /// Number of books.
    pub books: i32,
    pub metrics: Arc<Metrics>,
}

/// Starts the tasks and streams that follow the ledger (readers). Cheap to clone.
#[derive(Clone)]
pub struct Tail {
    pool: PgPool,
    /// The tasks that read the transfers of each book for the live readers, in the order of the books.
    books: Arc<[LiveHub<SealedTransfers>]>,
    events: LiveHub<Events>,
    notifications: Notifications,
    /// Limits how many steps (a read and its effects) the durable readers of all books run at the same time.
    steps: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Tail {
    /// Starts to listen for notifications of new items. No items are read before the first reader starts.
    pub fn start(options: TailOptions, tasks: &Tasks) -> Self {
        let TailOptions { pool, listener, books, metrics } = options;
        let handle = |book| BookHandle { pool: pool.clone(), book };
        let notifications = Notifications::start(pool.clone(), books, listener, tasks);
        for by in ["hub", "reader"] {
            metrics.wallet_book_live_reads_total.preregister([by]);
        }
        let events = handle(FIRST_BOOK);
        let events = LiveHub::start("live-events", &events, &notifications, &metrics, tasks);
        let sealed = (FIRST_BOOK..=books).map(|book| {
            LiveHub::start("live-transfers", &handle(book), &notifications, &metrics, tasks)
        });
        let books = sealed.collect();
        let steps = (pool.options().get_max_connections() / POOL_PART_OF_STEPS).max(1);
        let steps = Arc::new(Semaphore::new(steps as usize));
        Self { pool, books, events, notifications, steps, metrics }
    }

    /// Starts durable readers, which run in the background until the program stops: for transfers, a reader for each
    /// book; for events, a single reader. `handler` creates the handler of each reader.
    pub fn follow<S: Source, H: SegmentHandler<S>>(
        &self,
        options: ReaderOptions,
        handler: impl Fn(i32) -> H,
        tasks: &Tasks,
    ) {
        let last = match S::CHANNEL {
            NotifyChannel::Book => self.books(),
            NotifyChannel::Event => FIRST_BOOK,
        };
        for book in FIRST_BOOK..=last {
            let reader = DurableReader::new(
                BookHandle { pool: self.pool.clone(), book },
                self.notifications.clone(),
                options,
                Arc::clone(&self.metrics),
                tasks.stopping().clone(),
                Arc::clone(&self.steps),
            );
            tasks.spawn(options.name, reader.run(handler(book)));
        }
    }

    /// Starts a live reader, which returns each transfer of a book with the first digits of its batch's id. The reader
    /// begins after the position `after`, or after the newest transfer if `after` is `None`.
    pub async fn live_transfers(
        &self,
        book: i32,
        after: Option<Position>,
    ) -> sqlx::Result<LiveReader<SealedTransfers>> {
        let hub = self.books.get(index_of(book)).ok_or(sqlx::Error::RowNotFound)?;
        hub.subscribe(after).await
    }

    /// Reads the facts that determine whether a reader can continue after this transfer.
    pub async fn position_facts(
        &self,
        seq: i64,
        retention: std::time::Duration,
    ) -> sqlx::Result<PositionFacts> {
        let mut db = Box::pin(self.pool.acquire()).await?;
        sql::position_facts(&mut db, book_of(seq), seq, retention.as_secs_f64()).await
    }

    /// Returns a receiver that changes when there are new events. The events themselves are not read.
    pub fn event_notifications(&self) -> tokio::sync::watch::Receiver<()> {
        self.notifications.subscribe(NotifyChannel::Event, FIRST_BOOK)
    }

    /// The pool through which the readers read the ledger.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Number of books that the readers follow.
    pub fn books(&self) -> i32 {
        i32::try_from(self.books.len()).unwrap_or(i32::MAX)
    }

    /// Starts a live reader, which returns all events that come after the newest event.
    pub async fn live_events(&self) -> sqlx::Result<LiveReader<Events>> {
        self.events.subscribe(None).await
    }
}

//! Following the book: everything that reacts to money reads it from here, in order, each transfer once.
//!
//! | reader | where its position is | what it promises |
//! |---|---|---|
//! | [durable](Tail::follow) | a row of `ledger.cursor` | runs in one process at a time, the same one while that is alive; its effects in the database commit together with its position, so each transfer takes effect exactly once |
//! | [live](Tail::live) | in memory | from now or from a position, without a gap or a repeat; however many there are in a process, they cost one read |
//!
//! Both are woken by a notification and poll as a fallback, so a lost notification costs a second and nothing else.
//! Events that are no money are a [source](Source) with the same face.

mod durable;
mod event;
mod live;
mod source;
mod sql;
mod wake;

use std::sync::Arc;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;
use crate::telemetry::Metrics;

pub use self::durable::{Effect, Reader, Start};
pub use self::event::{Event, append};
pub use self::live::Live;
pub use self::source::{Events, Followed, Position, Segment, Source, Transfers};
pub use self::wake::Channel;

use self::live::Hub;
use self::wake::Wake;

/// What following a book needs.
pub struct TailOptions {
    pub pool: PgPool,
    /// For the connection that listens.
    pub listener: PgConnectOptions,
    pub book: i32,
    pub metrics: Arc<Metrics>,
}

/// Follows a book. Cheap to clone.
#[derive(Clone)]
pub struct Tail {
    book: Followed,
    wake: Wake,
    transfers: Hub<Transfers>,
    events: Hub<Events>,
    metrics: Arc<Metrics>,
}

impl Tail {
    /// Listens; reads nothing before somebody follows.
    pub fn start(options: TailOptions, tasks: &Tasks) -> Self {
        let TailOptions { pool, listener, book, metrics } = options;
        let book = Followed { pool, book };
        let wake = Wake::start(listener, tasks);
        for by in ["hub", "reader"] {
            metrics.wallet_book_live_reads_total.preregister([by]);
        }
        let transfers = Hub::start("live-transfers", book.clone(), wake.clone(), &metrics, tasks);
        let events = Hub::start("live-events", book.clone(), wake.clone(), &metrics, tasks);
        Self { book, wake, transfers, events, metrics }
    }

    /// Runs a durable reader until the tasks stop.
    pub fn follow<S: Source>(&self, reader: Reader, effect: impl Effect<S>, tasks: &Tasks) {
        let stopping = tasks.stopping().clone();
        let following = durable::Following::new(self, reader, stopping);
        tasks.spawn(reader.name, following.run(effect));
    }

    /// Transfers from behind `after` on, or those from now on.
    pub async fn live(&self, after: Option<Position>) -> sqlx::Result<Live<Transfers>> {
        self.transfers.follow(after).await
    }

    /// Events from behind `after` on, or those from now on.
    pub async fn live_events(&self, after: Option<Position>) -> sqlx::Result<Live<Events>> {
        self.events.follow(after).await
    }
}

/// Waits, unless the program stops; whether it goes on.
async fn pause(time: std::time::Duration, stopping: &CancellationToken) -> bool {
    stopping.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
}

//! Notifications of new transfers and events, which wake the readers (tasks that follow the ledger). As a fallback, a
//! regular poll wakes all readers if the ledger has grown.

use std::sync::Arc;
use std::time::Duration;

use futures_util::join;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::sql;
use crate::ledger::book::{FIRST_BOOK, index_of};
use crate::tasks::Tasks;

/// Interval at which a reader tries to take over its stored position (cursor) while another process holds it.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which the ledger is polled for new items, in case a notification was lost. A notification is lost only
/// if the process that should send it ends first.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which a blocked reader reads again. A blocked reader waits until an older transaction ends, which no
/// notification announces.
const BLOCKED_INTERVAL: Duration = Duration::from_secs(1);

/// First and longest backoff between two attempts to listen for notifications.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A channel of Postgres notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyChannel {
    /// Announces committed batches of transfers.
    Book,
    /// Announces new events, which move no money.
    Event,
}

impl NotifyChannel {
    const ALL: [Self; 2] = [Self::Book, Self::Event];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Book => "book",
            Self::Event => "event",
        }
    }
}

/// Receivers of the notifications of all channels. Cheap to clone.
#[derive(Clone)]
pub(super) struct Notifications {
    /// A receiver for each book, in the order of the books.
    books: Arc<[watch::Receiver<()>]>,
    event: watch::Receiver<()>,
}

struct NotificationSenders {
    /// A sender for each book, in the order of the books.
    books: Vec<watch::Sender<()>>,
    event: watch::Sender<()>,
}

impl NotificationSenders {
    /// Wakes the readers that are waiting for this notification. `payload` is the number of the book.
    fn notify(&self, channel: &str, payload: &str) {
        if channel == NotifyChannel::Event.name() {
            self.event.send_replace(());
        } else if let Some(sender) =
            payload.parse().ok().and_then(|book| self.books.get(index_of(book)))
        {
            sender.send_replace(());
        }
    }

    /// Wakes all readers, because notifications may have been lost while there was no connection.
    fn notify_all(&self) {
        for sender in self.books.iter().chain([&self.event]) {
            sender.send_replace(());
        }
    }
}

impl Notifications {
    pub(super) fn start(
        pool: PgPool,
        books: i32,
        options: PgConnectOptions,
        tasks: &Tasks,
    ) -> Self {
        let (book_senders, book_changes): (Vec<_>, Vec<_>) =
            (FIRST_BOOK..=books).map(|_| watch::channel(())).unzip();
        let (event_sender, event_changes) = watch::channel(());
        let senders = NotificationSenders { books: book_senders, event: event_sender };
        let stopping = tasks.stopping().clone();
        tasks.spawn("book-listener", async move {
            join!(
                listen_with_retry(&options, &senders, &stopping),
                poll(&pool, books, &senders, &stopping),
            );
            Ok(())
        });
        Self { books: book_changes.into(), event: event_changes }
    }

    /// Subscribes to future notifications of new transfers of a book, or of new events. For events, `book` is ignored.
    pub(super) fn subscribe(&self, channel: NotifyChannel, book: i32) -> watch::Receiver<()> {
        let changes = match channel {
            NotifyChannel::Book => self.books.get(index_of(book)),
            NotifyChannel::Event => None,
        };
        let mut changes = changes.unwrap_or(&self.event).clone();
        changes.mark_unchanged();
        changes
    }
}

/// Waits for a notification. Returns false when the program stops.
pub(super) async fn wait_for_change(
    changes: &mut watch::Receiver<()>,
    stopping: &CancellationToken,
) -> bool {
    // An error means that the listener task has ended, because the program is about to stop.
    stopping.run_until_cancelled(changes.changed()).await.is_some()
}

/// Waits for a notification, at most for [`BLOCKED_INTERVAL`]. Returns false when the program stops.
pub(super) async fn wait_while_blocked(
    changes: &mut watch::Receiver<()>,
    stopping: &CancellationToken,
) -> bool {
    let change = tokio::time::timeout(BLOCKED_INTERVAL, changes.changed());
    stopping.run_until_cancelled(change).await.is_some()
}

/// Sleeps. Returns false when the program stops.
pub(super) async fn sleep_unless_stopped(time: Duration, stopping: &CancellationToken) -> bool {
    stopping.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
}

/// Polls the ledger, and wakes all readers if it has grown, because a notification may have been lost.
async fn poll(
    pool: &PgPool,
    books: i32,
    senders: &NotificationSenders,
    stopping: &CancellationToken,
) {
    let mut known = None;
    while sleep_unless_stopped(POLL_INTERVAL, stopping).await {
        let ends = async { sql::ends(&mut *pool.acquire().await?, books).await };
        // An error is ignored here: the readers report an unreachable database.
        if let Ok(ends) = ends.await
            && known.as_ref() != Some(&ends)
        {
            known = Some(ends);
            senders.notify_all();
        }
    }
}

async fn listen_with_retry(
    options: &PgConnectOptions,
    senders: &NotificationSenders,
    stopping: &CancellationToken,
) {
    let mut backoff = BACKOFF_MIN;
    while !stopping.is_cancelled() {
        let listening = listen(options, senders, &mut backoff);
        if let Some(Err(error)) = stopping.run_until_cancelled(listening).await {
            tracing::warn!(
                error.message = %error,
                "could not listen for notifications of new transfers; the ledger's readers will poll until listening succeeds"
            );
            if !sleep_unless_stopped(backoff, stopping).await {
                return;
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// Forwards notifications until the connection ends.
async fn listen(
    options: &PgConnectOptions,
    senders: &NotificationSenders,
    backoff: &mut Duration,
) -> sqlx::Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen_all(NotifyChannel::ALL.map(NotifyChannel::name)).await?;
    *backoff = BACKOFF_MIN;
    senders.notify_all();
    loop {
        match listener.try_recv().await? {
            Some(notification) => {
                senders.notify(notification.channel(), notification.payload());
            }
            None => return Err(sqlx::Error::PoolClosed),
        }
    }
}

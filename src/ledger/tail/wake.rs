//! Notifications that the book has grown, which wake its readers; polling is the fallback.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::tasks::Tasks;

/// Interval at which a reader whose cursor another process holds tries to take it over.
pub(super) const RECHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which readers look that get no notification: one is lost only with the process that should send it.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Interval at which readers look that have items ahead: nothing announces the end of an older transaction, which they wait
/// for.
pub(super) const BLOCKED_INTERVAL: Duration = Duration::from_secs(1);

/// First and longest backoff between two attempts to listen.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A channel of Postgres notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyChannel {
    /// Announces sealed batches.
    Book,
    /// Announces appended events.
    Event,
}

impl NotifyChannel {
    const ALL: [Self; 2] = [Self::Book, Self::Event];

    const fn name(self) -> &'static str {
        match self {
            Self::Book => "book",
            Self::Event => "event",
        }
    }
}

/// Receivers of the notifications of all channels. Cheap to clone.
#[derive(Clone)]
pub(super) struct Notifications {
    book: watch::Receiver<()>,
    event: watch::Receiver<()>,
}

struct NotificationSenders {
    book: watch::Sender<()>,
    event: watch::Sender<()>,
}

impl NotificationSenders {
    fn notify(&self, name: &str) {
        for (channel, sender) in
            [(NotifyChannel::Book, &self.book), (NotifyChannel::Event, &self.event)]
        {
            if channel.name() == name {
                sender.send_replace(());
            }
        }
    }

    /// Wakes all readers, because notifications were lost while there was no connection.
    fn notify_all(&self) {
        for channel in NotifyChannel::ALL {
            self.notify(channel.name());
        }
    }
}

impl Notifications {
    pub(super) fn start(options: PgConnectOptions, tasks: &Tasks) -> Self {
        let (book, book_changes) = watch::channel(());
        let (event, event_changes) = watch::channel(());
        let stopping = tasks.stopping().clone();
        tasks.spawn("book-listener", async move {
            listen_with_retry(options, NotificationSenders { book, event }, stopping).await;
            Ok(())
        });
        Self { book: book_changes, event: event_changes }
    }

    /// Subscribes to the future notifications of a channel.
    pub(super) fn subscribe(&self, channel: NotifyChannel) -> watch::Receiver<()> {
        let mut changes = match channel {
            NotifyChannel::Book => self.book.clone(),
            NotifyChannel::Event => self.event.clone(),
        };
        changes.mark_unchanged();
        changes
    }
}

/// Why a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    Notified,
    /// No notification came for the length of the poll interval.
    Poll,
    /// The program stops.
    Stopping,
}

/// Waits for a notification or for the next poll.
pub(super) async fn wait_for_change(
    changes: &mut watch::Receiver<()>,
    poll_interval: Duration,
    stopping: &CancellationToken,
) -> Wake {
    tokio::select! {
        () = stopping.cancelled() => Wake::Stopping,
        // An error means that the listener has ended; then the program is about to stop.
        _ = changes.changed() => Wake::Notified,
        () = tokio::time::sleep(poll_interval) => Wake::Poll,
    }
}

/// Sleeps. Returns false when the program stops.
pub(super) async fn sleep_unless_stopped(time: Duration, stopping: &CancellationToken) -> bool {
    stopping.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
}

async fn listen_with_retry(
    options: PgConnectOptions,
    senders: NotificationSenders,
    stopping: CancellationToken,
) {
    let mut backoff = BACKOFF_MIN;
    while !stopping.is_cancelled() {
        let listening = listen(&options, &senders, &mut backoff);
        if let Some(Err(error)) = stopping.run_until_cancelled(listening).await {
            tracing::warn!(
                error = %error,
                "listening for notifications of the book failed; readers poll until it succeeds"
            );
            if !sleep_unless_stopped(backoff, &stopping).await {
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
            Some(notification) => senders.notify(notification.channel()),
            None => return Err(sqlx::Error::PoolClosed),
        }
    }
}

//! Being told that a book has grown, instead of asking all the time.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pause;
use crate::tasks::Tasks;

/// Who is not told asks this often.
pub(super) const POLL: Duration = Duration::from_secs(1);

/// First and longest pause between two attempts to listen.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The notifications of Postgres that mean something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// A batch was sealed.
    Book,
    /// An event was written.
    Event,
}

impl Channel {
    const ALL: [Self; 2] = [Self::Book, Self::Event];

    const fn name(self) -> &'static str {
        match self {
            Self::Book => "book",
            Self::Event => "event",
        }
    }
}

/// Wakes whoever waits for a channel. Cheap to clone.
#[derive(Clone)]
pub(super) struct Wake {
    book: watch::Receiver<()>,
    event: watch::Receiver<()>,
}

struct Bell {
    book: watch::Sender<()>,
    event: watch::Sender<()>,
}

impl Bell {
    fn ring(&self, channel: &str) {
        for (known, bell) in [(Channel::Book, &self.book), (Channel::Event, &self.event)] {
            if known.name() == channel {
                bell.send_replace(());
            }
        }
    }

    /// What was told while nobody listened is lost.
    fn ring_all(&self) {
        for channel in Channel::ALL {
            self.ring(channel.name());
        }
    }
}

impl Wake {
    pub(super) fn start(options: PgConnectOptions, tasks: &Tasks) -> Self {
        let (book, book_rings) = watch::channel(());
        let (event, event_rings) = watch::channel(());
        let stopping = tasks.stopping().clone();
        tasks.spawn("book-listener", async move {
            listen(options, Bell { book, event }, stopping).await;
            Ok(())
        });
        Self { book: book_rings, event: event_rings }
    }

    /// For one who waits: told of what happens from now on.
    pub(super) fn of(&self, channel: Channel) -> watch::Receiver<()> {
        let mut rings = match channel {
            Channel::Book => self.book.clone(),
            Channel::Event => self.event.clone(),
        };
        rings.mark_unchanged();
        rings
    }
}

/// Waits for a ring, or until it is time to ask; whether the program goes on.
pub(super) async fn next(rings: &mut watch::Receiver<()>, stopping: &CancellationToken) -> bool {
    tokio::select! {
        () = stopping.cancelled() => false,
        // When the listener has ended, the program is about to.
        _ = rings.changed() => true,
        () = tokio::time::sleep(POLL) => true,
    }
}

async fn listen(options: PgConnectOptions, bell: Bell, stopping: CancellationToken) {
    let mut wait = PAUSE_MIN;
    while !stopping.is_cancelled() {
        let heard = hear(&options, &bell, &mut wait);
        if let Some(Err(error)) = stopping.run_until_cancelled(heard).await {
            tracing::warn!(error = %error, "not told of what is written; asking every second instead");
            if !pause(wait, &stopping).await {
                return;
            }
            wait = (wait * 2).min(PAUSE_MAX);
        }
    }
}

/// Listens until the connection ends.
async fn hear(options: &PgConnectOptions, bell: &Bell, wait: &mut Duration) -> sqlx::Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen_all(Channel::ALL.map(Channel::name)).await?;
    *wait = PAUSE_MIN;
    bell.ring_all();
    loop {
        match listener.try_recv().await? {
            Some(notification) => bell.ring(notification.channel()),
            None => return Err(sqlx::Error::PoolClosed),
        }
    }
}

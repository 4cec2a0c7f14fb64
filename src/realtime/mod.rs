//! Realtime: sends events to clients over WebSocket connections and gRPC streams as soon as the events happen.
//!
//! | module | purpose |
//! |---|---|
//! | [`hub`] | follows the ledger and the event table, and pushes each event to the outboxes of its subscribers |
//! | [`feed`] | interface by which other modules define topics, their access rights, and their events |
//! | [`outbox`] | queue of the frames that wait for a client, limited in bytes |
//! | [`session`] | WebSocket connection: reads requests, sends the frames of its outbox, replays missed events |
//! | [`watch`] | gRPC stream of events |
//! | [`http`] | route `/ws`: checks limits and the header `Origin`, and upgrades to a WebSocket |
//!
//! The events come from the ledger and from the event table. An event is encoded once for each frame format, and every
//! subscriber gets the same bytes.
//!
//! A subscriber gets each event of its topic once and in order. Each event has a [`BookPosition`]. If a subscription
//! begins after an earlier position, the subscriber first gets all events since then, from memory or from the database.
//! If the outbox of a client is full, it accepts no more events: the subscription falls behind, and continues from its
//! position once the outbox is empty. So a slow client uses a bounded amount of memory and does not delay other
//! clients. If a client does not empty its outbox in time, its connection is closed.

mod args;
mod continuation;
mod credential;
mod delivery;
mod event;
pub mod feed;
pub mod http;
mod hub;
mod limits;
mod message;
mod outbox;
mod position;
mod replay;
pub mod retention;
mod runtime;
mod session;
mod topic;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::auth::Authenticator;
use crate::error::{Error, Result};
use crate::http::CorsOrigins;
use crate::ledger::tail::Tail;
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, gauge_value};

use self::feed::Feed;
use self::hub::Hub;
use self::limits::{LimitReached, Permit, SocketLimits};

pub use self::args::RealtimeArgs;
pub use self::event::{NewEvent, message_of, publish, publish_all};
pub use self::message::{Audience, Message};
pub use self::position::BookPosition;
pub use self::runtime::sockets_runtime;
pub use self::watch::{Watch, WatchedEvent, Watcher};

/// Interval at which the queued bytes metric is updated.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum number of connections that end their subscriptions at the same time. The limit leaves CPU time for other
/// work when thousands of connections end.
const ENDINGS_MAX: usize = 16;

/// Handle to the realtime service of a process: its hub and its limits. Cheap to clone.
#[derive(Clone)]
pub struct Realtime(Arc<RealtimeParts>);

pub struct RealtimeParts {
    hub: Hub,
    authenticator: Authenticator,
    limits: SocketLimits,
    args: RealtimeArgs,
    /// Origins of other websites whose pages may connect even if `--access` is not `open`.
    cors_origins: CorsOrigins,
    /// Permits that limit how many connections end their subscriptions at the same time.
    endings: Semaphore,
    /// Number of bytes that wait in the outboxes of all connections.
    queued_bytes: Arc<AtomicUsize>,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

/// Dependencies and settings of [`Realtime`].
pub struct RealtimeOptions<'a> {
    pub tail: &'a Tail,
    pub feeds: Vec<Arc<dyn Feed>>,
    pub authenticator: Authenticator,
    pub args: &'a RealtimeArgs,
    pub cors_origins: CorsOrigins,
    pub metrics: &'a Arc<Metrics>,
}

impl std::ops::Deref for Realtime {
    type Target = RealtimeParts;

    fn deref(&self) -> &RealtimeParts {
        &self.0
    }
}

impl Realtime {
    /// Starts the hub, which reads nothing until there is a subscription or a connection with a credential.
    pub fn start(options: RealtimeOptions<'_>, tasks: &Tasks) -> Self {
        let RealtimeOptions { tail, feeds, authenticator, args, cors_origins, metrics } = options;
        preregister(metrics);
        let hub = {
            let _on_their_runtime = runtime::sockets_runtime().enter();
            Hub::start(tail, feeds, args.event_retention, metrics, tasks)
        };
        let limits =
            SocketLimits::new(args.realtime_connections_max, args.realtime_connections_per_address);
        let queued_bytes = Arc::<AtomicUsize>::default();
        let (sampled, gauge) = (Arc::clone(&queued_bytes), metrics.wallet_ws_queue_bytes.clone());
        let stopping = tasks.stopping().clone();
        tasks.spawn("realtime-metrics", async move {
            let pause = || tokio::time::sleep(SAMPLE_INTERVAL);
            while stopping.run_until_cancelled(pause()).await.is_some() {
                gauge.set(gauge_value(
                    i64::try_from(sampled.load(Ordering::Relaxed)).unwrap_or(i64::MAX),
                ));
            }
            Ok(())
        });
        Self(Arc::new(RealtimeParts {
            hub,
            authenticator,
            limits,
            args: args.clone(),
            cors_origins,
            endings: Semaphore::new(ENDINGS_MAX),
            queued_bytes,
            tasks: tasks.clone(),
            metrics: Arc::clone(metrics),
        }))
    }
}

impl RealtimeParts {
    /// Counts a new connection, or returns an error if there are too many connections.
    fn admit(&self, address: Option<IpAddr>) -> Result<Permit> {
        self.limits.take(address).map_err(|limit| {
            let reason = match limit {
                LimitReached::Connections => "connections",
                LimitReached::Address => "address",
            };
            self.metrics.wallet_ws_refused_total.with([reason]).increment(1);
            Error::Overloaded
        })
    }
}

fn preregister(metrics: &Metrics) {
    for reason in
        ["slow_consumer", "ping_timeout", "revoked", "frame_too_large", "unavailable", "shutdown"]
    {
        metrics.wallet_ws_dropped_total.preregister([reason]);
    }
    for reason in ["connections", "address", "origin"] {
        metrics.wallet_ws_refused_total.preregister([reason]);
    }
    for source in ["memory", "database", "unrecoverable"] {
        metrics.wallet_ws_replays_total.preregister([source]);
    }
    for label in [("in", "action"), ("in", "invalid"), ("out", "event"), ("out", "reply")] {
        metrics.wallet_ws_messages_total.preregister([label.0, label.1]);
    }
}

//! The leader of a book: the process that writes the postings of all processes.
//!
//! Any process may write, because each batch names its predecessor, and the database accepts only one successor of a
//! batch. But processes that race to write the next batch make each other's batches fail, so normally a single
//! process, the leader, writes batches; the other processes, its followers, send their postings to it.
//!
//! | file | what it does |
//! |---|---|
//! | [`election`] | holds the lock of the leader, or finds the leader's address |
//! | [`forwarder`] | sends a follower's postings to the leader; the follower itself writes the postings that get no clear reply |
//! | [`connection`] | the stream of a follower to the leader |
//! | [`service`] | receives the postings of followers at the leader, and writes them |
//! | [`doubt`] | remembers the keys of postings that the leader may still write |
//! | [`wire`] | converts postings and replies to messages, and back |
//!
//! Correctness does not depend on the leader: a process that wrongly believes it is the leader only loses the race to
//! write the next batch. A follower whose leader does not reply writes its postings itself. Every posting that is sent
//! to the leader has an idempotency key, which is random if the client gave none. A posting whose outcome is unknown
//! can therefore be written again under its key, and takes effect only once. If the second attempt is refused, the
//! outcome is reported as unknown, because the first attempt may still take effect.

mod connection;
mod doubt;
mod election;
mod forwarder;
mod service;
mod wire;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::doubt::Doubts;
use self::election::Election;
use self::forwarder::Forwarder;
use self::wire::CompanionRegistry;
use super::LedgerOptions;
use super::book::FIRST_BOOK;
use super::writer::{Admission, QueuedPosting};
use super::writer_queues::WriterQueues;
use crate::cache::Cache;
use crate::idempotency_key::HashedKey;
use crate::tasks::Tasks;

pub use self::service::{METHODS, PostingService};

/// The generated code of the messages between processes.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated"
)]
mod proto {
    tonic::include_proto!("revwallet.internal.v1");
}

/// Maximum number of legs in a posting that is sent to the leader. Larger postings are rare and cost more to send, so
/// each process writes its own.
const LEGS_MAX: usize = 256;

/// Maximum number of idempotency keys that are remembered because the leader did not write their postings; the oldest
/// keys are forgotten first.
const HANDED_OVER_MAX: usize = 100_000;

/// Role of a process in the election of the leader.
#[derive(Debug, Clone)]
pub enum Candidacy {
    /// The process becomes the leader, reachable at `address`, if no other process leads. Once `stopping` is canceled,
    /// it steps down, and sends its remaining postings to the next leader.
    Leader { address: AdvertisedAddress, stopping: CancellationToken },
    /// The process never leads, and only sends its postings to the leader. Meant for processes that do only background
    /// work: most postings come from the processes that serve the API, and these would have to be sent to it.
    Follower,
}

/// Address under which the other processes reach this process.
#[derive(Debug, Clone)]
pub enum AdvertisedAddress {
    /// Host and port from the settings.
    Configured(String),
    /// Address of the internal listener.
    Listener(SocketAddr),
}

impl AdvertisedAddress {
    /// Returns the address to publish. If the listener accepts connections on all addresses, the result contains `own`,
    /// the address from which this process has connected to the database. If `own` is `None`, the database is on the
    /// same machine, and the result contains the loopback address.
    fn resolve(&self, own: Option<IpAddr>) -> String {
        match self {
            Self::Configured(address) => address.clone(),
            Self::Listener(address) if address.ip().is_unspecified() => {
                let own = own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                SocketAddr::new(own, address.port()).to_string()
            }
            Self::Listener(address) => address.to_string(),
        }
    }
}

/// Leader of the book, as far as this process knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Leadership {
    #[default]
    Unknown,
    /// This process leads. Followers present this key, which proves that they can read the database.
    Leads {
        key: Uuid,
    },
    Follows(LeaderAddress),
}

/// Address of the leader, and the key that followers present to it. The key proves that a follower can read the
/// database.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LeaderAddress {
    address: String,
    key: Uuid,
}

/// The queues of this process's own writers, and the limit on the number of queued legs.
pub(super) struct OwnWriter {
    pub(super) queues: WriterQueues,
    /// Counts the legs of all postings that have no reply yet, including the postings that are waiting for the leader.
    pub(super) admission: Admission,
}

/// Handle through which postings are sent to the leader. Cheap to clone.
#[derive(Clone)]
pub(super) struct LeaderHandle {
    queue: mpsc::Sender<QueuedPosting>,
    /// Whether postings currently go to the leader instead of this process's own writer.
    is_forwarding: Arc<AtomicBool>,
    leadership: watch::Receiver<Leadership>,
    registry: Arc<CompanionRegistry>,
    doubts: Arc<Doubts>,
    /// Canceled when the process begins to stop.
    stopping: CancellationToken,
}

impl LeaderHandle {
    /// Starts the task that takes part in the election of the leader, and the task that sends postings to the leader.
    pub(super) fn start(
        options: &LedgerOptions,
        candidacy: Candidacy,
        own_writer: OwnWriter,
        tasks: &Tasks,
    ) -> Self {
        let (queue, items) = mpsc::channel(options.settings.queue_max);
        let (sender, leadership) = watch::channel(Leadership::Unknown);
        let is_forwarding = Arc::new(AtomicBool::new(false));
        let doubts = Arc::new(Doubts::default());
        let metrics = Arc::clone(&options.metrics);
        forwarder::preregister(&metrics);
        let stopping = match &candidacy {
            Candidacy::Leader { stopping, .. } => stopping.clone(),
            Candidacy::Follower => CancellationToken::new(),
        };
        let election = Election {
            database: options.database.clone(),
            book: FIRST_BOOK,
            candidacy,
            stopping: stopping.clone(),
            leadership: sender,
            metrics: Arc::clone(&metrics),
        };
        let forwarder = Forwarder {
            queue: items,
            own_writer,
            handed_over: Cache::new(HANDED_OVER_MAX),
            leadership: leadership.clone(),
            is_forwarding: Arc::clone(&is_forwarding),
            doubts: Arc::clone(&doubts),
            metrics,
        };
        tasks.spawn("ledger-election", election.run(tasks.stopping().clone()));
        tasks.spawn("ledger-forwarder", forwarder.run(tasks.stopping().clone()));
        let registry = Arc::new(CompanionRegistry::new(&options.companions));
        Self { queue, is_forwarding, leadership, registry, doubts, stopping }
    }

    /// Returns the queue of postings for the leader; `None` if this process itself has to write a posting with this
    /// many legs.
    pub(super) fn queue_for(&self, legs: usize) -> Option<&mpsc::Sender<QueuedPosting>> {
        let forwards = legs <= LEGS_MAX && self.is_forwarding.load(Ordering::SeqCst);
        forwards.then_some(&self.queue)
    }

    /// Returns whether an earlier posting under this key may still take effect although the process that writes the
    /// postings of `queue` does not know of the earlier posting.
    pub(super) fn is_in_doubt(&self, key: HashedKey, queue: &mpsc::Sender<QueuedPosting>) -> bool {
        self.doubts.contain(key.hash, self.queue.same_channel(queue))
    }

    /// The key with which followers authenticate, if this process leads.
    fn leader_key(&self) -> Option<Uuid> {
        match *self.leadership.borrow() {
            Leadership::Leads { key } => Some(key),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_published_with_the_address_that_the_database_sees() {
        let resolve = |listener: &str, own: Option<&str>| {
            let own = own.map(|own| own.parse().unwrap());
            AdvertisedAddress::Listener(listener.parse().unwrap()).resolve(own)
        };

        assert_eq!(resolve("0.0.0.0:9000", Some("10.1.2.3")), "10.1.2.3:9000");
        assert_eq!(resolve("[::]:9000", Some("fd00::7")), "[fd00::7]:9000");
        assert_eq!(resolve("0.0.0.0:9000", None), "127.0.0.1:9000");
        assert_eq!(resolve("10.0.0.9:9000", Some("10.1.2.3")), "10.0.0.9:9000");
        let configured = AdvertisedAddress::Configured("api-1.example:9000".to_owned());
        assert_eq!(configured.resolve(None), "api-1.example:9000");
    }
}

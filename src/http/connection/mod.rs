//! Open connections: the state of each connection, and how connections end.

mod limit;
mod log;
mod stream;
mod unread_body;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub(super) use self::limit::{ConnectionLimits, ConnectionTable, Entry};
pub(super) use self::log::{CloseReason, ConnectionLog};
pub(super) use self::stream::GuardedStream;
pub(super) use self::unread_body::track;
use super::memory::MemoryBudget;
use crate::error::{Error, Result};
use crate::tasks::Tasks;

/// Longest time that a closing connection waits for its client to finish sending a request or reading a response.
const CLIENT_GRACE: Duration = Duration::from_secs(2);

/// Interval at which a closing connection checks whether handlers are still running.
const WORK_POLL: Duration = Duration::from_millis(50);

/// State of an open connection, shared by its task, its requests and the `ConnectionTable`.
#[derive(Debug)]
pub struct OpenConnection {
    peer: IpAddr,
    /// Limits that all connections from the client's address share; `None` for a trusted proxy.
    share: Option<Arc<AddressShare>>,
    opened: Instant,
    /// Number of requests that have arrived on this connection so far.
    requests: AtomicU64,
    /// Number of requests whose response has not been sent completely.
    unsent: AtomicUsize,
    /// Number of requests whose handler is running.
    handlers: AtomicUsize,
    /// Number of requests whose body has not arrived completely.
    receiving: AtomicUsize,
    /// Time when the last response was sent, in milliseconds since the connection was opened.
    idle_since_ms: AtomicU64,
    /// Whether the client may still be sending a body that no handler will read.
    has_unread_body: AtomicBool,
    /// Whether the connection has become a WebSocket. HTTP deadlines do not apply to a WebSocket, which has its own.
    is_upgraded: AtomicBool,
    /// Token that is canceled to close the connection.
    closing: CancellationToken,
    tasks: Tasks,
}

/// Limits that all connections from an address share.
#[derive(Debug)]
pub(super) struct AddressShare {
    requests: Arc<Semaphore>,
    pub(super) memory: MemoryBudget,
}

impl AddressShare {
    fn new(requests_max: usize) -> Self {
        let requests = Arc::new(Semaphore::new(requests_max));
        Self { requests, memory: MemoryBudget::share() }
    }
}

impl OpenConnection {
    fn new(peer: IpAddr, share: Option<Arc<AddressShare>>, tasks: &Tasks) -> Self {
        Self {
            peer,
            share,
            opened: Instant::now(),
            requests: AtomicU64::new(0),
            unsent: AtomicUsize::new(0),
            handlers: AtomicUsize::new(0),
            receiving: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(0),
            has_unread_body: AtomicBool::new(false),
            is_upgraded: AtomicBool::new(false),
            closing: tasks.stopping().child_token(),
            tasks: tasks.clone(),
        }
    }

    /// Address of the client.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Token that is canceled to close the connection.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    pub(super) fn share(&self) -> Option<&AddressShare> {
        self.share.as_deref()
    }

    /// Registers a request, or returns an error if the client's address has too many concurrent requests.
    pub(super) fn begin_request(self: &Arc<Self>) -> Result<RequestSlot> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let permit = match &self.share {
            Some(share) => Some(
                Arc::clone(&share.requests).try_acquire_owned().map_err(|_| Error::Overloaded)?,
            ),
            None => None,
        };
        self.unsent.fetch_add(1, Ordering::Relaxed);
        Ok(RequestSlot { connection: Arc::clone(self), _permit: permit })
    }

    /// Notes that the connection has become a WebSocket.
    pub(super) fn note_upgrade(&self) {
        self.is_upgraded.store(true, Ordering::Relaxed);
    }

    /// Registers a running handler until the returned guard is dropped.
    pub(super) fn begin_handler(self: &Arc<Self>) -> HandlerGuard {
        self.handlers.fetch_add(1, Ordering::Relaxed);
        HandlerGuard(Arc::clone(self))
    }

    fn has_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    fn is_idle(&self) -> bool {
        self.unsent.load(Ordering::Relaxed) == 0
    }

    fn idle_for(&self) -> Duration {
        let since = Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(since)
    }

    /// Whether a handler is working, and not merely waiting for the client to send the request body.
    fn is_working(&self) -> bool {
        self.handlers.load(Ordering::Relaxed) > self.receiving.load(Ordering::Relaxed)
    }

    /// Serves the connection until the client or the server ends it.
    ///
    /// When the server closes the connection, it accepts no more requests, but running handlers may finish. The server
    /// waits at most [`CLIENT_GRACE`] for the client to send the rest of a request, to read a response, or to
    /// acknowledge a ping.
    pub(super) async fn serve<C: GracefulConnection>(
        &self,
        connection: C,
    ) -> Result<(), ServeError<C::Error>> {
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            ended = connection.as_mut() => return ended.map_err(ServeError::Broken),
            () = self.closing.cancelled() => {}
        }
        if !self.has_requests() {
            return Ok(());
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            ended = connection => ended.map_err(ServeError::Broken),
            () = self.grace_is_over() => Err(ServeError::CutOff),
        }
    }

    async fn grace_is_over(&self) {
        tokio::time::sleep(CLIENT_GRACE).await;
        while self.is_working() {
            tokio::time::sleep(WORK_POLL).await;
        }
    }
}

/// Reason why a connection ended abnormally.
#[derive(Debug)]
pub(super) enum ServeError<E> {
    /// The client or the network broke the connection.
    Broken(E),
    /// The client exceeded [`CLIENT_GRACE`].
    CutOff,
}

/// Registration of a request. It is dropped when the response has been sent.
#[derive(Debug)]
pub(super) struct RequestSlot {
    connection: Arc<OpenConnection>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for RequestSlot {
    fn drop(&mut self) {
        let elapsed = self.connection.opened.elapsed().as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.connection.idle_since_ms.store(elapsed, Ordering::Relaxed);
        self.connection.unsent.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Registration of a running handler. It is dropped when the handler returns.
#[derive(Debug)]
pub(super) struct HandlerGuard(Arc<OpenConnection>);

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        self.0.handlers.fetch_sub(1, Ordering::Relaxed);
    }
}

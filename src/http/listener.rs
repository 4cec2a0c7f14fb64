//! Listeners: accept connections, limit their number, and let them finish at shutdown.
//!
//! | limit | effect when it is exceeded |
//! |---|---|
//! | connections of the listener | idle connections are closed, starting with those that have sent no request; the new connection waits |
//! | connections of one address | the new connection is closed |
//! | time until the first request | the connection is closed |
//! | unread responses of a connection | the next request waits until hyper has sent the earlier responses |

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, warn};

use super::HEAD_BYTES_MAX;
use super::connection::{
    CloseReason, ConnectionLimits, ConnectionLog, ConnectionTable, Entry, GuardedStream, ServeError,
};
use super::middleware::{ConnectionService, RequestPipeline};
use crate::tasks::Tasks;

/// Maximum number of concurrent streams (requests) on an HTTP/2 connection.
const STREAMS_MAX: u32 = 256;

/// Maximum number of request body bytes that are buffered per HTTP/2 stream until the handler reads them.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Maximum total of request body bytes that are buffered across all streams of an HTTP/2 connection.
const CONNECTION_WINDOW_BYTES: u32 = 128 * 1024;

/// Maximum number of response bytes that are buffered per HTTP/2 stream until they are sent.
const SEND_BUFFER_BYTES: usize = 32 * 1024;

/// Interval of the pings that check whether a silent HTTP/2 client is still connected.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// Pause after a failed accept. Usually, the process has run out of file descriptors, and connections that end during
/// the pause release some.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listening socket, and the pipeline that handles its requests.
pub struct Listener {
    pub name: &'static str,
    pub socket: TcpListener,
    pub pipeline: Arc<RequestPipeline>,
    pub connections_max: usize,
    /// Maximum number of connections, and of concurrent requests, from one IP address.
    pub connections_per_address: usize,
    /// Whether an address belongs to a trusted proxy. Proxies serve many clients, so `connections_per_address` does not
    /// apply to them.
    pub is_trusted: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
    pub header_timeout: Duration,
}

/// Binds a socket to the address. If that fails, the error says which command line flag to change.
pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; stop what uses it or give another {flag}")
    })
}

impl Listener {
    /// Accepts connections until shutdown begins. Connections that are open at that time finish in their own tasks.
    pub async fn run(self, tasks: Tasks) -> anyhow::Result<()> {
        let Self { name, socket, pipeline, header_timeout, .. } = self;
        let limits = ConnectionLimits {
            connections_max: self.connections_max,
            per_address: self.connections_per_address,
            is_exempt: self.is_trusted,
        };
        let log = Arc::new(ConnectionLog::new(Arc::clone(&pipeline.calls.metrics)));
        let table = Arc::new(ConnectionTable::new(limits, Arc::clone(&log)));
        let acceptor = Acceptor { name, pipeline, header_timeout, table, log, tasks };
        let protocol = Arc::new(protocol(header_timeout, &acceptor.tasks));
        while let Some((stream, peer)) = acceptor.accept(&socket).await {
            // The limit per address is checked first, so that an address with too many connections cannot evict the
            // connections of other addresses.
            let Some(entry) = acceptor.table.insert(peer, &acceptor.tasks) else {
                acceptor.log.closed(CloseReason::Address);
                continue;
            };
            if let Some(permit) = acceptor.table.find_room(&entry, &acceptor.tasks).await {
                acceptor.spawn(stream, entry, permit, &protocol);
            }
            // Requests of open connections have priority. If thousands of clients connect at once, the yield makes new
            // connections wait in the kernel, instead of ahead of the requests in the runtime's queue.
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// Accepts connections and spawns their tasks.
struct Acceptor {
    name: &'static str,
    pipeline: Arc<RequestPipeline>,
    header_timeout: Duration,
    table: Arc<ConnectionTable>,
    log: Arc<ConnectionLog>,
    tasks: Tasks,
}

impl Acceptor {
    /// Returns the next connection, or `None` at shutdown.
    async fn accept(&self, socket: &TcpListener) -> Option<(TcpStream, IpAddr)> {
        loop {
            let accepted = self.tasks.stopping().run_until_cancelled(socket.accept()).await?;
            match accepted {
                Ok((stream, peer)) => return Some((stream, peer.ip())),
                Err(cause) => self.recover(&cause).await,
            }
        }
    }

    /// Reacts to a failed accept: closes idle connections and pauses, because usually the process has no file
    /// descriptors left.
    async fn recover(&self, cause: &io::Error) {
        warn!(error.message = %cause, "could not accept a connection; closing idle connections and retrying: {cause}");
        self.table.evict_idle(None);
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn spawn(
        &self,
        stream: TcpStream,
        entry: Entry,
        permit: OwnedSemaphorePermit,
        protocol: &Builder<TrackedExecutor>,
    ) {
        // Most responses are a single small write, which Nagle's algorithm would delay.
        if let Err(cause) = stream.set_nodelay(true) {
            return debug!(error.message = %cause, "a connection broke: {cause}");
        }
        let connection = Arc::clone(&entry.connection);
        let log = Arc::clone(&self.log);
        let stream = GuardedStream::new(
            stream,
            Arc::clone(&connection),
            Arc::clone(&log),
            self.header_timeout,
        );
        let service = ConnectionService::new(Arc::clone(&self.pipeline), connection);
        let serving =
            protocol.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let open = self.pipeline.calls.metrics.wallet_http_connections.with([self.name]);
        self.tasks.spawn_short_lived(async move {
            let _permit = permit;
            open.increment(1.0);
            match entry.connection.serve(serving).await {
                Ok(()) => {}
                Err(ServeError::CutOff) => log.closed(CloseReason::Shutdown),
                Err(ServeError::Broken(cause)) => {
                    if breaks_protocol(cause.as_ref()) {
                        log.closed(CloseReason::Protocol);
                    }
                    debug!(error.message = cause.to_string(), "a connection broke: {cause}");
                }
            }
            open.decrement(1.0);
        });
    }
}

/// Whether the connection ended because the client violated the HTTP/2 protocol.
fn breaks_protocol(cause: &(dyn std::error::Error + 'static)) -> bool {
    let cause = cause.downcast_ref::<hyper::Error>().and_then(hyper::Error::source);
    cause.and_then(|cause| cause.downcast_ref::<h2::Error>()).is_some_and(h2::Error::is_library)
}

fn protocol(header_timeout: Duration, tasks: &Tasks) -> Builder<TrackedExecutor> {
    let mut builder = Builder::new(TrackedExecutor(tasks.clone()));
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL);
    builder
}

/// Executor that tracks the tasks of HTTP/2 streams, so that shutdown waits for them.
#[derive(Clone)]
struct TrackedExecutor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for TrackedExecutor {
    fn execute(&self, future: F) {
        self.0.spawn_short_lived(future);
    }
}

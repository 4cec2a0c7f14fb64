//! Sockets: accepting connections, limiting them, and closing them in good order.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, warn};

use super::middleware::{ConnectionService, RequestPipeline};
use crate::tasks::Tasks;

/// Most requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// How often a silent HTTP/2 peer is asked whether it is still there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// How long accepting pauses when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket and what answers on it.
pub struct Listener {
    pub name: &'static str,
    pub socket: TcpListener,
    pub pipeline: Arc<RequestPipeline>,
    pub connections_max: usize,
    pub header_timeout: Duration,
}

/// Takes the address, or says in one sentence why it cannot be had.
pub async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; stop what uses it or give another {flag}")
    })
}

impl Listener {
    /// Serves until the group stops, then lets the open requests end.
    pub async fn run(self, tasks: Tasks) -> anyhow::Result<()> {
        let builder = Arc::new(self.protocol());
        let graceful = GracefulShutdown::new();
        let room = Arc::new(Semaphore::new(self.connections_max));
        loop {
            let accepted = tokio::select! {
                () = tasks.stopping().cancelled() => break,
                accepted = self.accept(&room) => accepted,
            };
            let (stream, peer, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(cause) => {
                    warn!(error.message = %cause, "cannot accept a connection: {cause}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let service = ConnectionService { pipeline: Arc::clone(&self.pipeline), peer };
            let connection =
                builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
            let connection = graceful.watch(connection);
            let open = self.pipeline.metrics.wallet_http_connections.with([self.name]);
            tasks.spawn_short_lived(async move {
                let _permit = permit;
                open.increment(1.0);
                if let Err(cause) = connection.await {
                    debug!(error.message = cause.to_string(), "a connection broke: {cause}");
                }
                open.decrement(1.0);
            });
        }
        drop(self.socket);
        graceful.shutdown().await;
        Ok(())
    }

    async fn accept(
        &self,
        room: &Arc<Semaphore>,
    ) -> std::io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
        let permit = Arc::clone(room).acquire_owned().await.expect("never closed");
        let (stream, peer) = self.socket.accept().await?;
        // An answer is one small write: waiting for more to send with it only delays it.
        stream.set_nodelay(true)?;
        Ok((stream, peer.ip(), permit))
    }

    fn protocol(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .pipeline_flush(true);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL);
        builder
    }
}

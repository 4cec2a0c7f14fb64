//! A proxy between the writer and Postgres that can cut connections, or hold requests back.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::harness::postgres::Database;
use crate::harness::program::Folder;

/// Interval at which held requests check whether they are released.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(super) struct Proxy {
    folder: Arc<Folder>,
    database: String,
    /// Cuts the clients that are connected now; the server side stays open.
    cut: Arc<Mutex<CancellationToken>>,
    /// Whether the requests of the clients that are connected now are held back.
    holding: Arc<Mutex<Arc<AtomicBool>>>,
    /// Bytes of replies to clients that were cut.
    undelivered_bytes: Arc<AtomicUsize>,
    /// Bytes of requests that are, or were, held back.
    held_bytes: Arc<AtomicUsize>,
}

/// The held requests of a client that was cut.
pub(super) struct HeldRequests(Arc<AtomicBool>);

impl HeldRequests {
    pub(super) fn deliver(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Proxy {
    pub(super) fn start(database: &Database) -> Self {
        let (address, query) = database.url.split_once("?host=").unwrap();
        let proxy = Self {
            folder: Arc::new(Folder::new()),
            database: address.to_owned(),
            cut: Arc::default(),
            holding: Arc::default(),
            undelivered_bytes: Arc::default(),
            held_bytes: Arc::default(),
        };
        let server = PathBuf::from(query).join(".s.PGSQL.5432");
        let listener = UnixListener::bind(proxy.folder.0.join(".s.PGSQL.5432")).unwrap();
        let task = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&server).await.unwrap();
                let cut = task.cut.lock().unwrap().clone();
                let (read, write) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let holding = Arc::clone(&task.holding.lock().unwrap());
                let held_bytes = Arc::clone(&task.held_bytes);
                tokio::spawn(forward_requests(read, to_server, cut.clone(), holding, held_bytes));
                let undelivered_bytes = Arc::clone(&task.undelivered_bytes);
                tokio::spawn(forward_replies(from_server, write, cut, undelivered_bytes));
            }
        });
        proxy
    }

    pub(super) fn url(&self) -> String {
        format!("{}?host={}", self.database, self.folder.0.display())
    }

    /// Cuts the clients; the backends continue with the requests that they have.
    pub(super) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    /// Holds the requests of the connected clients back, from now on.
    pub(super) fn hold(&self) {
        self.holding.lock().unwrap().store(true, Ordering::SeqCst);
    }

    pub(super) fn release(&self) {
        self.holding.lock().unwrap().store(false, Ordering::SeqCst);
    }

    /// Cuts the clients and keeps their held requests; new clients are not affected.
    pub(super) fn cut_and_hold(&self) -> HeldRequests {
        let held = std::mem::take(&mut *self.holding.lock().unwrap());
        self.cut();
        HeldRequests(held)
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::SeqCst)
    }

    pub(super) fn undelivered_bytes(&self) -> usize {
        self.undelivered_bytes.load(Ordering::SeqCst)
    }
}

/// Forwards replies to the client until it is cut; later replies of the backend are only counted.
async fn forward_replies(
    mut server: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    cut: CancellationToken,
    undelivered_bytes: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 65_536];
    while let Some(Ok(count @ 1..)) = cut.run_until_cancelled(server.read(&mut buffer)).await {
        if client.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    drop(client);
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        undelivered_bytes.fetch_add(count, Ordering::SeqCst);
    }
}

/// Forwards requests to the server; held requests are sent later, even if their client is gone by then.
async fn forward_requests(
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    cut: CancellationToken,
    holding: Arc<AtomicBool>,
    held_bytes: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 65_536];
    while let Some(Ok(count @ 1..)) = cut.run_until_cancelled(client.read(&mut buffer)).await {
        let sent = buffer[..count].to_vec();
        if holding.load(Ordering::SeqCst) {
            held_bytes.fetch_add(count, Ordering::SeqCst);
        }
        while holding.load(Ordering::SeqCst) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        if server.write_all(&sent).await.is_err() {
            return;
        }
    }
    drop(client);
    if cut.is_cancelled() {
        // Keeps the connection to the server open until the test ends.
        std::future::pending::<()>().await;
    }
}

//! A network between the writer and Postgres that can be cut, or that keeps what it was given.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::harness::postgres::Database;
use crate::harness::program::Folder;

/// How often something that is held looks whether it may go on.
const STEP: Duration = Duration::from_millis(5);

#[derive(Clone)]
pub(super) struct Proxy {
    folder: Arc<Folder>,
    database: String,
    /// Cuts the clients that are connected now; the server does not notice.
    cut: Arc<Mutex<CancellationToken>>,
    /// Whether what the clients that are connected now send is kept back.
    holding: Arc<Mutex<Arc<AtomicBool>>>,
    /// Bytes that backends have said to clients that were cut.
    unheard: Arc<AtomicUsize>,
    /// Bytes that are kept back, or were.
    kept_back: Arc<AtomicUsize>,
}

/// What a client had sent before it was cut.
pub(super) struct Kept(Arc<AtomicBool>);

impl Kept {
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
            unheard: Arc::default(),
            kept_back: Arc::default(),
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
                let kept_back = Arc::clone(&task.kept_back);
                tokio::spawn(requests(read, to_server, cut.clone(), holding, kept_back));
                tokio::spawn(answers(from_server, write, cut, Arc::clone(&task.unheard)));
            }
        });
        proxy
    }

    pub(super) fn url(&self) -> String {
        format!("{}?host={}", self.database, self.folder.0.display())
    }

    /// The clients lose their connections; the backends go on with what they have.
    pub(super) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    /// From now on what clients send waits.
    pub(super) fn hold(&self) {
        self.holding.lock().unwrap().store(true, Ordering::SeqCst);
    }

    pub(super) fn release(&self) {
        self.holding.lock().unwrap().store(false, Ordering::SeqCst);
    }

    /// Cuts the clients; what they had sent stays on its way, and new ones get through.
    pub(super) fn cut_and_keep(&self) -> Kept {
        let kept = std::mem::take(&mut *self.holding.lock().unwrap());
        self.cut();
        Kept(kept)
    }

    pub(super) fn kept_back(&self) -> usize {
        self.kept_back.load(Ordering::SeqCst)
    }

    pub(super) fn unheard(&self) -> usize {
        self.unheard.load(Ordering::SeqCst)
    }
}

/// Towards the client: nothing more comes through once it is cut, but the backend may go on saying things.
async fn answers(
    mut server: impl AsyncRead + Unpin,
    mut client: impl AsyncWrite + Unpin,
    cut: CancellationToken,
    unheard: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 65_536];
    while let Some(Ok(count @ 1..)) = cut.run_until_cancelled(server.read(&mut buffer)).await {
        if client.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    drop(client);
    while let Ok(count @ 1..) = server.read(&mut buffer).await {
        unheard.fetch_add(count, Ordering::SeqCst);
    }
}

/// Towards the server: what is held goes out later, even if its client is gone by then.
async fn requests(
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    cut: CancellationToken,
    holding: Arc<AtomicBool>,
    kept_back: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 65_536];
    while let Some(Ok(count @ 1..)) = cut.run_until_cancelled(client.read(&mut buffer)).await {
        let sent = buffer[..count].to_vec();
        if holding.load(Ordering::SeqCst) {
            kept_back.fetch_add(count, Ordering::SeqCst);
        }
        while holding.load(Ordering::SeqCst) {
            tokio::time::sleep(STEP).await;
        }
        if server.write_all(&sent).await.is_err() {
            return;
        }
    }
    drop(client);
    if cut.is_cancelled() {
        // The server believes in its client until the test is over.
        std::future::pending::<()>().await;
    }
}

//! The load generator. It sends requests as fast as its connections allow. It must use little CPU time, because it
//! shares the machine with the server under test.
//!
//! All connections of a load run on one thread, so that no connection moves between CPU cores.

mod connection;
pub(crate) mod failover;
pub(crate) mod latency;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::{JoinSet, LocalSet};

use crate::bare_server::RecordedResponse;
use crate::resource_usage::{ResourceMonitor, ResourceUsage};
use crate::samples::{LoadResult, LoadSample};
use connection::{LoadConnection, RequestKey};
use worker::LoadWorker;

/// Number of connections that open wallets in parallel before a measurement.
const OPENING_CONNECTIONS: usize = 64;

/// Target of a load: the wallets, games and users that its requests refer to, with the number of acknowledged deposits
/// into each wallet. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LoadTarget {
    wallets: Arc<[TargetWallet]>,
    store: Arc<TargetStore>,
    /// Exchange users with their tokens, one per connection.
    traders: Arc<[(i64, String)]>,
}

struct TargetWallet {
    id: i64,
    deposits: AtomicI64,
}

/// The games and users of a store. Each user buys each game at most once.
#[derive(Default)]
pub(crate) struct TargetStore {
    games: Vec<i64>,
    shoppers: Vec<Shopper>,
    /// `ETag` of the game list.
    list_tag: String,
}

struct Shopper {
    token: String,
    bought: AtomicUsize,
}

/// Request that a load repeats.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LoadOperation {
    /// Deposit of one euro.
    Deposit,
    Balance,
    History,
    /// Transfer of one euro to another wallet.
    Transfer,
    /// Hold of one euro, then its capture into another wallet: two requests.
    HoldAndCapture,
    /// List of 100 games.
    Games,
    /// List of 100 games that the client already has, so that the response is 304.
    UnchangedGames,
    /// Purchase of a game. Each connection acts as a different user.
    Purchase,
    /// Order to buy crypto for one euro. Each connection acts as a different user.
    Order,
    /// Login that fails, with a new user name and a new client address each time.
    Login,
}

/// A load on one server: the request to repeat, the number of connections, and the duration.
#[derive(Debug, Clone)]
pub(crate) struct LoadSpec {
    pub address: String,
    pub operation: LoadOperation,
    pub connections: usize,
    /// Number of wallets that the requests use: the first wallets of the [`LoadTarget`].
    pub wallets: usize,
    pub duration: Duration,
}

/// Load that sends each request at a scheduled time, over connections that are already open.
pub(crate) struct PacedLoad(Vec<LoadWorker>);

impl LoadOperation {
    /// Returns the HTTP status that a response should have.
    const fn status(self) -> u16 {
        match self {
            Self::Login => 401,
            Self::UnchangedGames => 304,
            Self::Deposit | Self::Balance | Self::History | Self::Games | Self::Order => 200,
            Self::Transfer | Self::HoldAndCapture | Self::Purchase => 201,
        }
    }
}

impl LoadTarget {
    /// Opens empty wallets.
    pub(crate) async fn open(address: &str, wallets: u32) -> anyhow::Result<Self> {
        Self::open_with_balance(address, wallets, 0).await
    }

    /// Opens wallets with an initial balance.
    pub(crate) async fn open_with_balance(
        address: &str,
        wallets: u32,
        euros: u32,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for first in 0..OPENING_CONNECTIONS {
            let address = address.to_owned();
            let count = (first..wallets as usize).step_by(OPENING_CONNECTIONS).count();
            tasks.spawn(async move { open_wallets(&address, count, euros).await });
        }
        let mut ids = Vec::new();
        while let Some(opened) = tasks.join_next().await {
            ids.append(&mut opened??);
        }
        let wallets = ids.into_iter().map(|id| TargetWallet { id, deposits: AtomicI64::new(0) });
        let (store, traders) = (Arc::default(), Arc::default());
        Ok(Self { wallets: wallets.collect(), store, traders })
    }

    /// Adds a store to the load target.
    pub(crate) fn with_store(self, store: TargetStore) -> Self {
        Self { store: Arc::new(store), ..self }
    }

    /// Adds exchange users to the load target.
    pub(crate) fn with_traders(self, traders: Vec<(i64, String)>) -> Self {
        Self { traders: traders.into(), ..self }
    }

    pub(crate) fn wallet_ids(&self) -> impl ExactSizeIterator<Item = i64> {
        self.wallets.iter().map(|wallet| wallet.id)
    }

    /// Number of acknowledged deposits into each wallet.
    pub(crate) fn deposit_counts(&self) -> impl Iterator<Item = i64> {
        self.wallets.iter().map(|wallet| wallet.deposits.load(Ordering::Relaxed))
    }

    /// Total number of acknowledged deposits into all wallets.
    pub(crate) fn acknowledged_deposits(&self) -> u64 {
        self.deposit_counts().sum::<i64>().unsigned_abs()
    }

    /// Adds `deposits` to the number of acknowledged deposits into the wallet at `index`.
    pub(crate) fn count_deposits(&self, index: usize, deposits: i64) {
        self.wallets[index].deposits.fetch_add(deposits, Ordering::Relaxed);
    }

    pub(crate) fn store(&self) -> &TargetStore {
        &self.store
    }

    /// Returns the current position in the ledger, after which a subscriber can resume.
    pub(crate) async fn position(&self, address: &str) -> anyhow::Result<String> {
        let mut connection = LoadConnection::open(address).await?;
        connection.write_get(format_args!("/wallet/balance/{}", self.wallets[0].id));
        let status = connection.exchange().await?;
        ensure!(status == 200, "reading a balance returned {status}: {}", connection.body());
        let position = connection.header("book-position").context("a read has no position")?;
        Ok(position.to_owned())
    }

    /// Makes a deposit, and returns the response.
    pub(crate) async fn record_deposit(&self, address: &str) -> anyhow::Result<RecordedResponse> {
        let mut connection = LoadConnection::open(address).await?;
        connection.write_deposit(self.wallets[0].id, RequestKey::random());
        let status = connection.exchange().await?;
        ensure!(status == 200, "a deposit returned {status}: {}", connection.body());
        self.count_deposits(0, 1);
        let headers = connection.headers();
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
        Ok(RecordedResponse { headers: headers.collect(), body: connection.body().to_owned() })
    }

    /// Returns a target with the same wallets, but with its own counts of acknowledged deposits, which start at zero.
    pub(crate) fn with_separate_counts(&self) -> Self {
        let wallet = |id| TargetWallet { id, deposits: AtomicI64::new(0) };
        Self { wallets: self.wallet_ids().map(wallet).collect(), ..self.clone() }
    }

    /// Runs one load.
    pub(crate) async fn run(
        &self,
        monitor: &ResourceMonitor,
        spec: LoadSpec,
    ) -> anyhow::Result<LoadSample> {
        let ([result], usage) = self.run_all(monitor, [spec]).await?;
        Ok(LoadSample { result, usage })
    }

    /// Runs several loads at once; all of them start once every connection is open.
    pub(crate) async fn run_all<const N: usize>(
        &self,
        monitor: &ResourceMonitor,
        specs: [LoadSpec; N],
    ) -> anyhow::Result<([LoadResult; N], ResourceUsage)> {
        let (target, monitor) = (self.clone(), monitor.clone());
        let (results, usage) = on_one_thread(async move || {
            let mut loads = Vec::new();
            for spec in specs {
                let connections = connect(&spec).await?;
                loads.push(target.clone().run_connected(spec, connections));
            }
            monitor.measure(futures_util::future::try_join_all(loads)).await
        })
        .await?;
        let results = results.try_into().ok().context("each load has a result")?;
        Ok((results, usage))
    }

    /// Opens the connections of a load whose requests are sent at scheduled times.
    pub(crate) async fn connect_paced(&self, spec: &LoadSpec) -> anyhow::Result<PacedLoad> {
        let connections = connect(spec).await?.into_iter().enumerate();
        let worker = |numbered| LoadWorker::new(self.clone(), numbered, spec);
        Ok(PacedLoad(connections.map(worker).collect()))
    }

    async fn run_connected(
        self,
        spec: LoadSpec,
        connections: Vec<LoadConnection>,
    ) -> anyhow::Result<LoadResult> {
        let (began, end) = (Instant::now(), Instant::now() + spec.duration);
        let mut tasks = JoinSet::new();
        for numbered in connections.into_iter().enumerate() {
            let worker = LoadWorker::new(self.clone(), numbered, &spec);
            tasks.spawn(worker.run_until(end));
        }
        LoadResult::join(tasks, began, 1.0).await
    }
}

impl TargetStore {
    /// Creates a store. `list_tag` is the `ETag` of its game list; each token belongs to a different user.
    pub(crate) fn new(games: Vec<i64>, tokens: Vec<String>, list_tag: String) -> Self {
        let shopper = |token| Shopper { token, bought: AtomicUsize::new(0) };
        Self { games, shoppers: tokens.into_iter().map(shopper).collect(), list_tag }
    }

    /// Number of purchases that the users have made.
    pub(crate) fn purchases(&self) -> usize {
        self.shoppers.iter().map(|shopper| shopper.bought.load(Ordering::Relaxed)).sum()
    }

    /// Returns the game that a shopper buys next, and the token of the shopper.
    fn next_purchase(&self, shopper: usize) -> anyhow::Result<(i64, &str)> {
        let shopper = self.shoppers.get(shopper).context("each connection needs a shopper")?;
        let game = self.games.get(shopper.bought.fetch_add(1, Ordering::Relaxed));
        Ok((*game.context("a shopper has bought every game: add more")?, &shopper.token))
    }
}

impl PacedLoad {
    /// Runs the load. `pace` takes the number of a connection, and returns a function that waits until the next request
    /// of this connection is due. That function returns the time from which the latency of the request is measured, or
    /// `None` when the load is over.
    pub(crate) async fn run<W>(self, pace: impl Fn(usize) -> W) -> anyhow::Result<LoadResult>
    where
        W: AsyncFnMut() -> Option<Instant>,
    {
        let began = Instant::now();
        let workers = self.0.into_iter().enumerate();
        let workers = workers.map(|(number, worker)| worker.run_paced(pace(number)));
        let latencies = futures_util::future::try_join_all(workers).await?;
        Ok(LoadResult::since(began, latencies.into_iter().sum()))
    }
}

/// Runs all tasks of a load on one separate thread, so that the tasks can share state without locks.
pub(crate) async fn on_one_thread<T: Send + 'static>(
    load: impl AsyncFnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, load())
    });
    thread.await?
}

/// Returns a function that waits until the next request of connection `number` is due. Together, `connections`
/// connections send `per_second` requests per second at fixed times, so that the latencies show whether the server
/// falls behind. `is_over` takes the time at which a request is due, and returns whether the load is over by then.
pub(crate) fn at_fixed_times(
    per_second: u32,
    connections: usize,
    number: usize,
    is_over: impl Fn(Instant) -> bool,
) -> impl AsyncFnMut() -> Option<Instant> {
    let [connections, number] =
        [connections, number].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    let interval = Duration::from_secs(1) * connections / per_second;
    let mut next = Instant::now() + interval * number / connections;
    async move || {
        let due = next;
        next += interval;
        if is_over(due) {
            return None;
        }
        tokio::time::sleep_until(due.into()).await;
        (!is_over(due)).then_some(due)
    }
}

async fn connect(spec: &LoadSpec) -> anyhow::Result<Vec<LoadConnection>> {
    let mut connections = Vec::with_capacity(spec.connections);
    for _ in 0..spec.connections {
        connections.push(LoadConnection::open(&spec.address).await?);
    }
    Ok(connections)
}

async fn open_wallets(address: &str, count: usize, euros: u32) -> anyhow::Result<Vec<i64>> {
    let mut connection = LoadConnection::open(address).await?;
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        connection.write_open_wallet(euros);
        let status = connection.exchange().await?;
        ensure!(status == 201, "opening a wallet returned {status}: {}", connection.body());
        let wallet: serde_json::Value = serde_json::from_str(connection.body())?;
        let id = wallet["id"].as_str().and_then(|id| id.parse().ok());
        ids.push(id.context("a wallet in a response has no id")?);
    }
    Ok(ids)
}

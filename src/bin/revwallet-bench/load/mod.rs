//! The load generator: sends requests as fast as its connections allow, at little cost, because it shares the machine
//! with the server under test.
//!
//! All connections of a load run on one thread, so that none moves from core to core.

mod connection;
pub(crate) mod latency;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use crate::resource_usage::{ResourceMonitor, ResourceUsage};
use crate::samples::{LoadResult, LoadSample};
use connection::LoadConnection;
use worker::LoadWorker;

/// Connections that open wallets in parallel.
const OPENING_CONNECTIONS: usize = 64;

/// Wallets of one book, with the deposits into each that were acknowledged. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LoadTarget {
    wallets: Arc<[TargetWallet]>,
}

struct TargetWallet {
    id: i64,
    deposits: AtomicI64,
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
    /// Login that fails, each time with a new user name and from a new address.
    Login,
}

/// A load on one server.
#[derive(Debug, Clone)]
pub(crate) struct LoadSpec {
    pub address: String,
    pub operation: LoadOperation,
    pub connections: usize,
    /// The load spreads over this many wallets, the first of the target.
    pub wallets: usize,
    pub duration: Duration,
}

impl LoadOperation {
    /// Status of a response that is as expected.
    const fn status(self) -> u16 {
        match self {
            Self::Login => 401,
            Self::Deposit | Self::Balance | Self::History => 200,
            Self::Transfer | Self::HoldAndCapture => 201,
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
        Ok(Self { wallets: wallets.collect() })
    }

    pub(crate) fn wallet_ids(&self) -> impl ExactSizeIterator<Item = i64> {
        self.wallets.iter().map(|wallet| wallet.id)
    }

    /// Number of acknowledged deposits of each wallet.
    pub(crate) fn deposit_counts(&self) -> impl Iterator<Item = i64> {
        self.wallets.iter().map(|wallet| wallet.deposits.load(Ordering::Relaxed))
    }

    /// Number of acknowledged deposits of all wallets.
    pub(crate) fn acknowledged_deposits(&self) -> u64 {
        self.deposit_counts().sum::<i64>().unsigned_abs()
    }

    /// Counts deposits into the wallet at `index` that were acknowledged.
    pub(crate) fn count_deposits(&self, index: usize, deposits: i64) {
        self.wallets[index].deposits.fetch_add(deposits, Ordering::Relaxed);
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

    /// Runs several loads at once; all of them start when every connection is open.
    pub(crate) async fn run_all<const N: usize>(
        &self,
        monitor: &ResourceMonitor,
        specs: [LoadSpec; N],
    ) -> anyhow::Result<([LoadResult; N], ResourceUsage)> {
        let (target, monitor) = (self.clone(), monitor.clone());
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut loads = Vec::new();
                for spec in specs {
                    let connections = connect(&spec).await?;
                    loads.push(target.clone().run_connected(spec, connections));
                }
                monitor.measure(futures_util::future::try_join_all(loads)).await
            })
        });
        let (results, usage) = thread.await??;
        let results = results.try_into().ok().context("each load has a result")?;
        Ok((results, usage))
    }

    async fn run_connected(
        self,
        spec: LoadSpec,
        connections: Vec<LoadConnection>,
    ) -> anyhow::Result<LoadResult> {
        let (began, end) = (Instant::now(), Instant::now() + spec.duration);
        let mut tasks = JoinSet::new();
        for connection in connections {
            let worker = LoadWorker::new(self.clone(), connection, spec.operation, spec.wallets);
            tasks.spawn(worker.run_until(end));
        }
        LoadResult::join(tasks, began, 1.0).await
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

//! Deposits while servers are killed: a deposit without a response is repeated, with its key, on another server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::JoinSet;

use super::connection::{LoadConnection, RequestKey};
use super::latency::LatencyHistogram;
use super::{LoadTarget, on_one_thread};
use crate::samples::LoadResult;

/// Time before a deposit is repeated, so that its client leaves the processor to the servers.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Longest time until a deposit is acknowledged.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// Addresses of the servers that run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerList(Arc<Mutex<Vec<String>>>);

/// Deposits of a load with failover.
pub(crate) struct FailoverResult {
    /// Deposits whose first request was answered.
    pub answered: LoadResult,
    /// Deposits that were repeated, from their first request to their acknowledgement.
    pub repeated: LatencyHistogram,
}

/// Sends deposits, each after the acknowledgement of the previous deposit.
struct FailoverWorker {
    target: LoadTarget,
    servers: ServerList,
    /// Connection, or `None` after it has failed.
    connection: Option<LoadConnection>,
    rng: fastrand::Rng,
    next_key: RequestKey,
    answered: LatencyHistogram,
    repeated: LatencyHistogram,
}

impl ServerList {
    pub(crate) fn add(&self, address: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(address.to_owned());
    }

    pub(crate) fn remove(&self, address: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other != address);
    }

    fn choose(&self, rng: &mut fastrand::Rng) -> Option<String> {
        rng.choice(&*self.0.lock().unwrap_or_else(PoisonError::into_inner)).cloned()
    }
}

impl LoadTarget {
    /// Runs deposits on all servers of the list, as long as `duration`.
    pub(crate) async fn deposit_with_failover(
        &self,
        servers: &ServerList,
        connections: usize,
        duration: Duration,
    ) -> anyhow::Result<FailoverResult> {
        let (target, servers) = (self.clone(), servers.clone());
        on_one_thread(async move || {
            let (began, end) = (Instant::now(), Instant::now() + duration);
            let mut tasks = JoinSet::new();
            for _ in 0..connections {
                let worker = FailoverWorker::new(target.clone(), servers.clone());
                tasks.spawn(worker.run_until(end));
            }
            let (mut answered, mut repeated) = (Vec::new(), Vec::new());
            while let Some(worker) = tasks.join_next().await {
                let worker = worker??;
                answered.push(worker.answered);
                repeated.push(worker.repeated);
            }
            let answered = LoadResult::since(began, answered.into_iter().sum());
            Ok(FailoverResult { answered, repeated: repeated.into_iter().sum() })
        })
        .await
    }
}

impl FailoverWorker {
    fn new(target: LoadTarget, servers: ServerList) -> Self {
        Self {
            target,
            servers,
            connection: None,
            rng: fastrand::Rng::new(),
            next_key: RequestKey::random(),
            answered: LatencyHistogram::default(),
            repeated: LatencyHistogram::default(),
        }
    }

    async fn run_until(mut self, end: Instant) -> anyhow::Result<Self> {
        while Instant::now() < end {
            self.deposit().await?;
        }
        Ok(self)
    }

    /// Sends a deposit until it is acknowledged.
    async fn deposit(&mut self) -> anyhow::Result<()> {
        let index = self.rng.usize(..self.target.wallets.len());
        let (wallet, key) = (self.target.wallets[index].id, self.next_key.take());
        let (sent_at, mut is_repeated) = (Instant::now(), false);
        while !self.try_deposit(wallet, key).await? {
            ensure!(sent_at.elapsed() < ACKNOWLEDGED_WITHIN, "a deposit is not acknowledged");
            is_repeated = true;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.target.count_deposits(index, 1);
        let latencies = if is_repeated { &mut self.repeated } else { &mut self.answered };
        latencies.record(sent_at.elapsed());
        Ok(())
    }

    /// Sends a deposit once. Returns whether it was acknowledged.
    async fn try_deposit(&mut self, wallet: i64, key: RequestKey) -> anyhow::Result<bool> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.connect().await {
                Some(connection) => connection,
                None => return Ok(false),
            },
        };
        connection.write_deposit(wallet, key);
        let Ok(status) = connection.exchange().await else { return Ok(false) };
        ensure!(matches!(status, 200 | 503), "a deposit returned {status}: {}", connection.body());
        self.connection = Some(connection);
        Ok(status == 200)
    }

    /// Connects to any of the servers.
    async fn connect(&mut self) -> Option<LoadConnection> {
        let address = self.servers.choose(&mut self.rng)?;
        LoadConnection::open(&address).await.ok()
    }
}

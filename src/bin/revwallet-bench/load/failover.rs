//! A load of deposits that continues while servers are killed. If its connection ends, a deposit is retried on another
//! server, with the same idempotency key.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::connection::{LoadConnection, RequestKey};
use super::latency::LatencyHistogram;
use super::{LoadTarget, at_fixed_times, on_one_thread};
use crate::samples::LoadResult;

/// Pause before a deposit is retried, so that the load generator leaves CPU time to the servers.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Longest time that a deposit may take, including retries. If it takes longer, the benchmark fails.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);

/// Addresses of the running servers. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServerList(Arc<Mutex<Vec<String>>>);

/// A load of deposits that are sent at fixed times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FailoverSpec {
    pub connections: usize,
    /// Deposits per second.
    pub rate: u32,
    pub duration: Duration,
}

/// Deposit latencies, each measured from the time when the deposit was due until its acknowledgment.
pub(crate) struct FailoverResult {
    /// Rate and latencies of the deposits whose connection stayed open, including those that the server refused with
    /// 503 and the load generator retried on the same server.
    pub served: LoadResult,
    /// Latencies of the deposits that were retried on another server because their connection ended.
    pub cut_off: LatencyHistogram,
}

/// Sends deposits on one connection at a time, each after the acknowledgment of the previous deposit.
struct FailoverWorker {
    target: LoadTarget,
    servers: ServerList,
    /// Connection, or `None` after it has failed.
    connection: Option<LoadConnection>,
    rng: fastrand::Rng,
    next_key: RequestKey,
    served: LatencyHistogram,
    cut_off: LatencyHistogram,
}

/// Outcome of a request.
enum Outcome {
    Acknowledged,
    /// The server refused the request with 503, so a retry may succeed.
    Refused,
    /// The connection has ended, or could not be opened.
    CutOff,
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
    /// Sends deposits to all servers in the list. The list may change while the load runs.
    pub(crate) async fn deposit_with_failover(
        &self,
        servers: &ServerList,
        spec: FailoverSpec,
    ) -> anyhow::Result<FailoverResult> {
        let (target, servers) = (self.clone(), servers.clone());
        on_one_thread(async move || {
            let FailoverSpec { connections, rate, duration } = spec;
            let (began, end) = (Instant::now(), Instant::now() + duration);
            let workers = (0..connections).map(|number| {
                let pace = at_fixed_times(rate, connections, number, move |due| due >= end);
                FailoverWorker::new(target.clone(), servers.clone()).run(pace)
            });
            let workers = futures_util::future::try_join_all(workers).await?;
            let (served, cut_off): (Vec<_>, Vec<_>) =
                workers.into_iter().map(|worker| (worker.served, worker.cut_off)).unzip();
            let served = LoadResult::since(began, served.into_iter().sum());
            Ok(FailoverResult { served, cut_off: cut_off.into_iter().sum() })
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
            served: LatencyHistogram::default(),
            cut_off: LatencyHistogram::default(),
        }
    }

    async fn run(mut self, mut pace: impl AsyncFnMut() -> Option<Instant>) -> anyhow::Result<Self> {
        while let Some(due) = pace().await {
            let acknowledged = tokio::time::timeout(ACKNOWLEDGED_WITHIN, self.deposit(due)).await;
            acknowledged.context("a deposit was not acknowledged in time")??;
        }
        Ok(self)
    }

    /// Sends a deposit until it is acknowledged.
    async fn deposit(&mut self, due: Instant) -> anyhow::Result<()> {
        let index = self.rng.usize(..self.target.wallets.len());
        let (wallet, key) = (self.target.wallets[index].id, self.next_key.take());
        let mut is_cut_off = false;
        loop {
            match self.try_deposit(wallet, key).await? {
                Outcome::Acknowledged => break,
                Outcome::Refused => {}
                Outcome::CutOff => is_cut_off = true,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.target.count_deposits(index, 1);
        let latencies = if is_cut_off { &mut self.cut_off } else { &mut self.served };
        latencies.record(due.elapsed());
        Ok(())
    }

    /// Sends a deposit once.
    async fn try_deposit(&mut self, wallet: i64, key: RequestKey) -> anyhow::Result<Outcome> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.connect().await {
                Some(connection) => connection,
                None => return Ok(Outcome::CutOff),
            },
        };
        connection.write_deposit(wallet, key);
        let Ok(status) = connection.exchange().await else { return Ok(Outcome::CutOff) };
        ensure!(matches!(status, 200 | 503), "a deposit returned {status}: {}", connection.body());
        self.connection = Some(connection);
        Ok(if status == 200 { Outcome::Acknowledged } else { Outcome::Refused })
    }

    /// Connects to a random server in the list.
    async fn connect(&mut self) -> Option<LoadConnection> {
        let address = self.servers.choose(&mut self.rng)?;
        LoadConnection::open(&address).await.ok()
    }
}

//! A worker of the load generator, which sends the requests of one connection.

use std::time::Instant;

use anyhow::{Context, ensure};

use super::connection::{LoadConnection, RequestKey};
use super::latency::LatencyHistogram;
use super::{LoadOperation, LoadSpec, LoadTarget};

/// Path of the game list.
const GAMES: &str = "/api/games?limit=100";

/// Sends requests on one connection, each after the response to the previous request.
pub(super) struct LoadWorker {
    target: LoadTarget,
    connection: LoadConnection,
    /// Number of the connection.
    number: usize,
    operation: LoadOperation,
    wallets: usize,
    rng: fastrand::Rng,
    next_key: RequestKey,
    sent_at: Instant,
    latencies: LatencyHistogram,
}

impl LoadWorker {
    pub(super) fn new(
        target: LoadTarget,
        (number, connection): (usize, LoadConnection),
        spec: &LoadSpec,
    ) -> Self {
        Self {
            target,
            connection,
            number,
            operation: spec.operation,
            wallets: spec.wallets,
            rng: fastrand::Rng::new(),
            next_key: RequestKey::random(),
            sent_at: Instant::now(),
            latencies: LatencyHistogram::default(),
        }
    }

    pub(super) async fn run_until(mut self, end: Instant) -> anyhow::Result<LatencyHistogram> {
        self.sent_at = Instant::now();
        while self.sent_at < end {
            self.repeat().await?;
        }
        Ok(self.latencies)
    }

    /// Sends a request after each `wait`, until `wait` returns `None`. The latency of a request is measured from the
    /// `Instant` that `wait` yields.
    pub(super) async fn run_paced(
        mut self,
        mut wait: impl AsyncFnMut() -> Option<Instant>,
    ) -> anyhow::Result<LatencyHistogram> {
        while let Some(due) = wait().await {
            self.sent_at = due;
            self.repeat().await?;
        }
        Ok(self.latencies)
    }

    /// Performs the operation once, on a random wallet.
    async fn repeat(&mut self) -> anyhow::Result<()> {
        let index = self.rng.usize(..self.wallets);
        let wallet = self.target.wallets[index].id;
        let key = self.next_key.take();
        match self.operation {
            LoadOperation::Deposit => self.connection.write_deposit(wallet, key),
            LoadOperation::Balance => {
                self.connection.write_get(format_args!("/wallet/balance/{wallet}"));
            }
            LoadOperation::History => {
                self.connection.write_get(format_args!("/wallet/{wallet}/history?limit=5"));
            }
            LoadOperation::Transfer => {
                let other = self.other_wallet(index);
                self.connection.write_transfer(wallet, other, key);
            }
            LoadOperation::HoldAndCapture => self.connection.write_hold(wallet, key),
            LoadOperation::Games => self.connection.write_get(format_args!("{GAMES}")),
            LoadOperation::UnchangedGames => {
                self.connection.write_conditional_get(GAMES, &self.target.store.list_tag);
            }
            LoadOperation::Purchase => {
                let (game, token) = self.target.store.next_purchase(self.number)?;
                self.connection.write_purchase(game, token, key);
            }
            LoadOperation::Order => {
                let trader = self.target.traders.get(self.number);
                let (user, token) = trader.context("each connection needs a user")?;
                self.connection.write_order(*user, token, key);
            }
            LoadOperation::Login => self.connection.write_login(key),
        }
        self.exchange(self.operation.status()).await?;
        match self.operation {
            LoadOperation::Deposit => self.target.count_deposits(index, 1),
            LoadOperation::HoldAndCapture => {
                let (other, key) = (self.other_wallet(index), self.next_key.take());
                self.connection.write_capture_of_last_hold(other, key)?;
                self.exchange(200).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends the request in the buffer of the connection, and records the latency of the response.
    async fn exchange(&mut self, expected: u16) -> anyhow::Result<()> {
        let status = self.connection.exchange().await?;
        ensure!(
            status == expected,
            "{:?} returned {status} instead of {expected}: {}",
            self.operation,
            self.connection.body()
        );
        let answered_at = Instant::now();
        self.latencies.record(answered_at - self.sent_at);
        self.sent_at = answered_at;
        Ok(())
    }

    /// Returns the id of a random wallet other than the wallet at `index`.
    fn other_wallet(&mut self, index: usize) -> i64 {
        let offset = self.rng.usize(1..self.wallets);
        self.target.wallets[(index + offset) % self.wallets].id
    }
}

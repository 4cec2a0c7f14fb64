//! Measures deposits while thousands of clients reconnect at once and resume their subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;

use super::{CONNECTS_PER_SECOND, SETTINGS, TURNS, topics};
use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::{LoadOperation, LoadSpec, LoadTarget, PacedLoad, at_fixed_times, on_one_thread};
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::resource_usage::ResourceMonitor;
use crate::samples::{LoadResult, LoadSample, median, median_sample};
use crate::subscribers::{SubscriberSpec, Subscribers};

const CLIENTS: u32 = 10_000;

/// Number of wallets whose topics the clients subscribe to.
const WALLETS: usize = 100;

/// Time over which the clients reconnect.
const RECONNECT_TIME: Duration = Duration::from_secs(2);

/// Deposits per second.
const DEPOSITS: u32 = 500;
/// Number of connections that send the deposits.
const DEPOSIT_CONNECTIONS: usize = 32;

/// A server, and the wallets into which deposits are made while clients reconnect.
#[derive(Clone)]
struct Reconnection {
    address: String,
    target: LoadTarget,
    /// Whether every client has reconnected.
    is_over: Arc<AtomicBool>,
}

pub(super) async fn measure(
    context: &BenchContext,
    book: &BenchBook,
    target: &LoadTarget,
    section: &mut ReportSection,
) -> anyhow::Result<()> {
    let mut samples = Vec::new();
    for turn in 1..=TURNS {
        tracing::info!(
            "measuring deposits while {CLIENTS} clients reconnect, round {turn} of {TURNS}"
        );
        let server = context.start_server_with(book, &SETTINGS).await?;
        let (address, target) = (server.address.clone(), target.clone());
        let reconnection = Reconnection { address, target, is_over: Arc::default() };
        samples.push(reconnection.run(context.monitor(&[server.id()])).await?);
        server.kill().await?;
    }
    let p99 = median(samples.iter().map(LoadSample::p99_ms).collect());
    let label = format!("p99 of deposits while {CLIENTS} clients reconnect within 2 s, ms");
    section.add_target(label, p99, TargetBound::AtMost(100.0));
    let label = format!("deposits while {CLIENTS} clients reconnect within 2 s");
    let sample = median_sample(samples)?;
    section.measurements.push(Measurement::new(label, DEPOSIT_CONNECTIONS, sample));
    Ok(())
}

impl Reconnection {
    /// Runs deposits and clients on separate threads, so that deposits do not wait for clients.
    async fn run(self, monitor: ResourceMonitor) -> anyhow::Result<LoadSample> {
        let (begin, has_begun) = oneshot::channel();
        let (end, has_ended) = oneshot::channel();
        let (clients, deposits) = (self.clone(), self);
        let clients = on_one_thread(async move || {
            let outcome = clients.reconnect(begin, has_ended).await;
            // The flag is set even if the clients failed, so that the deposits end.
            clients.is_over.store(true, Ordering::Relaxed);
            outcome
        });
        let deposits = on_one_thread(async move || {
            let load = deposits.connect().await?;
            has_begun.await.context("the clients did not connect")?;
            let sample = monitor.measure(deposits.deposit(load)).await?;
            // Sending fails only if the clients have failed, and their error is reported below.
            let _failed = end.send(());
            Ok(sample.into())
        });
        // The clients come first so that their error is reported: if the clients fail, the deposits fail as a
        // consequence.
        let ((), sample) = futures_util::try_join!(clients, deposits)?;
        Ok(sample)
    }

    /// Connects all clients, disconnects them, and connects them again. At the end, each client must have received
    /// every event.
    async fn reconnect(
        &self,
        begin: oneshot::Sender<()>,
        deposits_end: oneshot::Receiver<()>,
    ) -> anyhow::Result<()> {
        let spec = SubscriberSpec {
            address: self.address.clone(),
            count: CLIENTS as usize,
            topics: topics(&self.target, WALLETS),
            after: None,
            within: Duration::from_secs(1) * CLIENTS / CONNECTS_PER_SECOND,
        };
        let mut clients = Subscribers::start(&spec);
        clients.wait_until_subscribed().await?;
        let position = self.target.position(&self.address).await?;
        let before: Vec<i64> = self.target.deposit_counts().take(WALLETS).collect();
        let _failed = begin.send(());
        drop(clients);
        let spec = SubscriberSpec { after: Some(position), within: RECONNECT_TIME, ..spec };
        let mut clients = Subscribers::start(&spec);
        clients.wait_until_subscribed().await?;
        self.is_over.store(true, Ordering::Relaxed);
        deposits_end.await.context("the deposits failed")?;
        let after: Vec<i64> = self.target.deposit_counts().take(WALLETS).collect();
        let deposits = |wallet: usize| (after[wallet] - before[wallet]).unsigned_abs();
        clients.wait_until_each_has(|client| deposits(client % WALLETS)).await
    }

    /// Opens the connections that send deposits.
    async fn connect(&self) -> anyhow::Result<PacedLoad> {
        let spec = LoadSpec {
            address: self.address.clone(),
            operation: LoadOperation::Deposit,
            connections: DEPOSIT_CONNECTIONS,
            wallets: WALLETS,
            duration: RECONNECT_TIME,
        };
        self.target.connect_paced(&spec).await
    }

    async fn deposit(&self, load: PacedLoad) -> anyhow::Result<LoadResult> {
        // The deposits end when every client has reconnected, which takes longer than `RECONNECT_TIME`.
        let is_over = |_| self.is_over.load(Ordering::Relaxed);
        let pace = |number| at_fixed_times(DEPOSITS, DEPOSIT_CONNECTIONS, number, is_over);
        load.run(pace).await
    }
}

//! A load generator that costs little itself: it shares the machine with what it measures.
//!
//! It has a thread of its own, so that its connections are not passed from core to core.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::task::JoinSet;

use super::book::Dice;
use super::connection::Connection;
use super::histogram::Histogram;
use super::meter::{Meter, Used};
use super::report::Run;

/// Wallets that are opened at once while preparing.
const OPENING_MAX: usize = 64;

/// A wallet, and the deposits into it that were acknowledged.
struct Wallet {
    id: i64,
    deposits: AtomicI64,
}

/// Wallets to deposit into.
#[derive(Clone)]
pub(super) struct Target {
    wallets: Arc<[Wallet]>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask {
    Deposit,
    Balance,
    History,
    /// From one wallet to another.
    Transfer,
    /// Set aside, then captured for another: two requests.
    HoldAndCapture,
    /// In vain, by somebody else each time.
    Login,
}

impl Ask {
    const fn status(self) -> u16 {
        match self {
            Self::Login => 401,
            Self::Deposit | Self::Balance | Self::History => 200,
            Self::Transfer | Self::HoldAndCapture => 201,
        }
    }
}

/// So many connections to one server.
pub(super) struct Load<'a> {
    pub address: &'a str,
    pub ask: Ask,
    pub connections: usize,
    /// Spread over the first so many wallets.
    pub accounts: usize,
    pub time: Duration,
}

impl Target {
    /// Opens the wallets.
    pub(super) async fn prepare(address: &str, wallets: u32) -> anyhow::Result<Self> {
        Self::prepare_with(address, wallets, 0).await
    }

    /// The same with so many euros in each.
    pub(super) async fn prepare_with(
        address: &str,
        wallets: u32,
        euros: u32,
    ) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        for part in 0..OPENING_MAX {
            let address = address.to_owned();
            let count = (part..wallets as usize).step_by(OPENING_MAX).count();
            tasks.spawn(async move { open_wallets(&address, count, euros).await });
        }
        let mut opened = Vec::new();
        while let Some(part) = tasks.join_next().await {
            opened.append(&mut part??);
        }
        let wallets = opened.into_iter().map(|id| Wallet { id, deposits: AtomicI64::new(0) });
        Ok(Self { wallets: wallets.collect() })
    }

    pub(super) fn wallets(&self) -> impl ExactSizeIterator<Item = i64> {
        self.wallets.iter().map(|wallet| wallet.id)
    }

    /// How many deposits each wallet was acknowledged.
    pub(super) fn deposited(&self) -> impl Iterator<Item = i64> {
        self.wallets.iter().map(|wallet| wallet.deposits.load(Ordering::Relaxed))
    }

    /// How many deposits were acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.deposited().sum::<i64>().unsigned_abs()
    }

    /// Counts deposits that came by another way.
    pub(super) fn note(&self, place: usize, deposits: i64) {
        self.wallets[place].deposits.fetch_add(deposits, Ordering::Relaxed);
    }

    /// Asks as fast as the connections allow.
    pub(super) async fn load(&self, meter: &Meter, load: Load<'_>) -> anyhow::Result<(Run, Used)> {
        let ([run], used) = self.loads(meter, [load]).await?;
        Ok((run, used))
    }

    /// Several servers at once.
    pub(super) async fn loads<const N: usize>(
        &self,
        meter: &Meter,
        loads: [Load<'_>; N],
    ) -> anyhow::Result<([Run; N], Used)> {
        let clients = loads.map(|load| {
            let client = Client {
                target: self.clone(),
                address: load.address.to_owned(),
                ask: load.ask,
                accounts: load.accounts,
            };
            (client, load.connections, load.time)
        });
        let meter = meter.clone();
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut ready = Vec::new();
                for (client, connections, time) in clients {
                    ready.push((client.connect(connections).await?, client, time));
                }
                let before = meter.read();
                let running = ready.into_iter().map(|(open, client, time)| client.run(open, time));
                let runs = futures_util::future::try_join_all(running).await?;
                anyhow::Ok((runs, meter.read().since(&before)))
            })
        });
        let (runs, used) = thread.await??;
        let runs = runs.try_into().map_err(|_| anyhow::anyhow!("there is a run for each load"))?;
        Ok((runs, used))
    }
}

/// Who asks one server.
#[derive(Clone)]
struct Client {
    target: Target,
    address: String,
    ask: Ask,
    accounts: usize,
}

impl Client {
    async fn connect(&self, connections: usize) -> anyhow::Result<Vec<Connection>> {
        let mut open = Vec::new();
        for _ in 0..connections {
            open.push(Connection::open(&self.address).await?);
        }
        Ok(open)
    }

    async fn run(self, open: Vec<Connection>, time: Duration) -> anyhow::Result<Run> {
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for connection in open {
            tasks.spawn(self.clone().ask_until(connection, began + time));
        }
        let mut latencies = Histogram::default();
        while let Some(part) = tasks.join_next().await {
            latencies.add(&part??);
        }
        Ok(Run::new(latencies, 1.0, began.elapsed()))
    }

    async fn ask_until(
        self,
        mut connection: Connection,
        end: Instant,
    ) -> anyhow::Result<Histogram> {
        let mut latencies = Histogram::default();
        let seed = uuid::Uuid::new_v4().as_u64_pair();
        let (mut dice, mut number) = (Dice::new(seed.0), 0_u64);
        let mut sent = Instant::now();
        while sent < end {
            let wallet = &self.target.wallets[dice.below(self.accounts)];
            let id = wallet.id;
            number += 1;
            match self.ask {
                Ask::Deposit => connection.deposit(id, (seed.1, number)),
                Ask::Balance => connection.get(format_args!("/wallet/balance/{id}")),
                Ask::History => connection.get(format_args!("/wallet/{id}/history?limit=5")),
                Ask::Transfer => {
                    let to = self.other(&mut dice, id);
                    connection.transfer(id, to, (seed.1, number));
                }
                Ask::HoldAndCapture => connection.hold(id, (seed.1, number)),
                Ask::Login => connection.login((seed.1, number)),
            }
            let status = connection.exchange().await?;
            ensure!(
                status == self.ask.status(),
                "{:?} was answered {status}: {}",
                self.ask,
                connection.body()
            );
            if matches!(self.ask, Ask::Deposit) {
                wallet.deposits.fetch_add(1, Ordering::Relaxed);
            }
            let answered = Instant::now();
            latencies.record(answered - sent);
            sent = answered;
            if matches!(self.ask, Ask::HoldAndCapture) {
                number += 1;
                let to = self.other(&mut dice, id);
                connection.capture(to, (seed.1, number))?;
                let status = connection.exchange().await?;
                ensure!(status == 200, "a capture was answered {status}: {}", connection.body());
                let answered = Instant::now();
                latencies.record(answered - sent);
                sent = answered;
            }
        }
        Ok(latencies)
    }

    /// Some wallet that is not this one.
    fn other(&self, dice: &mut Dice, id: i64) -> i64 {
        let place = dice.below(self.accounts);
        let found = self.target.wallets[place].id;
        if found == id { self.target.wallets[(place + 1) % self.accounts].id } else { found }
    }
}

async fn open_wallets(address: &str, count: usize, euros: u32) -> anyhow::Result<Vec<i64>> {
    let mut connection = Connection::open(address).await?;
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        connection.open_wallet(euros);
        let status = connection.exchange().await?;
        ensure!(status == 201, "a wallet was answered {status}: {}", connection.body());
        let wallet: serde_json::Value = serde_json::from_str(connection.body())?;
        let id = wallet["id"].as_str().and_then(|id| id.parse().ok());
        ids.push(id.context("a wallet has an id")?);
    }
    Ok(ids)
}

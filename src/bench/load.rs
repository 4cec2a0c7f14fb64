//! A load generator that costs little itself: it shares the machine with what it measures.
//!
//! It has a thread of its own, so that its connections are not passed from core to core.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::book::Dice;
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

/// One connection that is kept open, with its buffers.
struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    body_at: usize,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new(), body_at: 0 })
    }

    fn body(&self) -> &str {
        std::str::from_utf8(&self.answer[self.body_at..]).unwrap_or_default()
    }

    fn open_wallet(&mut self, euros: u32) {
        let key = uuid::Uuid::new_v4().as_u64_pair();
        let body =
            format_args!(r#"{{"owner":"bench","currency":"EUR","initial_balance":{euros}}}"#);
        self.post("/wallet", key, body);
    }

    fn transfer(&mut self, from: i64, to: i64, key: (u64, u64)) {
        let body = format_args!(r#"{{"from":"{from}","to":"{to}","amount":"1.00"}}"#);
        self.post("/wallet/transfer", key, body);
    }

    fn hold(&mut self, wallet: i64, key: (u64, u64)) {
        let body = format_args!(r#"{{"id":"{wallet}","amount":"1.00"}}"#);
        self.post("/wallet/hold", key, body);
    }

    /// Captures the hold that the last answer tells of.
    fn capture(&mut self, to: i64, key: (u64, u64)) -> anyhow::Result<()> {
        let hold = self.body().strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next());
        let path = format!("/wallet/hold/{}/capture", hold.context("a hold has an id")?);
        self.post(&path, key, format_args!(r#"{{"to":"{to}"}}"#));
        Ok(())
    }

    /// A name that nobody has, from an address that nobody else has.
    fn login(&mut self, (one, other): (u64, u64)) {
        let body =
            format!(r#"{{"username":"nobody{one:x}-{other:x}","password":"not the right one"}}"#);
        let [a, b, c, ..] = one.wrapping_add(other).to_le_bytes();
        let _written = write!(
            self.request,
            "POST /api/users/login HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             x-forwarded-for: 10.{a}.{b}.{c}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len(),
        );
    }

    fn deposit(&mut self, wallet: i64, key: (u64, u64)) {
        let body = format_args!(r#"{{"id":"{wallet}","amount":"1.00"}}"#);
        self.post("/wallet/deposit", key, body);
    }

    fn post(&mut self, path: &str, key: (u64, u64), body: std::fmt::Arguments<'_>) {
        // Writing to a Vec cannot fail.
        let _written = write!(
            self.request,
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             idempotency-key: {:016x}-{:x}\r\ncontent-length: 00000000\r\n\r\n",
            key.0, key.1,
        );
        let head = self.request.len();
        let _written = self.request.write_fmt(body);
        // The length is known behind the body; there is room for eight digits.
        let length = format!("{:08}", self.request.len() - head);
        self.request[head - 12..head - 4].copy_from_slice(length.as_bytes());
    }

    fn get(&mut self, path: std::fmt::Arguments<'_>) {
        let _written = write!(self.request, "GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    }

    /// Sends the request that was written, and returns the status of the answer.
    async fn exchange(&mut self) -> anyhow::Result<u16> {
        self.stream.write_all(&self.request).await?;
        self.request.clear();
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the server closed the connection");
            }
            let Some(head) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let text = std::str::from_utf8(&self.answer[..head])?;
            // As the program writes it, and as nginx does.
            let length = text.split("ontent-length: ").nth(1);
            let length = length.or_else(|| text.split("ontent-Length: ").nth(1));
            let length = length.and_then(|rest| rest.lines().next());
            let length: usize = length.context("every answer has a length")?.parse()?;
            self.body_at = head + 4;
            if self.answer.len() >= self.body_at + length {
                return Ok(text.get(9..12).context("a status line")?.parse()?);
            }
        }
    }
}

/// Latencies in buckets that are at most three percent wide: 32 for each doubling.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Two to this power are the buckets of a doubling.
const FINENESS: u32 = 5;

impl Histogram {
    pub(super) fn record(&mut self, latency: Duration) {
        let bucket = bucket_of(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn count(&self) -> f64 {
        self.total as f64
    }

    /// In milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.total as f64 * share;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen as f64 >= wanted
        });
        reached.map_or(0.0, |bucket| end_of(bucket) as f64 / 1e6)
    }
}

/// The leading digits of a number of nanoseconds, in base two.
fn bucket_of(nanoseconds: u64) -> usize {
    let nanoseconds = nanoseconds.max(1 << FINENESS);
    let shift = nanoseconds.ilog2() - FINENESS;
    let digits = nanoseconds >> shift;
    usize::try_from((u64::from(shift) << FINENESS) + digits).unwrap_or(usize::MAX)
}

/// The longest latency of a bucket.
fn end_of(bucket: usize) -> u64 {
    let place = bucket as u64;
    let shift = (place >> FINENESS).saturating_sub(1);
    let digits = place - (shift << FINENESS);
    (digits + 1) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        for milliseconds in 1..=100 {
            histogram.record(Duration::from_millis(milliseconds));
        }

        for (share, truth) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = histogram.quantile(share);
            assert!((found / truth - 1.0).abs() < 0.04, "{share}: {found}");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for nanoseconds in (1..100_000).chain([1 << 40, (1 << 40) + 1]) {
            let bucket = bucket_of(nanoseconds);

            assert!(nanoseconds < end_of(bucket), "{nanoseconds}");
            assert!(bucket_of(end_of(bucket)) == bucket + 1, "{nanoseconds}");
        }
    }
}

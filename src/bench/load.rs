//! A load generator that costs little itself: it shares the machine with what it measures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::report::{Histogram, Run};

/// Wallets that are opened at once while preparing.
const OPENING_MAX: usize = 64;

/// A server with wallets to deposit into.
pub(super) struct Target {
    address: Arc<str>,
    wallets: Arc<[String]>,
}

impl Target {
    /// Opens the wallets.
    pub(super) async fn prepare(address: &str, wallets: u32) -> anyhow::Result<Self> {
        let address: Arc<str> = address.into();
        let mut tasks = JoinSet::new();
        for part in 0..OPENING_MAX {
            let address = Arc::clone(&address);
            let count = (part..wallets as usize).step_by(OPENING_MAX).count();
            tasks.spawn(async move { open_wallets(&address, count).await });
        }
        let mut opened = Vec::new();
        while let Some(part) = tasks.join_next().await {
            opened.append(&mut part??);
        }
        Ok(Self { address, wallets: opened.into() })
    }

    /// Deposits into the first `accounts` wallets as fast as the connections allow.
    pub(super) async fn deposits(
        &self,
        connections: usize,
        accounts: u32,
        time: Duration,
    ) -> anyhow::Result<Run> {
        let began = Instant::now();
        let end = began + time;
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (address, wallets) = (Arc::clone(&self.address), Arc::clone(&self.wallets));
            tasks.spawn(async move {
                let mut connection = Connection::open(&address).await?;
                let mut latencies = Histogram::default();
                while Instant::now() < end {
                    let key = uuid::Uuid::new_v4();
                    let wallet = &wallets[key.as_u128() as usize % accounts as usize];
                    let body = format!(r#"{{"id":"{wallet}","amount":"1.00"}}"#);
                    let sent = Instant::now();
                    let status = connection.post("/wallet/deposit", &key, &body).await?;
                    ensure!(
                        status == 200,
                        "a deposit was answered {status}: {}",
                        connection.body()
                    );
                    latencies.record(sent.elapsed());
                }
                anyhow::Ok(latencies)
            });
        }
        let mut latencies = Histogram::default();
        while let Some(part) = tasks.join_next().await {
            latencies.add(&part??);
        }
        Ok(Run::new(latencies, began.elapsed()))
    }
}

async fn open_wallets(address: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let mut connection = Connection::open(address).await?;
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        let body = r#"{"owner":"bench","currency":"EUR"}"#;
        let status = connection.post("/wallet", &uuid::Uuid::new_v4(), body).await?;
        ensure!(status == 201, "a wallet was answered {status}: {}", connection.body());
        let wallet: serde_json::Value = serde_json::from_str(connection.body())?;
        ids.push(wallet["id"].as_str().context("a wallet has an id")?.to_owned());
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

    async fn post(&mut self, path: &str, key: &uuid::Uuid, body: &str) -> anyhow::Result<u16> {
        use std::io::Write;
        self.request.clear();
        write!(
            self.request,
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             idempotency-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the server closed the connection");
            }
            let Some(head) = self.answer.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let text = std::str::from_utf8(&self.answer[..head])?;
            let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.context("every answer has a length")?.parse()?;
            self.body_at = head + 4;
            if self.answer.len() >= self.body_at + length {
                return Ok(text.get(9..12).context("a status line")?.parse()?);
            }
        }
    }
}

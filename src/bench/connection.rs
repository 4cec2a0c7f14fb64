//! One connection of the load generator, and what it asks.

use std::io::Write;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Kept open, with its buffers.
pub(super) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    body_at: usize,
}

impl Connection {
    pub(super) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), answer: Vec::new(), body_at: 0 })
    }

    pub(super) fn body(&self) -> &str {
        std::str::from_utf8(&self.answer[self.body_at..]).unwrap_or_default()
    }

    pub(super) fn open_wallet(&mut self, euros: u32) {
        let key = uuid::Uuid::new_v4().as_u64_pair();
        let body =
            format_args!(r#"{{"owner":"bench","currency":"EUR","initial_balance":{euros}}}"#);
        self.post("/wallet", key, body);
    }

    pub(super) fn transfer(&mut self, from: i64, to: i64, key: (u64, u64)) {
        let body = format_args!(r#"{{"from":"{from}","to":"{to}","amount":"1.00"}}"#);
        self.post("/wallet/transfer", key, body);
    }

    pub(super) fn hold(&mut self, wallet: i64, key: (u64, u64)) {
        let body = format_args!(r#"{{"id":"{wallet}","amount":"1.00"}}"#);
        self.post("/wallet/hold", key, body);
    }

    /// Captures the hold that the last answer tells of.
    pub(super) fn capture(&mut self, to: i64, key: (u64, u64)) -> anyhow::Result<()> {
        let hold = self.body().strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next());
        let path = format!("/wallet/hold/{}/capture", hold.context("a hold has an id")?);
        self.post(&path, key, format_args!(r#"{{"to":"{to}"}}"#));
        Ok(())
    }

    /// A name that nobody has, from an address that nobody else has.
    pub(super) fn login(&mut self, (one, other): (u64, u64)) {
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

    pub(super) fn deposit(&mut self, wallet: i64, key: (u64, u64)) {
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

    pub(super) fn get(&mut self, path: std::fmt::Arguments<'_>) {
        let _written = write!(self.request, "GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    }

    /// Sends the request that was written, and returns the status of the answer.
    pub(super) async fn exchange(&mut self) -> anyhow::Result<u16> {
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

//! A connection of the load generator. It implements only a minimum of HTTP/1.1, so that most CPU time is left to the
//! server under test.

use std::io::Write;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Number of digits reserved for the `Content-Length` value, which is known only after the body is written.
const LENGTH_DIGITS: usize = 8;

/// HTTP status `304 Not Modified`. Of the responses that a load receives, only those with this status have no body.
const NOT_MODIFIED: u16 = 304;

/// An HTTP connection, and the buffers that its requests and responses reuse.
pub(super) struct LoadConnection {
    stream: TcpStream,
    request: Vec<u8>,
    response: Vec<u8>,
    body_at: usize,
}

/// Idempotency key: the random prefix of a connection, and a request number.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestKey {
    prefix: u64,
    number: u64,
}

impl RequestKey {
    pub(super) fn random() -> Self {
        let (prefix, number) = uuid::Uuid::new_v4().as_u64_pair();
        Self { prefix, number }
    }

    /// Returns this key and advances to the next key.
    pub(super) fn take(&mut self) -> Self {
        let key = *self;
        self.number = self.number.wrapping_add(1);
        key
    }
}

impl LoadConnection {
    pub(super) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::new(), response: Vec::new(), body_at: 0 })
    }

    /// Body of the last response.
    pub(super) fn body(&self) -> &str {
        std::str::from_utf8(&self.response[self.body_at..]).unwrap_or_default()
    }

    /// Value of a header of the last response. `name` must be in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers().find_map(|(other, value)| (other == name).then_some(value))
    }

    /// Headers of the last response, with their names as the server wrote them.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let head = std::str::from_utf8(&self.response[..self.body_at]).unwrap_or_default();
        head.lines().filter_map(|line| line.split_once(": "))
    }

    pub(super) fn write_open_wallet(&mut self, euros: u32) {
        let body =
            format_args!(r#"{{"owner":"bench","currency":"EUR","initial_balance":{euros}}}"#);
        self.write_post("/wallet", RequestKey::random(), body);
    }

    pub(super) fn write_deposit(&mut self, wallet: i64, key: RequestKey) {
        let body = format_args!(r#"{{"id":"{wallet}","amount":"1.00"}}"#);
        self.write_post("/wallet/deposit", key, body);
    }

    pub(super) fn write_transfer(&mut self, from: i64, to: i64, key: RequestKey) {
        let body = format_args!(r#"{{"from":"{from}","to":"{to}","amount":"1.00"}}"#);
        self.write_post("/wallet/transfer", key, body);
    }

    pub(super) fn write_hold(&mut self, wallet: i64, key: RequestKey) {
        let body = format_args!(r#"{{"id":"{wallet}","amount":"1.00"}}"#);
        self.write_post("/wallet/hold", key, body);
    }

    /// Writes a request that captures the hold in the last response.
    pub(super) fn write_capture_of_last_hold(
        &mut self,
        to: i64,
        key: RequestKey,
    ) -> anyhow::Result<()> {
        let id = self.body().strip_prefix(r#"{"id":""#).and_then(|rest| rest.split('"').next());
        let path =
            format!("/wallet/hold/{}/capture", id.context("a hold in a response has no id")?);
        self.write_post(&path, key, format_args!(r#"{{"to":"{to}"}}"#));
        Ok(())
    }

    /// Writes a login. Its user name and client address are derived from the idempotency key, so they differ for each
    /// login.
    pub(super) fn write_login(&mut self, RequestKey { prefix, number }: RequestKey) {
        let body = format!(
            r#"{{"username":"unknown{prefix:x}-{number:x}","password":"not the right one"}}"#
        );
        let [a, b, c, ..] = prefix.wrapping_add(number).to_le_bytes();
        // Writing to a Vec cannot fail.
        let _written = write!(
            self.request,
            "POST /api/users/login HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n\
             x-forwarded-for: 10.{a}.{b}.{c}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len(),
        );
    }

    pub(super) fn write_get(&mut self, path: std::fmt::Arguments<'_>) {
        let _written = write!(self.request, "GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n");
    }

    pub(super) fn write_conditional_get(&mut self, path: &str, tag: &str) {
        let _written = write!(
            self.request,
            "GET {path} HTTP/1.1\r\nhost: bench\r\nif-none-match: {tag}\r\n\r\n"
        );
    }

    pub(super) fn write_purchase(&mut self, game: i64, token: &str, key: RequestKey) {
        let path = format!("/api/games/{game}/purchase");
        let credential = format_args!("authorization: Bearer {token}\r\n");
        self.write_post_with(&path, credential, key, format_args!("{{}}"));
    }

    pub(super) fn write_order(&mut self, user: i64, token: &str, key: RequestKey) {
        let path = format!("/exchange/buy/{user}");
        let credential = format_args!("authorization: Bearer {token}\r\n");
        self.write_post_with(&path, credential, key, format_args!("{{\"fiat_amount\":1}}"));
    }

    fn write_post(&mut self, path: &str, key: RequestKey, body: std::fmt::Arguments<'_>) {
        self.write_post_with(path, format_args!(""), key, body);
    }

    fn write_post_with(
        &mut self,
        path: &str,
        headers: std::fmt::Arguments<'_>,
        key: RequestKey,
        body: std::fmt::Arguments<'_>,
    ) {
        let _written = write!(
            self.request,
            "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{headers}\
             idempotency-key: {:016x}-{:x}\r\ncontent-length: {:0LENGTH_DIGITS$}\r\n\r\n",
            key.prefix, key.number, 0,
        );
        let body_at = self.request.len();
        let _written = self.request.write_fmt(body);
        let length = format!("{:0LENGTH_DIGITS$}", self.request.len() - body_at);
        let length_at = body_at - "\r\n\r\n".len() - LENGTH_DIGITS;
        self.request[length_at..][..LENGTH_DIGITS].copy_from_slice(length.as_bytes());
    }

    /// Sends the request in the buffer, reads the response and returns its status.
    pub(super) async fn exchange(&mut self) -> anyhow::Result<u16> {
        self.stream.write_all(&self.request).await?;
        self.request.clear();
        self.response.clear();
        loop {
            if self.stream.read_buf(&mut self.response).await? == 0 {
                bail!("the server closed the connection");
            }
            if let Some(status) = self.parse_response()? {
                return Ok(status);
            }
        }
    }

    /// Returns the status of the response, or `None` until the whole response has arrived.
    fn parse_response(&mut self) -> anyhow::Result<Option<u16>> {
        let Some(head_len) = self.response.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(None);
        };
        let head = std::str::from_utf8(&self.response[..head_len])?;
        let status = head.get(9..12).context("malformed status line")?.parse()?;
        self.body_at = head_len + 4;
        if status == NOT_MODIFIED {
            return Ok(Some(status));
        }
        // hyper and nginx capitalize the header name differently.
        let length = head.split("ontent-length: ").nth(1);
        let length = length.or_else(|| head.split("ontent-Length: ").nth(1));
        let length = length.and_then(|rest| rest.lines().next());
        let length: usize = length.context("a response has no Content-Length")?.parse()?;
        Ok((self.response.len() >= self.body_at + length).then_some(status))
    }
}

//! Limits on the wire: clients that misbehave cost little and do not affect honest clients.

mod bodies;
mod connections;
mod heads;
mod http_2;
mod pipelining;
mod stopping;

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::eventually;

/// A connection that sends exactly the bytes of a test.
struct RawClient {
    stream: TcpStream,
    /// Received bytes that were not consumed yet.
    received: Vec<u8>,
}

/// A response of HTTP/1.1.
#[derive(Debug)]
struct RawResponse {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl RawClient {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), received: Vec::new() }
    }

    /// Connects from another loopback address.
    async fn connect_from(local: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{local}:0").parse().unwrap()).unwrap();
        Self { stream: socket.connect(address).await.unwrap(), received: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends unless the server has closed the connection.
    async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _closed = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads the next response, which must have a length.
    async fn response(&mut self) -> RawResponse {
        let end = loop {
            let found = self.received.windows(4).position(|four| four == b"\r\n\r\n");
            match found {
                Some(end) => break end + 4,
                None => self.receive().await,
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.received.len() < length {
            self.receive().await;
        }
        let body = self.received.drain(..length).collect();
        RawResponse { status: head[9..12].parse().unwrap(), head, body }
    }

    async fn receive(&mut self) {
        let count = self.stream.read_buf(&mut self.received).await.unwrap();
        assert!(count > 0, "closed after: {}", String::from_utf8_lossy(&self.received));
    }

    /// Waits for the server to close the connection; returns whether it did.
    async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset also ends the connection.
        tokio::time::timeout(std::time::Duration::from_secs(20), self.stream.read_to_end(&mut rest))
            .await
            .is_ok()
    }
}

impl RawResponse {
    fn has(&self, line: &str) -> bool {
        self.head.lines().any(|one| one == line)
    }

    /// Asserts that this is the problem with that slug, and returns its body.
    fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.head);
        assert!(self.has("content-type: application/problem+json"), "{}", self.head);
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["type"], format!("/problems/{slug}"), "{body}");
        assert_eq!(body["status"], status);
        assert!(self.has(&format!("x-request-id: {}", body["trace_id"].as_str().unwrap())));
        body
    }
}

/// Returns the value of a series in the exposition.
fn metric(exposition: &str, series: &str) -> usize {
    let line = exposition.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

async fn closed_by(app: &crate::harness::TestApp, reason: &str) -> usize {
    let series = format!("wallet_http_connections_closed_total{{reason=\"{reason}\"}}");
    metric(&app.internal.get("/metrics").await.text, &series)
}

/// Waits until the server has closed at least `count` connections for that reason.
async fn eventually_closed(app: &crate::harness::TestApp, reason: &str, count: usize) {
    eventually(&format!("{count} connections are closed: {reason}"), async || {
        count <= closed_by(app, reason).await
    })
    .await;
}

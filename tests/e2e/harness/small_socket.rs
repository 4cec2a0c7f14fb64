//! A WebSocket client that takes about a kilobyte, for tests with thousands of them.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const BUFFER_BYTES: usize = 512;

const REQUEST: &str = "GET /ws HTTP/1.1\r\nhost: revwallet\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";

/// Opcodes of RFC 6455.
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Bit of the second byte that says that the payload is masked.
const MASKED: u8 = 0x80;

/// Second byte of a frame whose length follows in two bytes.
const LENGTH_OF_TWO_BYTES: u8 = 126;

pub struct SmallSocket(BufReader<TcpStream>);

impl SmallSocket {
    /// Opens a WebSocket at `/ws` without a credential.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(REQUEST.as_bytes()).await?;
        let mut stream = BufReader::with_capacity(BUFFER_BYTES, stream);
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if !line.starts_with("HTTP/1.1 101 ") {
            return Err(Error::new(ErrorKind::ConnectionRefused, line));
        }
        while line != "\r\n" {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self(stream))
    }

    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        self.write(TEXT, frame.to_string().as_bytes()).await
    }

    /// Returns the next text frame; none once the server has closed.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            let opcode = self.0.read_u8().await? & 0x0f;
            let length = match self.0.read_u8().await? {
                LENGTH_OF_TWO_BYTES => u64::from(self.0.read_u16().await?),
                127 => self.0.read_u64().await?,
                length => u64::from(length),
            };
            let mut payload = Vec::new();
            (&mut self.0).take(length).read_to_end(&mut payload).await?;
            match opcode {
                TEXT => return Ok(Some(serde_json::from_slice(&payload)?)),
                PING => self.write(PONG, &payload).await?,
                CLOSE => return Ok(None),
                _ => {}
            }
        }
    }

    /// Subscribes to a topic after a position, and returns the reply.
    pub async fn subscribe_after(&mut self, topic: &str, position: &str) -> Result<Option<Value>> {
        self.send(&json!({ "action": "subscribe", "topic": topic, "after": position })).await?;
        self.next().await
    }

    async fn write(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()).unwrap() {
            length @ 0..126 => frame.push(MASKED | u8::try_from(length).unwrap()),
            length => {
                frame.push(MASKED | LENGTH_OF_TWO_BYTES);
                frame.extend(length.to_be_bytes());
            }
        }
        // The key of the mask is zero, so the payload is its own masked form.
        frame.extend([0; 4]);
        frame.extend(payload);
        self.0.write_all(&frame).await
    }
}

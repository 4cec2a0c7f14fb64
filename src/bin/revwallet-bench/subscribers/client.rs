//! A WebSocket client. It implements only a minimum of RFC 6455, so that most CPU time is left to the server under
//! test.

use std::ops::Range;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Initial size of the receive buffer, in bytes.
const BUFFER_BYTES: usize = 8 * 1024;

/// First byte of each kind of WebSocket frame: the opcode, and the flag that marks the frame as a whole message.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// Flag in a WebSocket frame whose payload is masked; clients must mask their payloads. The mask is zero, so masking
/// changes no bytes.
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0; 4];

/// Second byte of a WebSocket frame whose payload length follows in the next two or eight bytes.
const LENGTH_IN_TWO: u8 = 126;
const LENGTH_IN_EIGHT: u8 = 127;

/// A connection, with the bytes that it has received.
pub(super) struct WebSocketClient {
    stream: TcpStream,
    received: Vec<u8>,
    /// Number of bytes at the start of `received` that were already parsed: the response to the upgrade, and whole
    /// frames.
    consumed: usize,
}

impl WebSocketClient {
    pub(super) async fn open(address: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = "GET /ws HTTP/1.1\r\nhost: bench\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
            sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut client = Self { stream, received: Vec::with_capacity(BUFFER_BYTES), consumed: 0 };
        loop {
            client.read().await?;
            let head = client.received.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(head_len) = head {
                ensure!(
                    client.received.starts_with(b"HTTP/1.1 101 "),
                    "the server refused a WebSocket: {}",
                    String::from_utf8_lossy(&client.received)
                );
                client.consumed = head_len + 4;
                return Ok(client);
            }
        }
    }

    /// Subscribes to a topic. If `after` is given, the server first sends the events after this position in the ledger.
    pub(super) async fn subscribe(
        &mut self,
        topic: &str,
        after: Option<&str>,
    ) -> anyhow::Result<()> {
        let after = after.map_or(String::new(), |after| format!(r#","after":"{after}""#));
        let text = format!(r#"{{"action":"subscribe","topic":"{topic}"{after}}}"#);
        self.stream.write_all(&masked_frame(TEXT, text.as_bytes())).await?;
        let expected = format!(r#"{{"message":"Subscribed to {topic}"}}"#);
        loop {
            if let Some(reply) = self.next_text()? {
                let reply = self.payload(reply);
                let text = String::from_utf8_lossy(reply);
                ensure!(reply == expected.as_bytes(), "subscribing returned {text}");
                return Ok(());
            }
            self.read().await?;
        }
    }

    /// Waits for bytes, and appends them to the received bytes.
    pub(super) async fn read(&mut self) -> anyhow::Result<()> {
        self.received.drain(..self.consumed);
        self.consumed = 0;
        if self.stream.read_buf(&mut self.received).await? == 0 {
            bail!("the server ended a WebSocket connection");
        }
        Ok(())
    }

    /// Returns the next complete text message, as a range of the received bytes, or `None` if no complete message has
    /// arrived. Also responds to pings.
    pub(super) fn next_text(&mut self) -> anyhow::Result<Option<Range<usize>>> {
        while let Some((opcode, payload)) = parse_frame(&self.received[self.consumed..])? {
            let payload = self.consumed + payload.start..self.consumed + payload.end;
            self.consumed = payload.end;
            match opcode {
                TEXT => return Ok(Some(payload)),
                PING => {
                    let pong = masked_frame(PONG, self.payload(payload));
                    let written = self.stream.try_write(&pong).context("cannot answer a ping")?;
                    ensure!(written == pong.len(), "the buffer of a socket is full");
                }
                CLOSE => {
                    let code = self.payload(payload);
                    bail!("the server closed a WebSocket: {}", String::from_utf8_lossy(code));
                }
                opcode => bail!("unexpected frame {opcode:#x}"),
            }
        }
        Ok(None)
    }

    pub(super) fn payload(&self, range: Range<usize>) -> &[u8] {
        &self.received[range]
    }
}

/// Parses the frame at the beginning of `bytes`. Returns its first byte and the range of its payload, or `None` if the
/// frame is incomplete.
fn parse_frame(bytes: &[u8]) -> anyhow::Result<Option<(u8, Range<usize>)>> {
    let [opcode, length, rest @ ..] = bytes else { return Ok(None) };
    let (head_len, length) = match *length {
        LENGTH_IN_TWO => {
            let Some(length) = rest.first_chunk() else { return Ok(None) };
            (4, u16::from_be_bytes(*length).into())
        }
        LENGTH_IN_EIGHT => {
            let Some(length) = rest.first_chunk() else { return Ok(None) };
            (10, usize::try_from(u64::from_be_bytes(*length))?)
        }
        length => (2, length.into()),
    };
    let payload = head_len..head_len + length;
    Ok((payload.end <= bytes.len()).then_some((*opcode, payload)))
}

/// Builds a frame that the client sends. The payload is masked, and must be shorter than 64 KiB.
fn masked_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![opcode];
    match u8::try_from(payload.len()) {
        Ok(length) if length < LENGTH_IN_TWO => frame.push(MASKED | length),
        _ => {
            frame.push(MASKED | LENGTH_IN_TWO);
            let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
            frame.extend(length.to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_parsed_once_it_is_complete() {
        for len in [0, 5, 125, 126, 300, 65_535] {
            let mut frame = masked_frame(TEXT, &vec![b'x'; len]);
            // A server does not mask its frames.
            frame[1] &= !MASKED;
            let mask_at = frame.len() - len - MASK.len();
            frame.drain(mask_at..mask_at + MASK.len());

            assert_eq!(parse_frame(&frame[..frame.len() - 1]).unwrap(), None, "{len}");
            let (opcode, payload) = parse_frame(&frame).unwrap().unwrap();
            assert_eq!((opcode, payload.len(), payload.end), (TEXT, len, frame.len()));
        }
    }

    #[test]
    fn a_long_payload_has_its_length_in_eight_bytes() {
        let head = [TEXT, 127, 0, 0, 0, 0, 0, 1, 0, 0];
        let frame = [&head[..], &vec![b'x'; 65_536]].concat();

        assert_eq!(parse_frame(&frame).unwrap(), Some((TEXT, 10..65_546)));
        assert_eq!(parse_frame(&head).unwrap(), None);
    }
}

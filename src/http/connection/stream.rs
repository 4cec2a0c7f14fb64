//! The socket of a connection. It closes the connection if the client is too slow, and lets the client read the last
//! response before it closes the connection. hyper does neither:
//!
//! | situation | hyper | this socket |
//! |---|---|---|
//! | the client sends nothing, or only part of the HTTP/2 preface | waits forever | closes after the header timeout |
//! | the client does not read a response | waits forever | closes if the client reads nothing for the header timeout |
//! | a request head cannot be parsed | responds with a bare status | responds with the problem `malformed-request` |
//! | the server closes while the client is still sending | resets the connection, which may destroy the response | discards input before it closes the connection |

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::super::malformed;
use super::OpenConnection;
use super::log::{CloseReason, ConnectionLog};

/// First bytes of an HTTP/2 connection.
const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Longest time that a closing connection reads and discards input, so that the client can still read the response.
const LINGER_TIME_MAX: Duration = Duration::from_secs(2);

/// Size of the buffer for input that is read and discarded.
const LINGER_BUFFER_BYTES: usize = 4 * 1024;

/// A socket that times out if its client is too slow to send the first request or to read a response.
pub(in crate::http) struct GuardedStream {
    socket: TcpStream,
    connection: Arc<OpenConnection>,
    log: Arc<ConnectionLog>,
    limit: Duration,
    /// State of the wait for the first request or the HTTP/2 preface; `None` once either has arrived.
    opening: Option<Opening>,
    /// Deadline that runs while a write waits for the client to read.
    stalled: Option<Pin<Box<Sleep>>>,
    line: FirstLine,
    closing: Closing,
}

/// State of a connection on which no request has arrived yet.
struct Opening {
    accepted: Instant,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Number of bytes of the HTTP/2 preface that have arrived; `None` if the connection uses another protocol.
    preface: Option<usize>,
}

/// Whether the first line of a request head has arrived completely. If the head is too large, an incomplete first line
/// means that the URI is too long, rather than the headers.
#[derive(Default)]
struct FirstLine {
    requests: u64,
    has_ended: bool,
}

/// State of a connection that is ending.
#[derive(Default)]
struct Closing {
    /// Unsent rest of the problem document that replaces hyper's own error response.
    refusal: Option<Bytes>,
    has_ended: bool,
    linger: Option<Pin<Box<Sleep>>>,
}

impl GuardedStream {
    pub(in crate::http) fn new(
        socket: TcpStream,
        connection: Arc<OpenConnection>,
        log: Arc<ConnectionLog>,
        limit: Duration,
    ) -> Self {
        let opening = Opening { accepted: Instant::now(), deadline: None, preface: Some(0) };
        Self {
            socket,
            connection,
            log,
            limit,
            opening: Some(opening),
            stalled: None,
            line: FirstLine::default(),
            closing: Closing::default(),
        }
    }

    fn poll_opening(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(opening) = &mut self.opening else { return Poll::Pending };
        if self.connection.has_requests() {
            self.opening = None;
            return Poll::Pending;
        }
        let deadline = opening.accepted + self.limit;
        let deadline =
            opening.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(deadline.as_mut().poll(cx));
        self.log.closed(CloseReason::NoRequest);
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn note_read(&mut self, bytes: &[u8]) {
        let requests = self.connection.requests.load(Ordering::Relaxed);
        if self.line.requests != requests {
            self.line = FirstLine { requests, has_ended: false };
        }
        self.line.has_ended |= bytes.contains(&b'\n');
        if let Some(opening) = &mut self.opening
            && let Some(seen) = opening.preface
        {
            let expected = &HTTP_2_PREFACE[seen..];
            let some = expected.len().min(bytes.len());
            opening.preface = (expected[..some] == bytes[..some]).then_some(seen + some);
            if opening.preface == Some(HTTP_2_PREFACE.len()) {
                // From here on, pings detect an HTTP/2 client that has disconnected.
                self.opening = None;
            }
        }
    }

    /// Returns the result of a write, or a timeout error if the write has waited too long for the client to read.
    fn poll_progress<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() || self.connection.is_upgraded.load(Ordering::Relaxed) {
            self.stalled = None;
            return write;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(stalled.as_mut().poll(cx));
        self.log.closed(CloseReason::Stalled);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Whether the bytes are an error response that hyper itself has created. If so, stores the problem document that
    /// the next flush sends instead of these bytes.
    fn replaces(&mut self, bufs: &[IoSlice<'_>]) -> bool {
        let Some(written) = bufs.first().filter(|_| bufs.len() == 1) else { return false };
        let refusal = malformed::replacement(written, self.line.has_ended);
        if refusal.is_some() {
            self.log.malformed();
            self.closing.refusal = refusal;
        }
        self.closing.refusal.is_some()
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = self.closing.refusal.as_mut().filter(|left| !left.is_empty()) {
            let written = Pin::new(&mut self.socket).poll_write(cx, left);
            if let Poll::Ready(Ok(bytes)) = written {
                left.advance(bytes);
            }
            ready!(self.poll_progress(cx, written))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Discards input until the client closes the connection or [`LINGER_TIME_MAX`] has passed.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self
            .closing
            .linger
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_TIME_MAX)));
        if deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        loop {
            let mut buffer = [0; LINGER_BUFFER_BYTES];
            let mut buffer = ReadBuf::new(&mut buffer);
            match ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_pending() {
            return self.poll_opening(cx).map(Err);
        }
        self.note_read(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.replaces(bufs) {
            return Poll::Ready(Ok(bufs[0].len()));
        }
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.poll_progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        if !self.closing.has_ended {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            self.closing.has_ended = true;
        }
        let is_refused = self.closing.refusal.is_some();
        if is_refused || self.connection.has_unread_body.load(Ordering::Relaxed) {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

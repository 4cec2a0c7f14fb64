//! The socket of a WebSocket connection: reads and flushes at the same time, and closes the connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use futures_util::{Sink, SinkExt, Stream};
use tokio_util::sync::CancellationToken;

/// Longest time that closing a connection may take if its client reads slowly.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time that closing a connection may take while the program stops. Also the longest time that a client may
/// take to respond to the close frame.
const CLOSE_TIMEOUT_SHORT: Duration = Duration::from_secs(1);

/// Result of waiting until a socket is flushed or receives a message.
#[derive(Debug)]
pub(super) enum Step {
    Flushed,
    Received(Message),
    /// The client sent a message that is larger than the WebSocket library accepts.
    TooLarge,
    /// The client closed the connection, or violated the WebSocket protocol.
    Closed,
    /// The connection broke.
    Broken,
}

/// Flushes the socket and waits for a message at the same time, and returns as soon as either completes. Cancel-safe.
pub(super) async fn next_step(socket: &mut WebSocket, flushes: bool, reads: bool) -> Step {
    poll_fn(|cx| {
        if flushes {
            match Pin::new(&mut *socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(Step::Flushed),
                Poll::Ready(Err(_broken)) => return Poll::Ready(Step::Broken),
                Poll::Pending => {}
            }
        }
        if !reads {
            return Poll::Pending;
        }
        Pin::new(&mut *socket).poll_next(cx).map(|received| match received {
            Some(Ok(Message::Close(_))) => Step::Closed,
            Some(Ok(message)) => Step::Received(message),
            Some(Err(error)) => step_after(&error.to_string()),
            None => Step::Broken,
        })
    })
    .await
}

/// Derives the [`Step`] from the text of an error of the socket, because axum hides the error type of the WebSocket
/// library.
fn step_after(error: &str) -> Step {
    if error.contains("too long") {
        Step::TooLarge
    } else if error.contains("IO error") || error.contains("without closing handshake") {
        Step::Broken
    } else {
        Step::Closed
    }
}

/// Writes a text frame to the buffer of the socket. Returns false if the connection is broken.
pub(super) fn write(socket: &mut WebSocket, frame: Utf8Bytes) -> bool {
    socket.start_send_unpin(Message::Text(frame)).is_ok()
}

/// Writes a ping to the buffer of the socket. Returns false if the connection is broken.
pub(super) fn ping(socket: &mut WebSocket) -> bool {
    socket.start_send_unpin(Message::Ping(bytes::Bytes::new())).is_ok()
}

/// Closes a connection. Frames that were written earlier are still delivered, if the client reads them in time.
pub(super) async fn close(
    socket: &mut WebSocket,
    stopping: &CancellationToken,
    frame: Option<(u16, &str)>,
) {
    let frame = frame.map(|(code, reason)| CloseFrame { code, reason: reason.into() });
    let closing = async {
        if socket.start_send_unpin(Message::Close(frame)).is_err() {
            return;
        }
        if poll_fn(|cx| Pin::new(&mut *socket).poll_flush(cx)).await.is_err() {
            return;
        }
        let answered = async { while let Some(Ok(_)) = socket.recv().await {} };
        let _silent = tokio::time::timeout(CLOSE_TIMEOUT_SHORT, answered).await;
    };
    tokio::select! {
        () = closing => {}
        () = tokio::time::sleep(CLOSE_TIMEOUT) => {}
        () = async {
            stopping.cancelled().await;
            tokio::time::sleep(CLOSE_TIMEOUT_SHORT).await;
        } => {}
    }
}

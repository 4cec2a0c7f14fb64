//! A stock WebSocket client.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use super::Client;

/// Longest time that a frame may take on a busy machine.
const FRAME_TIMEOUT: Duration = Duration::from_secs(30);

pub struct Socket(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    /// Opens a WebSocket at `/ws`, with the credential of the client.
    pub async fn socket(&self) -> Socket {
        self.socket_at("/ws").await
    }

    pub async fn socket_at(&self, path: &str) -> Socket {
        match self.try_socket(path, &[]).await {
            Ok(socket) => socket,
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a WebSocket whose kernel buffer is small, so that the server notices soon when nothing is read.
    pub async fn narrow_socket(&self) -> Socket {
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(8 * 1024).unwrap();
        let stream = MaybeTlsStream::Plain(tcp.connect(self.address).await.unwrap());
        let request = format!("ws://{}/ws", self.address).into_client_request().unwrap();
        Socket(client_async(request, stream).await.unwrap().0)
    }

    /// Opens a WebSocket with additional headers; the error of a refused one contains the response.
    pub async fn try_socket(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, Box<Error>> {
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().unwrap();
        if !self.credential().is_empty() {
            let bearer = format!("Bearer {}", self.credential());
            request.headers_mut().insert("authorization", bearer.parse().unwrap());
        }
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        Ok(Socket(connect_async(request).await.map_err(Box::new)?.0))
    }
}

impl Socket {
    pub async fn send(&mut self, frame: Value) {
        self.send_text(&frame.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    /// Sends a text over a connection that may be broken.
    pub async fn try_send(&mut self, text: &str) {
        let _broken = self.0.send(Message::text(text)).await;
    }

    /// Returns the next text frame; none when the connection ends.
    pub async fn next_text(&mut self) -> Option<String> {
        loop {
            let next = tokio::time::timeout(FRAME_TIMEOUT, self.0.next()).await;
            match next.expect("a frame or the end arrives in time") {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(_) | Err(_)) | None => return None,
            }
        }
    }

    pub async fn send_bytes(&mut self, bytes: Vec<u8>) {
        self.0.send(Message::binary(bytes)).await.unwrap();
    }

    /// Returns the next text frame.
    pub async fn text(&mut self) -> String {
        match self.message().await {
            Message::Text(text) => text.to_string(),
            other => panic!("not a text frame: {other:?}"),
        }
    }

    /// Returns the next frame as JSON.
    pub async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text}"))
    }

    /// Returns the next message that is not a ping.
    pub async fn message(&mut self) -> Message {
        loop {
            let next = tokio::time::timeout(FRAME_TIMEOUT, self.0.next()).await;
            let next = next.expect("a frame arrives in time").expect("the connection is open");
            match next.unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// Returns the close frame, after whatever is sent before it.
    pub async fn closed(&mut self) -> CloseFrame {
        loop {
            if let Message::Close(frame) = self.message().await {
                return frame.expect("a close frame with a code");
            }
        }
    }

    /// Sends an action and returns the reply to it.
    pub async fn ask(&mut self, frame: Value) -> Value {
        self.send(frame).await;
        self.json().await
    }

    /// Subscribes to a topic, and checks the acknowledgment.
    pub async fn subscribe(&mut self, topic: &str) {
        let reply = self.ask(json!({ "action": "subscribe", "topic": topic })).await;
        assert_eq!(reply, json!({ "message": format!("Subscribed to {topic}") }));
    }

    /// Subscribes to a topic after a position, and checks the acknowledgment.
    pub async fn subscribe_after(&mut self, topic: &str, position: &str) {
        let frame = json!({ "action": "subscribe", "topic": topic, "after": position });
        let reply = self.ask(frame).await;
        assert_eq!(reply, json!({ "message": format!("Subscribed to {topic}") }));
    }

    /// Checks that nothing was sent before the reply to an action.
    pub async fn is_silent(&mut self) {
        let reply = self.ask(json!({ "action": "nothing" })).await;
        assert_eq!(reply["error"], "invalid", "{reply}");
    }
}

//! Stub upstreams behind the edge, for behavior that the real programs do not show.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn listen() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Starts a server that responds with method, path and headers of the request.
pub async fn echo() -> SocketAddr {
    let (socket, address) = listen().await;
    let router = Router::new().fallback(async |request: axum::extract::Request| {
        axum::Json(json!({
            "method": request.method().as_str(),
            "path": request.uri().to_string(),
            "headers": headers(request.headers()),
        }))
    });
    tokio::spawn(async move { axum::serve(socket, router).await });
    address
}

fn headers(headers: &HeaderMap) -> Value {
    let mut found = BTreeMap::<&str, Vec<&str>>::new();
    for (name, value) in headers {
        found.entry(name.as_str()).or_default().push(value.to_str().unwrap());
    }
    json!(found)
}

/// Starts a server that accepts connections and never responds; also returns the number of connections.
pub async fn unresponsive() -> (SocketAddr, Arc<AtomicUsize>) {
    let (socket, address) = listen().await;
    let count = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = socket.accept().await {
            counter.fetch_add(1, Ordering::Relaxed);
            open.push(stream);
        }
    });
    (address, count)
}

/// Starts a server that accepts WebSocket upgrades and echoes all bytes after that.
pub async fn websocket_echo() -> SocketAddr {
    let (socket, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await? == 0 {
                        return Ok(());
                    }
                    head.push(byte[0]);
                }
                let head = String::from_utf8_lossy(&head).to_lowercase();
                let is_upgrade = head.contains("\r\nupgrade: websocket\r\n")
                    && head.contains("\r\nconnection: upgrade\r\n");
                if !is_upgrade {
                    return stream
                        .write_all(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n")
                        .await;
                }
                let accepted = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
                stream.write_all(accepted).await?;
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.map(drop)
            });
        }
    });
    address
}

/// Starts a server that echoes the body, with gRPC trailers: the status and headers that the edge added.
pub async fn grpc_echo() -> SocketAddr {
    let (socket, address) = listen().await;
    let router = Router::new().fallback(async |request: axum::extract::Request| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        for (name, trailer) in
            [("x-forwarded-for", "received-forwarded-for"), ("traceparent", "received-traceparent")]
        {
            trailers.insert(trailer, request.headers()[name].clone());
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = Full::new(body).with_trailers(async { Some(Ok(trailers)) });
        ([("content-type", "application/grpc")], Body::new(body))
    });
    tokio::spawn(async move { axum::serve(socket, router).await });
    address
}

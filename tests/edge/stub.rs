//! Programs that stand behind the edge where the real one cannot be had, or would behave too well.

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

/// Answers with what it was asked: the method, the path and the headers.
pub async fn mirror() -> SocketAddr {
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

/// Takes requests and never answers one.
pub async fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let (socket, address) = listen().await;
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = socket.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            open.push(stream);
        }
    });
    (address, asked)
}

/// Changes to another protocol when it is asked to, and says back whatever it hears from then on.
pub async fn upgrading() -> SocketAddr {
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
                let asked = head.contains("\r\nupgrade: websocket\r\n")
                    && head.contains("\r\nconnection: upgrade\r\n");
                if !asked {
                    return stream
                        .write_all(b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n")
                        .await;
                }
                let yes = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
                stream.write_all(yes).await?;
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.map(drop)
            });
        }
    });
    address
}

/// Says back what it was sent, with trailers as gRPC has them: the status, and what the edge has said of the caller.
pub async fn grpc() -> SocketAddr {
    let (socket, address) = listen().await;
    let router = Router::new().fallback(async |request: axum::extract::Request| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        for (name, told) in
            [("x-forwarded-for", "seen-forwarded-for"), ("traceparent", "seen-traceparent")]
        {
            trailers.insert(told, request.headers()[name].clone());
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body = Full::new(body).with_trailers(async { Some(Ok(trailers)) });
        ([("content-type", "application/grpc")], Body::new(body))
    });
    tokio::spawn(async move { axum::serve(socket, router).await });
    address
}

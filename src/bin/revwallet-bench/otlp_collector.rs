//! A trace collector that accepts everything. It implements the part of OTLP over gRPC that an exporter needs.
//!
//! The collector passes messages to a handler without decoding them, so that it uses little CPU time. `tests/e2e` uses
//! the collector too.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::StreamBody;
use hyper::body::Frame;

/// gRPC method that exports traces.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Size of the prefix of each gRPC message: one byte for the compression flag, and four for the length.
const PREFIX_BYTES: usize = 5;

/// Function that receives each message, an `ExportTraceServiceRequest` encoded as protobuf.
type MessageHandler = Arc<dyn Fn(Bytes) + Send + Sync>;

/// Starts a collector, which listens until the async runtime ends, and returns its address. If `port` is 0, the
/// collector listens on any free port.
pub(crate) async fn start_collector(
    port: u16,
    handler: impl Fn(Bytes) + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = socket.local_addr()?;
    let router = Router::new()
        .route(EXPORT, post(export))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(Arc::new(handler) as MessageHandler);
    #[expect(
        clippy::disallowed_methods,
        reason = "the collector holds nothing that shutdown must wait for"
    )]
    tokio::spawn(async move { axum::serve(socket, router).await });
    Ok(address)
}

async fn export(State(handler): State<MessageHandler>, body: Bytes) -> Response {
    handler(body.slice(PREFIX_BYTES.min(body.len())..));
    // An empty response message, then status 0: OK.
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    let frames: [Result<Frame<Bytes>, std::convert::Infallible>; 2] =
        [Ok(Frame::data(Bytes::from_static(&[0; PREFIX_BYTES]))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

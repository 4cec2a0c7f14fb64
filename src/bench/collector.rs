//! A collector of traces that takes everything: OTLP over gRPC, as far as it needs.

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

/// Where the service of traces is.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Before each message of gRPC: whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;

/// What is done with each message: an `ExportTraceServiceRequest` as protobuf.
type Take = Arc<dyn Fn(Bytes) + Send + Sync>;

/// Listens until the runtime ends, on a free port unless it is given one; its address.
pub async fn collect(
    port: u16,
    take: impl Fn(Bytes) + Send + Sync + 'static,
) -> std::io::Result<SocketAddr> {
    let socket = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = socket.local_addr()?;
    let router = Router::new()
        .route(EXPORT, post(export))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(Arc::new(take) as Take);
    #[expect(
        clippy::disallowed_methods,
        reason = "it has nothing to finish when the program ends"
    )]
    tokio::spawn(async move { axum::serve(socket, router).await });
    Ok(address)
}

async fn export(State(take): State<Take>, body: Bytes) -> Response {
    take(body.slice(PREFIX_BYTES.min(body.len())..));
    // An empty message, and that all went well.
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
    let frames: [Result<Frame<Bytes>, std::convert::Infallible>; 2] =
        [Ok(Frame::data(Bytes::from_static(&[0; PREFIX_BYTES]))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

//! Everything that happens to each request, in one list: [`Edge::answer`].
//!
//! It is one function rather than a tower of layers: the order can be read, and a request
//! pays for two allocations instead of two a layer.

use std::convert::Infallible;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use tokio::sync::Semaphore;
use tower::Service;
use tracing::Instrument;

use super::access_log::Record;
use super::context::RequestContext;
use super::problem;
use crate::error::Error;
use crate::telemetry::Metrics;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What answers the requests of one listener.
pub struct RequestPipeline {
    pub router: Router,
    pub metrics: Arc<Metrics>,
    /// One permit a request that is being answered.
    pub admission: Semaphore,
    pub timeout: Duration,
    /// Share of successful requests that are logged.
    pub log_success_ratio: f64,
}

impl RequestPipeline {
    pub async fn answer<B>(&self, mut request: Request<B>, peer: Option<IpAddr>) -> Response
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // 1. Who is it: ids, trace, span.
        let context = RequestContext::begin(request.method(), request.headers(), peer);
        // 2. One line in the access log and one sample in the metrics, also if the client leaves.
        let record = Record::begin(self, context.clone(), request.body().size_hint().exact());
        // 3. A path means the same with and without its trailing slash.
        trim_trailing_slash(request.uri_mut());
        request.extensions_mut().insert(context.clone());
        // 4. Only as many at once as can be served soon, 5. none for longer than the limit,
        // 6. and a panic ends one request, not the program.
        let answer = self.routed(request.map(Body::new)).instrument(context.span().clone());
        let answer = AssertUnwindSafe(answer).catch_unwind().await;
        let response = answer.unwrap_or_else(|_| {
            self.metrics.wallet_panics_total.with(["http"]).increment(1);
            Error::Internal(anyhow::anyhow!("the handler panicked")).into_response()
        });
        // 7. A failure becomes problem+json.
        let mut response = problem::write(response, &context);
        // 8. What every answer carries.
        dress(&mut response, &context);
        record.end(&response);
        response
    }

    async fn routed(&self, request: Request<Body>) -> Response {
        let Ok(_permit) = self.admission.try_acquire() else {
            return Error::Overloaded.into_response();
        };
        let answer = self.router.clone().call(request);
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(response)) => response,
            Ok(Err(never)) => match never {},
            Err(_elapsed) => Error::Timeout(self.timeout).into_response(),
        }
    }
}

fn trim_trailing_slash(uri: &mut Uri) {
    let path = uri.path();
    let trimmed = path.trim_end_matches('/');
    if trimmed.len() == path.len() || trimmed.is_empty() {
        return;
    }
    let shorter = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{trimmed}?{query}")),
        None => PathAndQuery::try_from(trimmed),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = shorter.ok();
    if let Ok(shorter) = Uri::from_parts(parts) {
        *uri = shorter;
    }
}

fn dress(response: &mut Response, context: &RequestContext) {
    let headers = response.headers_mut();
    // Otherwise the map grows twice on its way; two more come on the wire.
    headers.reserve(7);
    headers.insert(&REQUEST_ID, context.request_id().clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert_with(|| HeaderValue::from_static("no-store"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert_with(|| HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    headers
        .entry(header::REFERRER_POLICY)
        .or_insert_with(|| HeaderValue::from_static("no-referrer"));
}

/// The edge as hyper wants it: one for each connection, cheap to make.
#[derive(Clone)]
pub struct ConnectionService {
    pub edge: Arc<RequestPipeline>,
    /// Who holds the other end.
    pub peer: IpAddr,
}

impl<B> hyper::service::Service<Request<B>> for ConnectionService
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let (edge, peer) = (Arc::clone(&self.edge), self.peer);
        Box::pin(async move { Ok(edge.answer(request, Some(peer)).await) })
    }
}

//! The middleware of every request, as one list: [`stack`].
//!
//! Around it, [`RequestPipeline::answer`] begins the request's trace and its record, which need more than the
//! request to begin with and must end even if the client leaves.

use std::any::Any;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use tower::util::Either;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer, ResponseForPanic};
use tower_http::compression::{Compression, CompressionBody, CompressionLayer, CompressionLevel};
use tower_http::cors::Cors;
use tower_http::sensitive_headers::{SetSensitiveRequestHeaders, SetSensitiveRequestHeadersLayer};
use tower_http::set_header::{SetResponseHeader, SetResponseHeaderLayer};
use tracing::Instrument;

use super::access_log::Record;
use super::admit::{Admit, AdmitLayer};
use super::answer::{AnswerBody, Complete, CompleteLayer};
use super::compression::{self, IsMarked};
use super::context::RequestContext;
use super::cors::CorsOrigins;
use crate::error::Error;
use crate::telemetry::Metrics;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The response of the router, with everything that the stack adds.
pub type Answer = Response<CompressionBody<AnswerBody>>;

type Routed = Complete<CatchPanic<Admit<Router>, PanicProblem>>;
type Compressed = Compression<Routed, IsMarked>;
type WithHeader<S> = SetResponseHeader<S, HeaderValue>;
type Dressed = WithHeader<WithHeader<WithHeader<WithHeader<Either<Cors<Compressed>, Compressed>>>>>;
type Stack = SetSensitiveRequestHeaders<Dressed>;

/// Limits and rules of one listener's requests.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Most requests that are answered at once.
    pub requests_max: usize,
    /// Longest that an answer may take.
    pub timeout: Duration,
    /// Origins whose pages may read the answers.
    pub cors_origins: CorsOrigins,
    /// Share of successful requests that are logged.
    pub log_success_ratio: f64,
}

/// Answers the requests of one listener.
pub struct RequestPipeline {
    stack: Stack,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log_success_ratio: f64,
}

impl RequestPipeline {
    pub fn new(router: Router, options: &PipelineOptions, metrics: Arc<Metrics>) -> Self {
        let stack = stack(router, options, &metrics);
        Self { stack, metrics, log_success_ratio: options.log_success_ratio }
    }

    pub async fn answer<B>(&self, mut request: Request<B>, peer: Option<IpAddr>) -> Answer
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        // Ids, trace and span.
        let context = RequestContext::begin(request.method(), request.headers(), peer);
        // One line in the access log and one sample in the metrics, also if the client leaves.
        let record = Record::begin(self, context.clone(), request.body().size_hint().exact());
        // tower-http's `NormalizePath` would also answer `/wallet//7` as `/wallet/7`.
        trim_trailing_slash(request.uri_mut());
        compression::negotiate(&mut request);
        request.extensions_mut().insert(context.clone());
        let answer = self.stack.clone().call(request.map(Body::new));
        let Ok(mut answer) = answer.instrument(context.span().clone()).await;
        answer.headers_mut().insert(&REQUEST_ID, context.request_id().clone());
        record.end(&answer);
        answer
    }
}

/// Everything that happens to a request between its record and its route, the outermost first.
fn stack(router: Router, options: &PipelineOptions, metrics: &Arc<Metrics>) -> Stack {
    let overriding =
        |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    let unless_set =
        |name, value| SetResponseHeaderLayer::if_not_present(name, HeaderValue::from_static(value));
    ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([header::AUTHORIZATION, header::COOKIE]))
        .layer(overriding(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(unless_set(header::CACHE_CONTROL, "no-store"))
        .layer(unless_set(
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ))
        .layer(unless_set(header::REFERRER_POLICY, "no-referrer"))
        // Outside of what refuses, so that a page can read refusals too.
        .option_layer(options.cors_origins.layer())
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(IsMarked))
        .layer(CompleteLayer::default())
        .layer(CatchPanicLayer::custom(PanicProblem(Arc::clone(metrics))))
        .layer(AdmitLayer::new(options.requests_max, options.timeout))
        .service(router)
}

/// Answers a panic of a handler with our problem: tower-http would answer plain text.
#[derive(Clone)]
struct PanicProblem(Arc<Metrics>);

impl ResponseForPanic for PanicProblem {
    type ResponseBody = Body;

    fn response_for_panic(&mut self, _cause: Box<dyn Any + Send + 'static>) -> Response {
        self.0.wallet_panics_total.with(["http"]).increment(1);
        Error::Internal(anyhow::anyhow!("the handler panicked")).into_response()
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

/// The pipeline as hyper wants it: one for each connection, cheap to make.
#[derive(Clone)]
pub struct ConnectionService {
    pub pipeline: Arc<RequestPipeline>,
    /// The address of the other end.
    pub peer: IpAddr,
}

impl<B> hyper::service::Service<Request<B>> for ConnectionService
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let (pipeline, peer) = (Arc::clone(&self.pipeline), self.peer);
        Box::pin(async move { Ok(pipeline.answer(request, Some(peer)).await) })
    }
}

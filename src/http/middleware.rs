//! Middleware: the layers that apply to every request. [`stack`] lists them.
//!
//! [`RequestPipeline::respond`] wraps the stack. It begins the trace and the access record, which are completed even if
//! the client disconnects.

use std::any::Any;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use tower::util::Either;
use tower::{Service, ServiceBuilder};
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer, ResponseForPanic};
use tower_http::compression::{Compression, CompressionBody, CompressionLayer, CompressionLevel};
use tower_http::cors::Cors;
use tower_http::sensitive_headers::{SetSensitiveRequestHeaders, SetSensitiveRequestHeadersLayer};
use tower_http::set_header::{SetResponseHeader, SetResponseHeaderLayer};

use super::access_log::{Record, SuccessSampler};
use super::admit::{Admit, AdmitLayer};
use super::compression::{self, IsMarked};
use super::connection::{self, OpenConnection};
use super::context::RequestContext;
use super::cors::CorsOrigins;
use super::decimal::MoneyFormat;
use super::memory::MemoryBudget;
use super::position::{self, ReadOptions};
use super::response::{Complete, CompleteLayer, ResponseBody};
use super::rpc::RpcMethods;
use super::rpc::record::CallRecorder;
use crate::error::Error;
use crate::telemetry::Metrics;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Response as the middleware returns it, with all headers and possibly compressed.
pub type PipelineResponse = Response<CompressionBody<ResponseBody>>;

type Routed = Complete<CatchPanic<Admit<Router>, PanicProblem>>;
type Compressed = Compression<Routed, IsMarked>;
type WithHeader<S> = SetResponseHeader<S, HeaderValue>;
type Dressed = WithHeader<WithHeader<WithHeader<WithHeader<Either<Cors<Compressed>, Compressed>>>>>;
type Stack = SetSensitiveRequestHeaders<Dressed>;

/// Limits and policies for the requests of a listener, the same for all routes.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Maximum number of concurrent requests.
    pub requests_max: usize,
    /// Longest time that a response may take.
    pub timeout: Duration,
    /// Origins (websites) whose pages may call the API from a browser.
    pub cors_origins: CorsOrigins,
    /// Format of amounts in responses, unless the client requests another format.
    pub money: MoneyFormat,
    /// Share of successful requests that are logged.
    pub log_success_ratio: f64,
    /// Methods of the gRPC services that the router serves.
    pub rpc_methods: RpcMethods,
}

/// Handles the requests of a listener: runs the middleware, then the router.
pub struct RequestPipeline {
    stack: Stack,
    memory: Arc<MemoryBudget>,
    rpc_methods: RpcMethods,
    money: MoneyFormat,
    pub(super) calls: CallRecorder,
}

impl RequestPipeline {
    pub fn new(router: Router, options: &PipelineOptions, metrics: Arc<Metrics>) -> Self {
        let sampler = SuccessSampler(options.log_success_ratio);
        let calls = CallRecorder { metrics, sampler };
        let stack = stack(router, options, &calls);
        let memory = Arc::new(MemoryBudget::whole());
        let (rpc_methods, money) = (options.rpc_methods.clone(), options.money);
        Self { stack, memory, rpc_methods, money, calls }
    }

    /// Handles a request that arrived on `connection`. In tests there is no connection.
    pub async fn respond(
        &self,
        request: Request<Body>,
        connection: Option<Arc<OpenConnection>>,
    ) -> PipelineResponse {
        let mut stack = self.stack.clone();
        self.respond_through(|request| stack.call(request), request, connection).await
    }

    /// Handles a request. `call` passes the request to the caller's clone of the middleware stack.
    async fn respond_through(
        &self,
        call: impl FnOnce(Request<Body>) -> <Stack as Service<Request<Body>>>::Future,
        mut request: Request<Body>,
        connection: Option<Arc<OpenConnection>>,
    ) -> PipelineResponse {
        let memory = Arc::clone(&self.memory);
        // tower-http's `NormalizePath` would also treat `/wallet//7` as `/wallet/7`.
        trim_trailing_slash(request.uri_mut());
        let (method, headers) = (request.method(), request.headers());
        let rpc = self.rpc_methods.called_by(&request);
        let context = RequestContext::begin(method, headers, rpc, connection, memory);
        // The record writes a line in the access log and a sample in the metrics, even if the client disconnects.
        let record = Record::begin(self, context.clone(), request.body().size_hint().exact());
        compression::negotiate(&mut request);
        request.extensions_mut().insert(context.clone());
        let read_options = ReadOptions::of(&request);
        let preferred_money = MoneyFormat::preferred(request.headers());
        // The future takes 2 KB. Because it is boxed, the layers below move only a pointer.
        let response = context.scope().run(Box::pin(call(request)));
        let response = preferred_money.unwrap_or(self.money).scope(response);
        let Ok(mut response) = position::add_to_read(read_options, response).await;
        if let Some(money) = preferred_money {
            money.confirm(response.headers_mut());
        }
        response.headers_mut().insert(&REQUEST_ID, context.request_id_header());
        record.end(&response);
        response
    }
}

/// Wraps the router in the middleware that runs after the access log, outermost layer first.
fn stack(router: Router, options: &PipelineOptions, calls: &CallRecorder) -> Stack {
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
        // The CORS layer wraps the layers that reject requests, so that a page of another origin can read the
        // rejections too.
        .option_layer(options.cors_origins.layer())
        .layer(CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(IsMarked))
        .layer(CompleteLayer::new(calls.clone()))
        .layer(CatchPanicLayer::custom(PanicProblem(Arc::clone(&calls.metrics))))
        .layer(AdmitLayer::new(options.requests_max, options.timeout))
        .service(router)
}

/// Turns a handler panic into a problem document. tower-http itself would respond with plain text.
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

/// Connects hyper to the request pipeline. Each connection has its own service, which is cheap to clone.
#[derive(Clone)]
pub struct ConnectionService(Arc<ConnectionPipeline>);

struct ConnectionPipeline {
    pipeline: Arc<RequestPipeline>,
    /// The middleware stack. It is cloned per connection instead of per request, because each clone updates reference
    /// counts that all threads share.
    stack: Mutex<Stack>,
    connection: Arc<OpenConnection>,
}

impl ConnectionService {
    pub fn new(pipeline: Arc<RequestPipeline>, connection: Arc<OpenConnection>) -> Self {
        let stack = Mutex::new(pipeline.stack.clone());
        Self(Arc::new(ConnectionPipeline { pipeline, stack, connection }))
    }

    async fn respond<B>(self, request: Request<B>) -> PipelineResponse
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError> + Send,
    {
        let ConnectionPipeline { pipeline, stack, connection } = &*self.0;
        let (request, leftover) = connection::track(request, connection);
        let call = |request| stack.lock().unwrap_or_else(PoisonError::into_inner).call(request);
        let mut response =
            pipeline.respond_through(call, request, Some(Arc::clone(connection))).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            connection.note_upgrade();
        }
        if let Some(leftover) = leftover {
            leftover.settle(response.headers_mut(), connection);
        }
        response
    }
}

impl<B> hyper::service::Service<Request<B>> for ConnectionService
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError> + Send,
{
    type Response = PipelineResponse;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<PipelineResponse, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.respond(request).await) })
    }
}

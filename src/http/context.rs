//! Context of a request: its id, trace, route and connection.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use http::{HeaderMap, HeaderValue, Method};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};
use tracing::{Span, field, info_span, span};
use uuid::Uuid;

use super::connection::OpenConnection;
use super::memory::{MemoryAccount, MemoryBudget};
use crate::telemetry::{TraceContext, in_trace_if_sampled, is_exported, set_span_name};

/// Longest request id, in bytes, that is accepted from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Context of a request. Middleware and handlers find it among the extensions of the request.
#[derive(Clone)]
pub struct RequestContext(Arc<Inner>);

struct Inner {
    request_id: HeaderValue,
    trace: TraceContext,
    trace_id: String,
    method: &'static str,
    /// Full name of the gRPC method, if the request is a gRPC call.
    rpc: Option<Arc<str>>,
    route: OnceLock<MatchedPath>,
    span: Span,
    /// Whether the span of the request is exported to the trace receiver.
    is_traced: bool,
    started: Instant,
    connection: Option<Arc<OpenConnection>>,
    memory: Arc<MemoryBudget>,
}

impl RequestContext {
    /// Begins the context of a request that arrived on `connection`. `memory` is the budget that all requests share.
    pub fn begin(
        method: &Method,
        headers: &HeaderMap,
        rpc: Option<Arc<str>>,
        connection: Option<Arc<OpenConnection>>,
        memory: Arc<MemoryBudget>,
    ) -> Self {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let trace = TraceContext::from_traceparent(traceparent);
        let trace_id = trace.trace_id_hex().to_string();
        let request_id = headers.get("x-request-id").filter(|id| is_sane(id)).cloned();
        let request_id = request_id.unwrap_or_else(|| {
            HeaderValue::from_str(&trace_id).expect("hexadecimal digits are visible characters")
        });
        let method = known_method(method);
        let span = in_trace_if_sampled(&trace, || {
            info_span!(
                "http.request",
                otel.kind = "server",
                request_id = request_id.to_str().unwrap_or_default(),
                trace_id,
                span_id = %trace.span_id_hex(),
                http.request.method = method,
                http.route = field::Empty,
                http.response.status_code = field::Empty,
                caller = field::Empty,
                rpc.method = rpc.as_deref(),
                rpc.response.status_code = field::Empty,
            )
        });
        let is_traced = is_exported(&span);
        if let Some(rpc) = rpc.as_deref().filter(|_| is_traced) {
            set_span_name(&span, rpc.to_owned());
        }
        let (route, started) = (OnceLock::new(), Instant::now());
        Self(Arc::new(Inner {
            request_id,
            trace,
            trace_id,
            method,
            rpc,
            route,
            span,
            is_traced,
            started,
            connection,
            memory,
        }))
    }

    /// Returns the IP address of the other end of the connection, which may be a proxy.
    pub fn peer(&self) -> Option<IpAddr> {
        self.0.connection.as_ref().map(|connection| connection.peer())
    }

    /// Returns the token that is canceled when the connection is about to close.
    pub fn closing(&self) -> Option<CancellationToken> {
        self.0.connection.as_ref().map(|connection| connection.closing().clone())
    }

    pub(super) fn connection(&self) -> Option<&Arc<OpenConnection>> {
        self.0.connection.as_ref()
    }

    /// Returns the memory budgets to which the request is charged.
    pub fn memory(&self) -> MemoryAccount<'_> {
        let share = self.connection().and_then(|connection| connection.share());
        MemoryAccount { whole: &self.0.memory, share: share.map(|share| &share.memory) }
    }

    pub fn request_id(&self) -> &HeaderValue {
        &self.0.request_id
    }

    pub fn trace(&self) -> &TraceContext {
        &self.0.trace
    }

    /// Returns the trace id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.0.trace_id
    }

    /// Returns the trace id as a UUID, the form in which the database stores it.
    pub fn stored_trace(&self) -> Uuid {
        Uuid::from_bytes(self.0.trace.trace_id)
    }

    /// Whether the span of the request is exported to the trace receiver.
    pub fn is_traced(&self) -> bool {
        self.0.is_traced
    }

    pub fn method(&self) -> &'static str {
        self.0.method
    }

    /// Returns the full name of the gRPC method, or `None` if the request is not a gRPC call.
    pub fn rpc(&self) -> Option<&str> {
        self.0.rpc.as_deref()
    }

    /// Returns the template of the path, such as `/wallet/{id}`, for metric labels. The path itself would create a
    /// metric series for each wallet.
    pub fn route(&self) -> &str {
        self.0.route.get().map_or("unmatched", MatchedPath::as_str)
    }

    pub fn span(&self) -> &Span {
        &self.0.span
    }

    /// Records the HTTP status in the span, and enters the span. Log lines have the fields of the span until the
    /// returned guard is dropped.
    pub fn end(&self, status: u16) -> span::Entered<'_> {
        self.0.span.record("http.response.status_code", status);
        self.0.span.enter()
    }

    /// Records the status of a gRPC call in the span, and enters the span like [`Self::end`].
    pub fn end_call(&self, code: &str) -> span::Entered<'_> {
        self.0.span.record("rpc.response.status_code", code);
        self.0.span.enter()
    }

    pub fn started(&self) -> Instant {
        self.0.started
    }
}

/// Layer around each route, which records the matched route in the context of the request.
#[derive(Clone)]
pub struct RecordRouteLayer;

/// The service that [`RecordRouteLayer`] wraps around a route.
#[derive(Clone)]
pub struct RecordRoute<S>(S);

impl<S> Layer<S> for RecordRouteLayer {
    type Service = RecordRoute<S>;

    fn layer(&self, inner: S) -> RecordRoute<S> {
        RecordRoute(inner)
    }
}

impl<S: Service<Request>> Service<Request> for RecordRoute<S> {
    type Response = S::Response;
    type Error = S::Error;
    // This is the future of the inner service without a box, which saves an allocation per request.
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> S::Future {
        note_route(&request);
        self.0.call(request)
    }
}

fn note_route(request: &Request) {
    let extensions = request.extensions();
    if let (Some(RequestContext(context)), Some(route)) =
        (extensions.get::<RequestContext>(), extensions.get::<MatchedPath>())
        && context.route.set(route.clone()).is_ok()
    {
        context.span.record("http.route", route.as_str());
        if context.is_traced && context.rpc.is_none() {
            set_span_name(&context.span, format!("{} {}", context.method, route.as_str()));
        }
    }
}

/// Whether a request id from a client is safe to copy into a log line and a header.
fn is_sane(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let visible = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    !bytes.is_empty() && bytes.len() <= REQUEST_ID_BYTES_MAX && bytes.iter().all(visible)
}

/// Returns the method as a metric label. All unusual methods share a label, because a client can send any text as a
/// method.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

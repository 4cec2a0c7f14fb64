//! Context of a request: its id, trace, route and connection.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use arrayvec::ArrayString;
use axum::extract::{MatchedPath, Request};
use http::{HeaderMap, HeaderValue, Method};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service};
use tracing::{Span, field, info_span};
use uuid::Uuid;

use super::connection::OpenConnection;
use super::memory::{MemoryAccount, MemoryBudget};
use crate::telemetry::{
    FieldValue, LoggedRequest, RequestScope, TraceContext, in_trace, is_exported, set_span_name,
};

/// Longest request id, in bytes, that is accepted from a client.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Context of a request. Middleware and handlers find it in the request extensions.
#[derive(Clone)]
pub struct RequestContext(Arc<Inner>);

struct Inner {
    /// Request id that the client sent, if any. Otherwise, the trace id serves as the request id.
    request_id: Option<HeaderValue>,
    trace: TraceContext,
    trace_id: ArrayString<32>,
    method: &'static str,
    /// Full name of the gRPC method, if the request is a gRPC call.
    rpc: Option<Arc<str>>,
    route: OnceLock<MatchedPath>,
    caller: OnceLock<Cow<'static, str>>,
    status: OnceLock<FinalStatus>,
    /// Span of the request; disabled unless the trace of the request is exported.
    span: Span,
    started: Instant,
    connection: Option<Arc<OpenConnection>>,
    memory: Arc<MemoryBudget>,
}

/// Status with which a request ended.
enum FinalStatus {
    Http(u16),
    /// Name of the status code of a gRPC call.
    Rpc(&'static str),
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
        let mut trace_id = ArrayString::new();
        write!(trace_id, "{}", trace.trace_id_hex()).expect("a trace id has 32 digits");
        let request_id = headers.get("x-request-id").filter(|id| is_sane(id)).cloned();
        let method = known_method(method);
        let span = if trace.is_sampled() {
            let request_id = text_of(request_id.as_ref(), &trace_id);
            open_span(&trace, &trace_id, request_id, method, rpc.as_deref())
        } else {
            Span::none()
        };
        Self(Arc::new(Inner {
            request_id,
            trace,
            trace_id,
            method,
            rpc,
            route: OnceLock::new(),
            caller: OnceLock::new(),
            status: OnceLock::new(),
            span,
            started: Instant::now(),
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

    /// Returns the memory budgets to which the memory of the request is charged.
    pub fn memory(&self) -> MemoryAccount<'_> {
        let share = self.connection().and_then(|connection| connection.share());
        MemoryAccount { whole: &self.0.memory, share: share.map(|share| &share.memory) }
    }

    pub fn request_id(&self) -> &str {
        text_of(self.0.request_id.as_ref(), &self.0.trace_id)
    }

    /// Returns the value of the response header with the request id.
    pub(super) fn request_id_header(&self) -> HeaderValue {
        let given = self.0.request_id.clone();
        given.unwrap_or_else(|| {
            HeaderValue::from_str(self.trace_id()).expect("digits are visible characters")
        })
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
        !self.0.span.is_none()
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

    /// Returns the scope that adds the fields of this request to all log lines that are written within the scope.
    pub fn scope(&self) -> RequestScope {
        if self.is_traced() {
            RequestScope::Traced(self.0.span.clone())
        } else {
            RequestScope::Untraced(Arc::clone(&self.0) as _)
        }
    }

    /// Records the status of the response, and runs `log`, which writes the access log line.
    pub fn end(&self, status: u16, log: impl FnOnce()) {
        self.0.span.record("http.response.status_code", status);
        let _recorded_before = self.0.status.set(FinalStatus::Http(status));
        self.scope().enter(log);
    }

    /// Records the status code of a gRPC call, and runs `log`, which writes the access log line.
    pub fn end_call(&self, code: &'static str, log: impl FnOnce()) {
        self.0.span.record("rpc.response.status_code", code);
        let _recorded_before = self.0.status.set(FinalStatus::Rpc(code));
        self.scope().enter(log);
    }

    pub fn started(&self) -> Instant {
        self.0.started
    }
}

/// Supplies the fields of log lines for a request that has no span.
impl LoggedRequest for Inner {
    fn for_each_field(&self, add: &mut dyn FnMut(&'static str, FieldValue<'_>)) {
        let span_id = self.trace.span_id_hex().to_string();
        let status = self.status.get().map(|status| match status {
            FinalStatus::Http(status) => {
                ("http.response.status_code", FieldValue::Number(u64::from(*status)))
            }
            FinalStatus::Rpc(code) => ("rpc.response.status_code", FieldValue::Text(code)),
        });
        let texts = [
            ("request_id", Some(text_of(self.request_id.as_ref(), &self.trace_id))),
            ("trace_id", Some(&self.trace_id)),
            ("span_id", Some(&span_id)),
            ("http.request.method", Some(self.method)),
            ("rpc.method", self.rpc.as_deref()),
            ("http.route", self.route.get().map(MatchedPath::as_str)),
            ("caller", self.caller.get().map(AsRef::as_ref)),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                add(name, FieldValue::Text(text));
            }
        }
        if let Some((name, value)) = status {
            add(name, value);
        }
    }

    fn set_caller(&self, name: Cow<'static, str>) {
        let _recorded_before = self.caller.set(name);
    }
}

/// Returns the request id as text.
fn text_of<'a>(request_id: Option<&'a HeaderValue>, trace_id: &'a str) -> &'a str {
    request_id.and_then(|id| id.to_str().ok()).unwrap_or(trace_id)
}

/// Opens the span of a request. Returns a disabled span if the span would not be exported.
fn open_span(
    trace: &TraceContext,
    trace_id: &str,
    request_id: &str,
    method: &'static str,
    rpc: Option<&str>,
) -> Span {
    let span = in_trace(trace, || {
        info_span!(
            "http.request",
            otel.kind = "server",
            request_id,
            trace_id,
            span_id = %trace.span_id_hex(),
            http.request.method = method,
            http.route = field::Empty,
            http.response.status_code = field::Empty,
            caller = field::Empty,
            rpc.method = rpc,
            rpc.response.status_code = field::Empty,
        )
    });
    if !is_exported(&span) {
        return Span::none();
    }
    if let Some(rpc) = rpc {
        set_span_name(&span, rpc.to_owned());
    }
    span
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
    // The future of the inner service is not boxed, which saves an allocation per request.
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
        if context.rpc.is_none() && !context.span.is_none() {
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

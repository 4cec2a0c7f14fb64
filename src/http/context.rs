//! Context of a request: its id, its place in a trace, its route.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use http::{HeaderMap, HeaderValue, Method};
use tower::{Layer, Service};
use tracing::{Span, field, info_span, span};

use crate::telemetry::{TraceContext, export_if_sampled, set_span_name};

/// Longest request id that is taken from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Known from the first byte to the last; handlers find it in the request's extensions.
#[derive(Clone)]
pub struct RequestContext(Arc<Inner>);

struct Inner {
    request_id: HeaderValue,
    trace: TraceContext,
    trace_id: String,
    method: &'static str,
    route: OnceLock<MatchedPath>,
    span: Span,
    /// Whether the span is in a trace that is kept.
    is_traced: bool,
    started: Instant,
    peer: Option<IpAddr>,
}

impl RequestContext {
    /// `peer` holds the other end of the connection.
    pub fn begin(method: &Method, headers: &HeaderMap, peer: Option<IpAddr>) -> Self {
        let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok());
        let trace = TraceContext::from_traceparent(traceparent);
        let trace_id = trace.trace_id_hex().to_string();
        let request_id = headers.get("x-request-id").filter(|id| is_sane(id)).cloned();
        let request_id = request_id.unwrap_or_else(|| {
            HeaderValue::from_str(&trace_id).expect("hexadecimal digits are visible characters")
        });
        let method = known_method(method);
        let span = info_span!(
            "http.request",
            otel.kind = "server",
            request_id = request_id.to_str().unwrap_or_default(),
            trace_id,
            span_id = %trace.span_id_hex(),
            http_request_method = method,
            http_route = field::Empty,
            http_response_status_code = field::Empty,
        );
        let is_traced = export_if_sampled(&span, &trace);
        let (route, started) = (OnceLock::new(), Instant::now());
        Self(Arc::new(Inner {
            request_id,
            trace,
            trace_id,
            method,
            route,
            span,
            is_traced,
            started,
            peer,
        }))
    }

    pub fn peer(&self) -> Option<IpAddr> {
        self.0.peer
    }

    pub fn request_id(&self) -> &HeaderValue {
        &self.0.request_id
    }

    pub fn trace(&self) -> &TraceContext {
        &self.0.trace
    }

    /// The trace's id as 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.0.trace_id
    }

    /// Whether the span is in a trace that is kept.
    pub fn is_traced(&self) -> bool {
        self.0.is_traced
    }

    pub fn method(&self) -> &'static str {
        self.0.method
    }

    /// The template of the path, never the path itself: that would be one label for each wallet.
    pub fn route(&self) -> &str {
        self.0.route.get().map_or("unmatched", MatchedPath::as_str)
    }

    pub fn span(&self) -> &Span {
        &self.0.span
    }

    /// Notes how it was answered; whatever is logged while the guard lives says so.
    pub fn end(&self, status: u16) -> span::Entered<'_> {
        self.0.span.record("http_response_status_code", status);
        self.0.span.enter()
    }

    pub fn started(&self) -> Instant {
        self.0.started
    }
}

/// Writes down which route the router chose, as a layer of the router.
#[derive(Clone)]
pub struct RecordRouteLayer;

/// A service behind [`RecordRouteLayer`].
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
    // The same future, so that no request pays for another box.
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
        context.span.record("http_route", route.as_str());
        if context.is_traced {
            set_span_name(&context.span, format!("{} {}", context.method, route.as_str()));
        }
    }
}

/// An id that may stand in a log line and a header.
fn is_sane(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    let visible = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    !bytes.is_empty() && bytes.len() <= REQUEST_ID_BYTES_MAX && bytes.iter().all(visible)
}

/// Methods are a closed set in labels; a caller may invent others.
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

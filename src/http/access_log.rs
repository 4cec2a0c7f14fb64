//! Access log: records the latency of each request and writes a log line, even if the client disconnects. Only a sample
//! of the successful requests is logged.

use std::sync::Arc;

use axum::response::Response;
use http::StatusCode;
use tracing::{error, field, info, warn};

use super::context::RequestContext;
use super::middleware::RequestPipeline;
use super::rpc::record::CallRecorder;
use crate::error::Error;

/// Decides which successful requests are logged; `--log-success-ratio` sets their share.
#[derive(Debug, Clone, Copy)]
pub(super) struct SuccessSampler(pub(super) f64);

impl SuccessSampler {
    /// Whether the request is logged if it succeeds. The decision depends only on the trace id, so either all
    /// successful requests of a trace are logged, or none of them.
    pub(super) fn is_sampled(self, context: &RequestContext) -> bool {
        let [.., a, b, c, d] = context.trace().trace_id;
        let Self(ratio) = self;
        ratio >= 1.0 || f64::from(u32::from_be_bytes([a, b, c, d])) < ratio * f64::from(u32::MAX)
    }
}

/// Returns the time since the request began, rounded to microseconds.
pub(super) fn duration_ms(context: &RequestContext) -> f64 {
    (context.started().elapsed().as_secs_f64() * 1e6).round() / 1e3
}

/// Access record of a request, created when the request begins. If the record is dropped before the request has a
/// response, it logs that the client disconnected.
pub(super) struct Record<'a> {
    pipeline: &'a RequestPipeline,
    context: RequestContext,
    ended: bool,
}

impl<'a> Record<'a> {
    pub(super) fn begin(
        pipeline: &'a RequestPipeline,
        context: RequestContext,
        body: Option<u64>,
    ) -> Self {
        pipeline.calls.metrics.http_server_active_requests.increment(1.0);
        if let Some(bytes) = body.filter(|bytes| *bytes > 0) {
            #[expect(clippy::cast_precision_loss, reason = "a body is far smaller than 2^52")]
            pipeline.calls.metrics.http_server_request_body_size_bytes.record(bytes as f64);
        }
        Self { pipeline, context, ended: false }
    }

    pub(super) fn end<B>(mut self, response: &Response<B>) {
        self.ended = true;
        let status = response.status();
        let failure = response.extensions().get::<Arc<Error>>().map(AsRef::as_ref);
        if self.context.rpc().is_none() {
            self.measure(status.as_str());
        }
        if let Some(reason) = failure.and_then(rejection) {
            self.calls().metrics.wallet_http_rejected_total.with([reason]).increment(1);
        }
        if self.context.rpc().is_some() {
            // The status of a gRPC call that has not failed yet is known only at the end of its response, and is
            // recorded there.
            if let Some(error) = failure {
                self.calls().failed(&self.context, error);
            }
            return;
        }
        self.context.end(status.as_u16(), || match failure {
            Some(error) => self.log_failure(status, error),
            None if self.calls().sampler.is_sampled(&self.context) => self.log_success(status),
            None => {}
        });
    }

    fn measure(&self, status: &str) {
        let labels = [self.context.method(), self.context.route(), status];
        let seconds = self.context.started().elapsed().as_secs_f64();
        self.calls().metrics.http_server_request_duration_seconds.with(labels).record(seconds);
        if self.context.is_traced() {
            self.calls().metrics.exemplars.record(labels, seconds, self.context.trace_id());
        }
    }

    fn calls(&self) -> &CallRecorder {
        &self.pipeline.calls
    }

    fn log_success(&self, status: StatusCode) {
        info!(
            target: "access",
            event = "http.request",
            duration_ms = duration_ms(&self.context),
            outcome = "ok",
            "{} {} {}", self.context.method(), self.context.route(), status.as_u16(),
        );
    }

    fn log_failure(&self, status: StatusCode, error: &Error) {
        let problem = error.problem();
        let chain = error.cause().map(|cause| field::display(format!("{cause:#}")));
        macro_rules! line {
            ($level:ident, $outcome:literal) => {
                $level!(
                    target: "access",
                    event = "http.request",
                    duration_ms = duration_ms(&self.context),
                    outcome = $outcome,
                    error.type = problem.slug,
                    error.message = %error,
                    error.chain = chain,
                    "{} {} {} {}",
                    self.context.method(), self.context.route(), status.as_u16(), problem.slug,
                )
            };
        }
        // With `error`, the operator must act at once; with `warn`, soon. With `info`, the client must act.
        match status.as_u16() {
            500 => line!(error, "failed"),
            501.. => line!(warn, "failed"),
            _ => line!(info, "refused"),
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.calls().metrics.http_server_active_requests.decrement(1.0);
        if !self.ended {
            if self.context.rpc().is_some() {
                return self.calls().abandoned(&self.context);
            }
            // nginx uses the status 499 for a client that disconnects before the response.
            self.measure("499");
            self.calls().metrics.wallet_http_rejected_total.with(["client_gone"]).increment(1);
            self.context.end(499, || {
                info!(
                    target: "access",
                    event = "http.request",
                    duration_ms = duration_ms(&self.context),
                    outcome = "client_gone",
                    "{} {} 499 client gone", self.context.method(), self.context.route(),
                );
            });
        }
    }
}

/// Returns the metric label for a request that was rejected because of overload, a timeout or the size of its body;
/// `None` for other failures.
fn rejection(error: &Error) -> Option<&'static str> {
    match error {
        Error::Overloaded => Some("load_shed"),
        Error::Timeout(_) | Error::DeadlineExceeded(_) => Some("timeout"),
        Error::BodyTooLarge { .. } => Some("body_limit"),
        _ => None,
    }
}

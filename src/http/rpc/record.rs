//! Access records of gRPC calls: a log line and a latency sample per call, written when the response has ended.

use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Frame;
use tonic::{Code, Status};
use tonic_types::StatusExt;
use tracing::{error, field, info, warn};

use super::status::{code, code_name};
use crate::error::Error;
use crate::http::access_log::{SuccessSampler, duration_ms};
use crate::http::context::RequestContext;
use crate::telemetry::Metrics;

/// Writes the access records of gRPC calls. Cheap to clone.
#[derive(Clone)]
pub(in crate::http) struct CallRecorder {
    pub(in crate::http) metrics: Arc<Metrics>,
    pub(in crate::http) sampler: SuccessSampler,
}

impl CallRecorder {
    /// Begins the record of a call whose response is being sent. The status of the call is known only when the trailers
    /// are sent.
    pub(in crate::http) fn open(&self, context: &RequestContext) -> OpenCall {
        self.metrics.rpc_server_active_streams.increment(1.0);
        OpenCall { recorder: self.clone(), context: context.clone(), code: None, reason: None }
    }

    /// Records a call that failed before its response began.
    pub(in crate::http) fn failed(&self, context: &RequestContext, error: &Error) {
        let code = code(error);
        self.measure(context, code);
        context.end_call(code_name(code), || log_failure(context, code, error));
    }

    /// Records a call whose client disconnected before the status was sent.
    pub(in crate::http) fn abandoned(&self, context: &RequestContext) {
        self.measure(context, Code::Cancelled);
        context.end_call(code_name(Code::Cancelled), || {
            info!(
                target: "access",
                event = "rpc.request",
                duration_ms = duration_ms(context),
                outcome = "client_gone",
                "{} CANCELLED", context.rpc().unwrap_or_default(),
            );
        });
    }

    /// Records a call that ended with a status in the trailers.
    fn ended(&self, context: &RequestContext, code: Code, reason: Option<&str>) {
        self.measure(context, code);
        let is_logged = code != Code::Ok || self.sampler.is_sampled(context);
        context.end_call(code_name(code), || {
            if is_logged {
                log_end(context, code, reason);
            }
        });
    }

    fn measure(&self, context: &RequestContext, code: Code) {
        let labels = [context.rpc().unwrap_or_default(), code_name(code)];
        let seconds = context.started().elapsed().as_secs_f64();
        self.metrics.rpc_server_call_duration_seconds.with(labels).record(seconds);
    }
}

/// Writes the access log line of a call that failed before its response began.
fn log_failure(context: &RequestContext, code: Code, error: &Error) {
    let problem = error.problem();
    let chain = error.cause().map(|cause| field::display(format!("{cause:#}")));
    macro_rules! line {
        ($level:ident, $outcome:literal) => {
            $level!(
                target: "access",
                event = "rpc.request",
                duration_ms = duration_ms(context),
                outcome = $outcome,
                error.type = problem.slug,
                error.message = %error,
                error.chain = chain,
                "{} {} {}", context.rpc().unwrap_or_default(), code_name(code), problem.slug,
            )
        };
    }
    match problem.status.as_u16() {
        _ if code == Code::DeadlineExceeded => line!(info, "refused"),
        500 => line!(error, "failed"),
        501.. => line!(warn, "failed"),
        _ => line!(info, "refused"),
    }
}

/// Writes the access log line of a call that ended with a status in the trailers.
fn log_end(context: &RequestContext, code: Code, reason: Option<&str>) {
    macro_rules! line {
        ($level:ident, $outcome:literal) => {
            $level!(
                target: "access",
                event = "rpc.request",
                duration_ms = duration_ms(context),
                outcome = $outcome,
                error.type = reason,
                "{} {}", context.rpc().unwrap_or_default(), code_name(code),
            )
        };
    }
    match code {
        Code::Ok => line!(info, "ok"),
        Code::Internal | Code::Unknown | Code::DataLoss => line!(error, "failed"),
        _ => line!(info, "refused"),
    }
}

/// Record of a gRPC call whose response is being sent.
pub(in crate::http) struct OpenCall {
    recorder: CallRecorder,
    context: RequestContext,
    /// Status that the trailers contain; `None` until they are sent.
    code: Option<Code>,
    /// Name (slug) of the problem that the status reports.
    reason: Option<String>,
}

impl OpenCall {
    /// Remembers the status of the call if this frame contains the trailers.
    pub(in crate::http) fn observe(&mut self, frame: &Frame<Bytes>) {
        if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
            self.code = Some(status.code());
            if status.code() != Code::Ok {
                let details = status.get_error_details();
                self.reason = details.error_info().map(|info| info.reason.clone());
            }
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.recorder.metrics.rpc_server_active_streams.decrement(1.0);
        match self.code {
            Some(code) => self.recorder.ended(&self.context, code, self.reason.as_deref()),
            None => self.recorder.abandoned(&self.context),
        }
    }
}

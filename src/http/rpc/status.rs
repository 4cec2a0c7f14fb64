//! gRPC statuses of failed calls: the status code, the message, and details for programs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::error::{Error, Problem};
use crate::http::context::RequestContext;
use crate::http::problem;

/// Domain that identifies this service in the `ErrorInfo` details of a status.
const DOMAIN: &str = "revwallet";

/// An error that is attached to a status as its source, so that the middleware can read the error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failure(Arc<Error>);

/// Creates the status that a handler returns for an error. The middleware then extracts the error with [`failure_of`],
/// and writes the final status.
pub fn from_error(error: impl Into<Arc<Error>>) -> Status {
    let error = error.into();
    let mut status = Status::new(code(&error), error.to_string());
    status.set_source(Arc::new(Failure(error)));
    status
}

/// Returns the error from which a status was created. If tonic itself has created the status, for example for a
/// malformed message, returns a matching error.
pub fn failure_of(status: &Status, message_bytes_max: usize) -> Arc<Error> {
    let source = std::error::Error::source(status);
    if let Some(Failure(error)) = source.and_then(|source| source.downcast_ref()) {
        return Arc::clone(error);
    }
    Arc::new(match status.code() {
        Code::Unimplemented => Error::NotFound("method"),
        Code::NotFound => Error::NotFound("service"),
        Code::OutOfRange | Code::ResourceExhausted => {
            Error::BodyTooLarge { limit: message_bytes_max }
        }
        Code::Internal | Code::InvalidArgument | Code::Unknown => {
            Error::field("", "is not a valid message of this method")
        }
        Code::Cancelled => Error::BrokenBody,
        _ => Error::Internal(anyhow::anyhow!("unexpected status: {status}")),
    })
}

/// Returns the gRPC status code of an error.
pub fn code(error: &Error) -> Code {
    match error {
        Error::NotFound("path" | "method") | Error::CompressedBody => Code::Unimplemented,
        Error::IdempotencyKeyReused => Code::AlreadyExists,
        Error::InsufficientFunds { .. } | Error::RefundTooLarge { .. } => Code::FailedPrecondition,
        Error::DeadlineExceeded(_) => Code::DeadlineExceeded,
        Error::OfWallet { error, .. } | Error::InBatch { error, .. } => code(error),
        other => code_of_status(other.problem()),
    }
}

fn code_of_status(problem: &Problem) -> Code {
    match problem.status {
        StatusCode::BAD_REQUEST
        | StatusCode::UNPROCESSABLE_ENTITY
        | StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::CONFLICT | StatusCode::GONE => Code::FailedPrecondition,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Code::Unavailable
        }
        _ => Code::Internal,
    }
}

/// Creates the status of a failed call, as the client receives it.
pub fn status(error: &Error, context: &RequestContext) -> Status {
    let mut details = ErrorDetails::new();
    let mut metadata = HashMap::from([("trace_id".to_owned(), context.trace_id().to_owned())]);
    if let Error::InsufficientFunds { available, required } = error {
        metadata.insert("available".to_owned(), available.clone());
        metadata.insert("required".to_owned(), required.clone());
    }
    if let Error::Unrecoverable { position, .. } = error {
        metadata.insert("position".to_owned(), position.clone());
    }
    details.set_error_info(error.problem().slug, DOMAIN, metadata);
    let violations = violations(error);
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    if let Some(wait) = error.retry_after() {
        details.set_retry_info(Some(wait.max(Duration::from_secs(1))));
    }
    details.set_request_info(context.request_id(), "");
    Status::with_error_details(code(error), error.to_string(), details)
}

/// Returns the fields of a request message that the error reports as invalid.
pub fn violations(error: &Error) -> Vec<FieldViolation> {
    problem::broken(error)
        .iter()
        .map(|field| FieldViolation::new(field_name(&field.pointer), &field.detail))
        .collect()
}

/// Converts a JSON pointer to a field path in the notation of gRPC's `BadRequest`.
fn field_name(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

/// Returns the name of a status code in metrics and logs, such as `NOT_FOUND`.
pub(in crate::http) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

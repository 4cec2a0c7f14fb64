//! Problem documents: the form in which clients receive failures, `application/problem+json` of RFC 9457.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{Ref, RefOr};

use super::context::RequestContext;
use super::decimal::JsonDecimal;
use super::response::ResponseBody;
use super::rpc;
use crate::error::{Error, FieldError, StoreRefusal};

/// Body of every failed response.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody<'a> {
    /// Type of the problem: the path of a page that explains it.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid")]
    kind: String,
    /// Name of the problem type.
    #[schema(example = "Invalid request")]
    title: &'a str,
    /// HTTP status of the response.
    #[schema(example = 422)]
    status: u16,
    /// Description of what went wrong in this request.
    #[schema(example = "/amount: must be more than zero")]
    detail: String,
    /// Id by which the operator finds this request in logs and traces.
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: &'a str,
    /// Invalid fields of the request.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: Cow<'a, [FieldError]>,
    /// Available balance, if it is insufficient.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 5.00)]
    available: Option<JsonDecimal>,
    /// Required balance, if the available balance is insufficient.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 7.50)]
    required: Option<JsonDecimal>,
    /// Current price of the game, if it differs from the expected price.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 24.99)]
    price: Option<JsonDecimal>,
    /// Id of the wallet that does not exist, or that is frozen or closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "7")]
    wallet: Option<String>,
    /// The same as `title`, for clients that read `error`.
    #[schema(example = "Invalid request")]
    error: &'a str,
    /// The same as `detail`, for clients that read `details`.
    #[schema(example = "/amount: must be more than zero")]
    details: String,
    /// The same as `detail`, for clients that read `message`.
    #[schema(example = "/amount: must be more than zero")]
    message: String,
}

/// Placeholder for all failure statuses of an operation, which [`super::openapi::complete()`] replaces with the actual
/// statuses.
pub(super) const PROBLEMS_STATUS: &str = "default";

/// Name of the OpenAPI response for a transfer that was archived.
pub(super) const ARCHIVED: &str = "Archived";

/// Marks an operation that responds with problem documents, so that the OpenAPI document lists their statuses.
pub struct Problems;

impl utoipa::IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        BTreeMap::from([(PROBLEMS_STATUS.to_owned(), Ref::new("").into())])
    }
}

/// Marks an operation that reads old transfers, so that the OpenAPI document lists the status for archived transfers.
pub struct ArchiveProblem;

impl utoipa::IntoResponses for ArchiveProblem {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let response = Ref::from_response_name(ARCHIVED);
        BTreeMap::from([(StatusCode::GONE.as_str().to_owned(), response.into())])
    }
}

impl<'a> ProblemBody<'a> {
    pub fn new(error: &'a Error, trace_id: &'a str) -> Self {
        let problem = error.problem();
        let detail = error.to_string();
        let (available, required) = funds(error);
        Self {
            available,
            required,
            price: price_of(error),
            wallet: wallet_of(error),
            kind: format!("/problems/{}", problem.slug),
            title: problem.title,
            status: problem.status.as_u16(),
            trace_id,
            errors: broken(error),
            error: problem.title,
            details: detail.clone(),
            message: detail.clone(),
            detail,
        }
    }

    /// Creates the response body for a request whose head could not be parsed. `status` says what is wrong with the
    /// head.
    pub(super) fn malformed(status: StatusCode, detail: String, trace_id: &'a str) -> Self {
        let status = status.as_u16();
        let [details, message] = [detail.clone(), detail.clone()];
        Self { status, detail, details, message, ..Self::new(&Error::Malformed, trace_id) }
    }
}

fn funds(error: &Error) -> (Option<JsonDecimal>, Option<JsonDecimal>) {
    let number = |text: &String| JsonDecimal::new(text).ok();
    match error {
        Error::InsufficientFunds { available, required } => (number(available), number(required)),
        Error::InBatch { error, .. } | Error::OfWallet { error, .. } => funds(error),
        _ => (None, None),
    }
}

fn price_of(error: &Error) -> Option<JsonDecimal> {
    match error {
        Error::Store(StoreRefusal::PriceChanged { price }) => JsonDecimal::new(price).ok(),
        _ => None,
    }
}

fn wallet_of(error: &Error) -> Option<String> {
    match error {
        Error::OfWallet { wallet, .. } => Some(wallet.to_string()),
        Error::InBatch { error, .. } => wallet_of(error),
        _ => None,
    }
}

pub(super) fn broken(error: &Error) -> Cow<'_, [FieldError]> {
    match error {
        Error::Invalid(errors) | Error::InvalidProfile(errors) | Error::InvalidGame(errors) => {
            Cow::Borrowed(errors)
        }
        Error::OfWallet { pointer: Some(pointer), error, .. } => {
            Cow::Owned(vec![FieldError { pointer: pointer.clone(), detail: error.to_string() }])
        }
        Error::InBatch { error, .. }
            if matches!(**error, Error::OfWallet { pointer: Some(_), .. }) =>
        {
            broken(error)
        }
        Error::InBatch { place, error } => Cow::Owned(vec![FieldError {
            pointer: format!("/transfers/{place}"),
            detail: error.to_string(),
        }]),
        _ => Cow::Borrowed(&[]),
    }
}

/// Sets the status of the response, and attaches the error. The middleware writes the body later, because only the
/// middleware knows the trace id.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = self.problem().status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Writes the problem document, or the gRPC status, of a failed response. `keep` converts the body of a response that
/// did not fail.
pub(super) fn write<B>(
    response: Response<B>,
    context: &RequestContext,
    keep: impl FnOnce(B) -> ResponseBody,
) -> Response<ResponseBody> {
    let Some(error) = response.extensions().get::<Arc<Error>>().cloned() else {
        return response.map(keep);
    };
    if context.rpc().is_some() {
        let mut response: Response<ResponseBody> = rpc::status::status(&error, context).into_http();
        // The access record of the call reads the error from the response.
        response.extensions_mut().insert(error);
        return response;
    }
    let body = ProblemBody::new(&error, context.trace_id());
    let body = serde_json::to_vec(&body).expect("strings and numbers always serialize");
    // The parts of the response keep headers that axum has set, such as `Allow`.
    let (mut parts, _empty) = response.into_parts();
    let headers = &mut parts.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if matches!(*error, Error::Unauthenticated(_) | Error::InvalidCredentials) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(wait) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    Response::from_parts(parts, ResponseBody::full(body.into()))
}

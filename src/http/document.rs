//! Long documents, such as account statements, as JSON or CSV. They are streamed part by part, so memory use does not
//! depend on the length of a document.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, header};
use serde::Serialize;

use super::decimal::MoneyFormat;
use crate::error::{Error, Result};

/// Format of a document, which the client chooses with the `Accept` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentFormat {
    Json,
    Csv,
}

impl DocumentFormat {
    /// Returns CSV if the `Accept` header contains `text/csv`, and JSON otherwise.
    pub fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let is_csv = accept.is_some_and(|accept| accept.contains("text/csv"));
        if is_csv { Self::Csv } else { Self::Json }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// Returns a response whose parts are created while the client reads them. If a part is an error, the response ends
    /// early.
    ///
    /// The parts are created after the handler has returned, so this function captures the money format of the request
    /// first.
    pub fn respond(
        self,
        head: String,
        parts: impl Stream<Item = Result<String>> + Send + 'static,
        tail: String,
    ) -> Response {
        let one = |part| stream::iter([Ok(part)]);
        let (money, mut parts) = (MoneyFormat::current(), Box::pin(parts));
        let parts = stream::poll_fn(move |cx| money.write(|| parts.poll_next_unpin(cx)));
        let body = Body::from_stream(one(head).chain(parts).chain(one(tail)));
        ([(header::CONTENT_TYPE, self.content_type())], body).into_response()
    }
}

/// Serializes a part of a JSON document.
pub fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|cause| Error::Internal(cause.into()))
}

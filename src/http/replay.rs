//! Responses to requests that may repeat an earlier request with the same `Idempotency-Key`.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::json;

static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A response that gets the `Idempotent-Replayed` header if an earlier request with the same key has taken effect.
pub struct Replayable<T> {
    status: StatusCode,
    body: T,
    location: Option<String>,
    replayed: bool,
}

impl<T> Replayable<T> {
    pub fn ok(body: T, replayed: bool) -> Self {
        Self { status: StatusCode::OK, body, location: None, replayed }
    }

    pub fn with_status(status: StatusCode, body: T, replayed: bool) -> Self {
        Self { status, body, location: None, replayed }
    }

    /// Creates a response with status 201. `location` is the path of the created resource.
    pub fn created(body: T, location: impl Into<Option<String>>, replayed: bool) -> Self {
        Self { status: StatusCode::CREATED, body, location: location.into(), replayed }
    }
}

impl<T: Serialize> IntoResponse for Replayable<T> {
    fn into_response(self) -> Response {
        let mut response = json::response(self.status, &self.body);
        let headers = response.headers_mut();
        if let Some(Ok(location)) = self.location.map(HeaderValue::try_from) {
            headers.insert(header::LOCATION, location);
        }
        if self.replayed {
            headers.insert(&REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Creates a response without a body, with the `Idempotent-Replayed` header if the request was a repetition.
pub fn no_content(replayed: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if replayed {
        response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

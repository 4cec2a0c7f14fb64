//! CORS: the setting `--cors-origins` lists the websites whose pages may call the API from a browser.

use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{Any, CorsLayer};
use url::Url;

/// Longest time that a browser may cache the response to a preflight.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_hours(1);

/// Methods that a page of another origin may use.
const METHODS: [Method; 6] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Request headers that a page of another origin may send.
const REQUEST_HEADERS: [HeaderName; 8] = [
    header::ACCEPT,
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::IF_NONE_MATCH,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("prefer"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("x-request-id"),
];

/// Response headers that a page of another origin may read, besides those that CORS always allows.
const RESPONSE_HEADERS: [HeaderName; 8] = [
    header::ETAG,
    header::LINK,
    header::LOCATION,
    header::RETRY_AFTER,
    HeaderName::from_static("book-position"),
    HeaderName::from_static("idempotent-replayed"),
    HeaderName::from_static("preference-applied"),
    HeaderName::from_static("x-request-id"),
];

/// Origins (websites) whose pages may call the API from a browser. By default there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigins {
    Any,
    List(Vec<HeaderValue>),
}

impl Default for CorsOrigins {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl FromStr for CorsOrigins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Self::Any);
        }
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(origin).collect::<Option<_>>().map(Self::List).ok_or_else(|| {
            "give origins, such as https://app.example.com,http://localhost:3000, or *".to_owned()
        })
    }
}

/// Parses an origin into the form in which browsers send it: without a path and without the default port.
fn origin(text: &str) -> Option<HeaderValue> {
    let url = Url::parse(text).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https");
    let is_bare = url.path() == "/" && !text.ends_with('/') && !text.contains(['?', '#', '@', '*']);
    let origin = url.origin().ascii_serialization();
    HeaderValue::try_from(origin).ok().filter(|_| is_web && is_bare)
}

impl CorsOrigins {
    /// Whether pages of this origin may call the API from a browser.
    pub fn permit(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Any => true,
            Self::List(origins) => origins.contains(origin),
        }
    }

    /// Builds the layer that responds to preflights and sets the CORS headers. Returns `None` if no origin is allowed.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let layer = CorsLayer::new()
            .allow_methods(METHODS)
            .allow_headers(REQUEST_HEADERS)
            .expose_headers(RESPONSE_HEADERS)
            .max_age(PREFLIGHT_MAX_AGE);
        match self {
            Self::Any => Some(layer.allow_origin(Any)),
            Self::List(origins) if origins.is_empty() => None,
            Self::List(origins) => Some(layer.allow_origin(origins.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let list = |text: &str| match text.parse::<CorsOrigins>() {
            Ok(CorsOrigins::List(origins)) => {
                origins.iter().map(|origin| origin.to_str().unwrap().to_owned()).collect()
            }
            other => vec![format!("{other:?}")],
        };

        assert_eq!(list(""), Vec::<String>::new());
        assert_eq!(
            list("https://App.example.com:443, http://localhost:3000"),
            ["https://app.example.com", "http://localhost:3000"]
        );
        assert_eq!(" * ".parse(), Ok(CorsOrigins::Any));
    }

    #[test]
    fn values_that_no_browser_sends_are_rejected() {
        for text in [
            "app.example.com",
            "https://a.example/",
            "https://a.example/path",
            "https://a.example?x",
            "https://user@a.example",
            "ftp://a.example",
            "null",
            "*,https://a.example",
            "https://*.example.com",
        ] {
            assert!(text.parse::<CorsOrigins>().is_err(), "{text}");
        }
    }
}

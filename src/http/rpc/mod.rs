//! gRPC calls over HTTP: recognizing a request as a call, the deadline of a call, and the status of a failed call.
//!
//! A gRPC call passes the same middleware as any request, with two differences: a failure is written as a gRPC status
//! instead of a problem document ([`status`]), and the access record is written when the trailers of the response are
//! sent ([`record`]).

pub(super) mod record;
pub mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, header};

/// Metric label for methods that do not exist. Clients can send any path, so the path itself must not become a label.
const UNKNOWN_METHOD: &str = "_OTHER";

/// Maximum number of digits of a deadline in the `grpc-timeout` header, according to the gRPC protocol.
const DEADLINE_DIGITS_MAX: usize = 8;

/// The gRPC methods of all services. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcMethods(Arc<HashMap<String, Arc<str>>>);

impl RpcMethods {
    /// Creates a set of methods from their full names, such as `revwallet.v1.WalletService/GetBalance`.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let named = names.into_iter().map(|name| (format!("/{name}"), Arc::from(name)));
        let unknown = (String::new(), Arc::from(UNKNOWN_METHOD));
        Self(Arc::new(named.chain([unknown]).collect()))
    }

    /// Returns the full name of the method that a request calls, or `None` if the request is not a gRPC call.
    pub(super) fn called_by<B>(&self, request: &Request<B>) -> Option<Arc<str>> {
        if request.method() != Method::POST || !is_grpc(request.headers()) {
            return None;
        }
        self.0.get(request.uri().path()).or_else(|| self.0.get("")).cloned()
    }
}

/// Creates an empty set of methods, so that no request is handled as a gRPC call.
impl Default for RpcMethods {
    fn default() -> Self {
        Self(Arc::default())
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let rest = content_type.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    // A content type with another suffix, such as `+json`, is not recognized as gRPC.
    let rest = rest.map(|rest| rest.strip_prefix(b"+proto").unwrap_or(rest));
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b';')
}

/// Returns the deadline of a gRPC call, relative to its start, or `None` if it is missing or invalid.
pub fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !(1..=DEADLINE_DIGITS_MAX).contains(&digits.len()) || !is_number {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3_600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_follow_the_protocol() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers)
        };

        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999)));
        assert_eq!(read("0n"), Some(Duration::ZERO));
        for text in ["", "S", "1", "100000000S", "-1S", "1.5S", "1s", "+1S"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn only_posts_of_the_content_type_are_calls() {
        let methods = RpcMethods::new(["a.B/C".to_owned()]);
        let called = |method: Method, path: &str, kind: &'static str| {
            let request = Request::builder().method(method).uri(path);
            methods.called_by(&request.header("content-type", kind).body(()).unwrap())
        };

        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert_eq!(called(Method::POST, "/a.B/C", kind).as_deref(), Some("a.B/C"));
        }
        assert_eq!(called(Method::POST, "/a.B/D", "application/grpc").as_deref(), Some("_OTHER"));
        assert_eq!(called(Method::GET, "/a.B/C", "application/grpc"), None);
        assert_eq!(called(Method::POST, "/a.B/C", "application/grpc-web"), None);
        assert_eq!(called(Method::POST, "/a.B/C", "application/grpc+json"), None);
        assert_eq!(called(Method::POST, "/a.B/C", "application/json"), None);
    }
}

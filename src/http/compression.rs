//! Compression policy: large text responses, such as lists and HTML pages, are compressed if the client accepts gzip.
//!
//! tower-http does the compression, but its own policy is not used, because it can respond with 406 after the handler
//! has done its work, does not limit concurrent compressions, and keeps a strong `ETag`.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::compression::predicate::Predicate;

/// Smallest body, in bytes, that is compressed. A smaller body fits into a single network packet anyway.
const BYTES_MIN: u64 = 1_400;

/// Maximum number of concurrent compressions. Each takes a third of a megabyte of memory until the client has read the
/// response. Further responses are sent uncompressed.
pub(super) const COMPRESSIONS_MAX: usize = 64;

/// Content types that are worth compressing. Responses about single transfers are JSON too, but they are smaller than
/// [`BYTES_MIN`], so they are not compressed.
const CONTENT_TYPES: [&str; 4] =
    ["application/json", "text/", "image/svg+xml", "application/javascript"];

/// Response extension that allows tower-http to compress the response.
#[derive(Debug, Clone, Copy)]
struct Marked;

/// Predicate that makes tower-http compress only responses with a [`Marked`] extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct IsMarked;

impl Predicate for IsMarked {
    fn should_compress<B: Body>(&self, response: &Response<B>) -> bool {
        response.extensions().get::<Marked>().is_some()
    }
}

/// Sets the `Accept-Encoding` header of a request to `gzip` if the response may be compressed, and removes it
/// otherwise.
///
/// Only responses to `GET` are compressed. The length of a compressed response can help an attacker guess a secret in
/// the response; but only responses to `POST` contain secrets.
pub(super) fn negotiate<B>(request: &mut Request<B>) {
    if !request.headers().contains_key(header::ACCEPT_ENCODING) {
        return;
    }
    let wanted = request.method() == Method::GET && accepts_gzip(request.headers());
    let headers = request.headers_mut();
    if wanted {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    } else {
        headers.remove(header::ACCEPT_ENCODING);
    }
}

/// Whether [`negotiate`] has allowed a compressed response.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ACCEPT_ENCODING)
}

/// Whether `Accept-Encoding` allows gzip, by name or by the wildcard `*`.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let codings = values.filter_map(|value| value.to_str().ok()).flat_map(|text| text.split(','));
    let mut any = false;
    for coding in codings {
        let (name, quality) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let quality = quality.trim().strip_prefix(['q', 'Q']).unwrap_or_default();
        let quality = quality.trim_start_matches('=').parse::<f32>().unwrap_or_default();
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return quality > 0.0,
            "*" => any = quality > 0.0,
            _ => {}
        }
    }
    any
}

/// Whether compressing the response is worthwhile: it is large enough, and its content type compresses well.
pub(super) fn pays<B: Body>(response: &Response<B>) -> bool {
    let size = response.body().size_hint();
    let is_small = size.exact().is_some_and(|bytes| bytes < BYTES_MIN);
    if is_small || response.headers().contains_key(header::CONTENT_ENCODING) {
        return false;
    }
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default();
    CONTENT_TYPES.iter().any(|compressible| kind.starts_with(compressible))
}

/// Marks a response for compression, and returns a permit of the semaphore `room`, which the response must hold until
/// it has been sent. If no permit is left, the response is not marked.
///
/// `room` is `None` if the client does not want compression. The response is marked even then, because the mark makes
/// tower-http add the `Vary: accept-encoding` header.
pub(super) fn mark<B>(
    response: &mut Response<B>,
    room: Option<Arc<Semaphore>>,
) -> Option<OwnedSemaphorePermit> {
    let permit = match room.map(Semaphore::try_acquire_owned) {
        None => None,
        Some(Ok(permit)) => Some(permit),
        Some(Err(_)) => return None,
    };
    response.extensions_mut().insert(Marked);
    if permit.is_some() {
        weaken_etag(response.headers_mut());
    }
    permit
}

/// Makes a strong `ETag` weak, because a strong tag promises identical bytes and compression changes them.
fn weaken_etag(headers: &mut HeaderMap) {
    let Some(strong) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""))
    else {
        return;
    };
    if let Ok(weak) = HeaderValue::from_bytes(&[b"W/", strong.as_bytes()].concat()) {
        headers.insert(header::ETAG, weak);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_accepted_by_name_or_by_wildcard_and_never_against_a_quality_of_zero() {
        let accepts = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, text.parse().unwrap());
            accepts_gzip(&headers)
        };

        for text in ["gzip", "br, gzip", "GZIP;q=0.5", "*", "br;q=1, *;q=0.1", "gzip; q=1.0"] {
            assert!(accepts(text), "{text}");
        }
        for text in ["", "br", "identity", "gzip;q=0", "gzip;q=0.000, *", "*;q=0", "gzip;level=1"] {
            assert!(!accepts(text), "{text}");
        }
    }

    #[test]
    fn a_strong_tag_becomes_weak_and_a_weak_one_stays() {
        for (before, after) in [("\"a\"", "W/\"a\""), ("W/\"a\"", "W/\"a\"")] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ETAG, before.parse().unwrap());

            weaken_etag(&mut headers);

            assert_eq!(headers[header::ETAG], after);
        }
    }
}

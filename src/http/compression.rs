//! Compression of responses: lists, statements, documents and pages, if the client accepts it.
//!
//! tower-http compresses; what is decided here is what it is asked to compress, because it would answer 406 after the
//! handler has done its work, knows no bound, and leaves a strong `ETag` as it is.

use std::sync::Arc;

use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower_http::compression::predicate::Predicate;

/// Smallest body that is compressed: a smaller one fits into one packet as it is.
const BYTES_MIN: u64 = 1_400;

/// Most bodies that are compressed at once, because each needs a third of a megabyte until its client has read it.
/// The next one is sent as it is.
pub(super) const COMPRESSIONS_MAX: usize = 64;

/// Kinds of content that become smaller. Money is moved by small JSON answers, which their size excludes.
const CONTENT_TYPES: [&str; 4] =
    ["application/json", "text/", "image/svg+xml", "application/javascript"];

/// The answer may be compressed.
#[derive(Debug, Clone, Copy)]
struct Marked;

/// Asks tower-http to compress what is marked.
#[derive(Debug, Clone, Copy)]
pub(super) struct IsMarked;

impl Predicate for IsMarked {
    fn should_compress<B: Body>(&self, answer: &Response<B>) -> bool {
        answer.extensions().get::<Marked>().is_some()
    }
}

/// Leaves `Accept-Encoding: gzip` where the answer may be compressed, and nothing where not.
///
/// Only answers to `GET` are: secrets are answered to `POST`, so that no attack on the length of a compressed answer
/// reaches one.
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

/// Whether `Accept-Encoding` allows gzip: by its name, or else by `*`.
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

/// Whether the answer becomes smaller by more than compressing it costs.
pub(super) fn pays<B: Body>(answer: &Response<B>) -> bool {
    let size = answer.body().size_hint();
    if size.exact().is_some_and(|bytes| bytes < BYTES_MIN) {
        return false;
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or_default();
    CONTENT_TYPES.iter().any(|compressible| kind.starts_with(compressible))
}

/// Marks an answer for compression, if there is room; the permit is held until the body has been sent.
/// Where the client does not want it, the mark still makes the answer name `Accept-Encoding` in `Vary`.
pub(super) fn mark<B>(
    answer: &mut Response<B>,
    wanted: bool,
    room: &Arc<Semaphore>,
) -> Option<OwnedSemaphorePermit> {
    let permit = wanted.then(|| Arc::clone(room).try_acquire_owned().ok()).flatten();
    if wanted && permit.is_none() {
        return None;
    }
    answer.extensions_mut().insert(Marked);
    if permit.is_some() {
        weaken_etag(answer.headers_mut());
    }
    permit
}

/// Other bytes with the same meaning: the tag stays, as a weak one.
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

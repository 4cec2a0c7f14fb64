//! The `Book-Position` response header, which names the position in the ledger that a response reflects, and the query
//! parameter `stale=ok`, which permits an older response from a read replica.

use axum::response::Response;
use http::{HeaderName, HeaderValue, Request};

use crate::db::position;

static BOOK_POSITION: HeaderName = HeaderName::from_static("book-position");

/// Query parameter of `GET` and `HEAD` requests, which says whether the response may be stale.
pub(super) const STALE: &str = "stale";

/// The only value of [`STALE`]: the response may be stale.
pub(super) const STALE_OK: &str = "ok";

/// Properties of a request that affect how it reads from the database.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadOptions {
    /// Whether the method of the request is safe (changes nothing). Only responses to such requests can have the
    /// `Book-Position` header.
    is_read: bool,
    may_be_stale: bool,
}

impl ReadOptions {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let is_read = request.method().is_safe();
        let mut parameters = request.uri().query().unwrap_or_default().split('&');
        let may_be_stale = is_read && parameters.any(|parameter| parameter == "stale=ok");
        Self { is_read, may_be_stale }
    }
}

/// Runs a request. If the method of the request is safe and the request has read from the database, adds the
/// `Book-Position` header to the response. The header names the position in the ledger that the first database read of
/// the request reflects.
pub(super) async fn add_to_read<B, E>(
    options: ReadOptions,
    request: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let ReadOptions { is_read, may_be_stale } = options;
    let (response, position) = position::observe(may_be_stale, request).await;
    let mut response = response?;
    if let Some(Ok(position)) = position.filter(|_| is_read).map(HeaderValue::try_from) {
        response.headers_mut().insert(&BOOK_POSITION, position);
    }
    Ok(response)
}

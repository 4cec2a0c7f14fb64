//! The header `Book-Position`: how far the answer to a read takes the book and its events into account. The parameter
//! `stale=ok`: a read replica may answer the read.

use axum::response::Response;
use http::{HeaderName, HeaderValue, Request};

use crate::db::position;

static BOOK_POSITION: HeaderName = HeaderName::from_static("book-position");

/// Query parameter of a read whose answer may be stale.
pub(super) const STALE: &str = "stale";

/// The value that allows a stale answer.
pub(super) const STALE_OK: &str = "ok";

/// How the reads of a request affect its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadOptions {
    /// Whether the request is a read, so that its answer carries a position.
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

/// Runs a request; the answer to a read carries the position that its first statement has noted.
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

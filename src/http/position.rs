//! The header `Book-Position`: how far the answer to a read takes the book and its events into account.

use axum::response::Response;
use http::{HeaderName, HeaderValue};

use crate::db::position;

static BOOK_POSITION: HeaderName = HeaderName::from_static("book-position");

/// Runs a request; the answer to a read carries the position that its first statement has noted.
pub(super) async fn add_to_read<B, E>(
    is_read: bool,
    request: impl Future<Output = Result<Response<B>, E>>,
) -> Result<Response<B>, E> {
    let (response, position) = position::observe(request).await;
    let mut response = response?;
    if let Some(Ok(position)) = position.filter(|_| is_read).map(HeaderValue::try_from) {
        response.headers_mut().insert(&BOOK_POSITION, position);
    }
    Ok(response)
}

//! Pagination of lists: `?limit=`, an opaque cursor `?after=`, and a link to the next page in the `Link` header.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::json;
use crate::db::position::may_be_stale;
use crate::error::{Error, Result};

/// Default page size.
const PAGE_DEFAULT: i64 = 100;

/// Largest page size that a client may request.
pub const PAGE_MAX: i64 = 1_000;

/// Returns the page size that the client chose, or the default. A size outside of the limits is an error.
pub fn page_limit(limit: Option<i64>) -> Result<i64> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        _ => Err(Error::field("?limit", "must be from 1 to 1000")),
    }
}

/// Returns the last row of a full page; the next page begins after this row. Returns `None` if the page is not full,
/// because then it is the last page.
pub fn last_of_full_page<T>(rows: &[T], limit: i64) -> Option<&T> {
    rows.last().filter(|_| i64::try_from(rows.len()) == Ok(limit))
}

/// Formats a link to another page of a list. If the request has `stale=ok`, so does the link.
pub fn link(path: &str, rel: &str) -> String {
    let stale = if may_be_stale() { "&stale=ok" } else { "" };
    format!("<{path}{stale}>; rel=\"{rel}\"")
}

/// Adds the link to the next page to the response headers. `path` is `None` if there is no next page.
pub fn link_next(headers: &mut HeaderMap, path: Option<&str>) {
    let link = path.map(|path| HeaderValue::try_from(link(path, "next")));
    if let Some(Ok(link)) = link {
        headers.insert(header::LINK, link);
    }
}

/// A page of a list, which becomes a JSON response with a link to the next page.
pub struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// Creates a page. `next` is the path of the next page, or `None` if this page is the last.
    pub fn new(items: Vec<T>, next: Option<String>) -> Self {
        Self { items, next }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = json::response(StatusCode::OK, &self.items);
        link_next(response.headers_mut(), self.next.as_deref());
        response
    }
}

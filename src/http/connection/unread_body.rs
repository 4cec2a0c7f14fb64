//! Tracks request bodies: whether a body has arrived completely, and which part of it the handler has not read.
//!
//! On an HTTP/1.1 connection, the next request follows the body. So the server must drain (read and discard) an unread
//! body, or send `Connection: close` with the response. hyper does neither, but resets the connection while the client
//! is still sending its body.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Request, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::super::BODY_BYTES_MAX;
use super::OpenConnection;

/// Largest unread body that is drained. After a larger unread body, the connection is closed.
const DRAIN_BYTES_MAX: u64 = BODY_BYTES_MAX as u64;

/// Longest time that draining an unread body may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// The part of a request body that the handler has not read.
pub(in crate::http) struct Leftover<B> {
    body: Arc<Mutex<Option<B>>>,
    expects_continue: bool,
}

/// Tracks the body of a request. For an HTTP/1.1 request with a body, also returns a handle to the part that stays
/// unread; on an HTTP/2 connection, an unread body does not block other requests.
pub(in crate::http) fn track<B>(
    request: Request<B>,
    connection: &Arc<OpenConnection>,
) -> (Request<Body>, Option<Leftover<B>>)
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<axum::BoxError>,
{
    if request.body().is_end_stream() {
        return (request.map(|_ended| Body::empty()), None);
    }
    let slot = Arc::new(Mutex::new(None));
    let leftover = (request.version() < Version::HTTP_2).then(|| Leftover {
        body: Arc::clone(&slot),
        expects_continue: request.headers().contains_key(header::EXPECT),
    });
    connection.receiving.fetch_add(1, Ordering::Relaxed);
    let request = request.map(|inner| {
        Body::new(TrackedBody { inner: Some(inner), slot, connection: Arc::clone(connection) })
    });
    (request, leftover)
}

impl<B> Leftover<B>
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
{
    /// Drains the unread part in the background, or announces in the response that the connection will be closed.
    pub(in crate::http) fn settle(
        self,
        headers: &mut http::HeaderMap,
        connection: &Arc<OpenConnection>,
    ) {
        let left = self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(body) = left.filter(|body| !body.is_end_stream()) else { return };
        let is_small = body.size_hint().upper().is_some_and(|bytes| bytes <= DRAIN_BYTES_MAX);
        // A client that waits for `100 Continue` has not sent its body, and draining the body would ask the client to
        // send it.
        if is_small && !self.expects_continue {
            connection.tasks.spawn_short_lived(drain(body));
        } else {
            connection.has_unread_body.store(true, Ordering::Relaxed);
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Reads and discards the rest of a body. If the rest does not arrive in time, hyper closes the connection.
async fn drain<B: HttpBody + Unpin>(mut body: B) {
    let rest = async { while let Some(Ok(_frame)) = body.frame().await {} };
    let _out_of_time = tokio::time::timeout(DRAIN_TIME_MAX, rest).await;
}

/// A body that notes when it has arrived completely, and saves its unread part when the handler drops it.
struct TrackedBody<B> {
    /// The tracked body; `None` after it has arrived completely.
    inner: Option<B>,
    slot: Arc<Mutex<Option<B>>>,
    connection: Arc<OpenConnection>,
}

impl<B> TrackedBody<B> {
    fn end(&mut self) -> Option<B> {
        let inner = self.inner.take()?;
        self.connection.receiving.fetch_sub(1, Ordering::Relaxed);
        Some(inner)
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) || inner.is_end_stream() {
            drop(self.end());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl<B> Drop for TrackedBody<B> {
    fn drop(&mut self) {
        if let Some(left) = self.end() {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        }
    }
}

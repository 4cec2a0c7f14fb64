//! The body of an answer: written where the router has failed, and marked where compressing it pays.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::header;
use http_body_util::combinators::Fuse;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};
use tower_http::body::UnsyncBoxBody;

use super::compression::{self, COMPRESSIONS_MAX};
use super::context::RequestContext;
use super::problem;

/// Body as the router made it, behind the layer that catches panics.
pub(super) type RoutedBody = UnsyncBoxBody<Bytes, BoxError>;

/// The body of every answer, before it is compressed.
///
/// It may be asked again after its end, which compression does: a stream of a handler would panic.
pub struct AnswerBody {
    inner: Fuse<Either<RoutedBody, Full<Bytes>>>,
    /// The right to be compressed, until the client has read it all.
    compression: Option<OwnedSemaphorePermit>,
}

impl AnswerBody {
    fn routed(body: RoutedBody) -> Self {
        Self { inner: Fuse::new(Either::Left(body)), compression: None }
    }

    /// A body that is in memory.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { inner: Fuse::new(Either::Right(Full::new(bytes))), compression: None }
    }
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::full(Bytes::new())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Completes what the router has answered.
#[derive(Clone)]
pub(super) struct CompleteLayer {
    /// Permits, one for each body that is being compressed.
    compressions: Arc<Semaphore>,
}

impl Default for CompleteLayer {
    fn default() -> Self {
        Self { compressions: Arc::new(Semaphore::new(COMPRESSIONS_MAX)) }
    }
}

impl<S> Layer<S> for CompleteLayer {
    type Service = Complete<S>;

    fn layer(&self, inner: S) -> Complete<S> {
        Complete { inner, layer: self.clone() }
    }
}

/// A service behind [`CompleteLayer`].
#[derive(Clone)]
pub(super) struct Complete<S> {
    inner: S,
    layer: CompleteLayer,
}

impl<S> Service<Request> for Complete<S>
where
    S: Service<Request, Response = Response<RoutedBody>>,
{
    type Response = Response<AnswerBody>;
    type Error = S::Error;
    type Future = Completing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        Completing {
            context: request.extensions().get::<RequestContext>().cloned(),
            wants_gzip: request.headers().contains_key(header::ACCEPT_ENCODING),
            layer: self.layer.clone(),
            answer: self.inner.call(request),
        }
    }
}

pin_project! {
    /// An answer that is not complete yet.
    pub(super) struct Completing<F> {
        context: Option<RequestContext>,
        wants_gzip: bool,
        layer: CompleteLayer,
        #[pin]
        answer: F,
    }
}

impl<F, E> Future for Completing<F>
where
    F: Future<Output = Result<Response<RoutedBody>, E>>,
{
    type Output = Result<Response<AnswerBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(cx))?;
        // Otherwise the map grows twice on its way; two more headers come on the wire.
        answer.headers_mut().reserve(7);
        let mut answer = match this.context {
            Some(context) => problem::write(answer, context, AnswerBody::routed),
            None => answer.map(AnswerBody::routed),
        };
        if compression::pays(&answer) {
            let permit = compression::mark(&mut answer, *this.wants_gzip, &this.layer.compressions);
            answer.body_mut().compression = permit;
        }
        Poll::Ready(Ok(answer))
    }
}

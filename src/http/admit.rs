//! Admission: only as many requests at once as can be served soon, and none for longer than the limit.
//!
//! tower's own layers answer with errors of theirs, and tower-http's timeout with a bare status; here both are problems.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::Request;
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Timeout;
use tower::{Layer, Service};

use crate::error::Error;

/// Refuses a request that is one too many, and one that takes too long.
#[derive(Clone)]
pub(super) struct AdmitLayer {
    /// Permits, one for each request in progress.
    permits: Arc<Semaphore>,
    timeout: Duration,
}

impl AdmitLayer {
    pub(super) fn new(requests_max: usize, timeout: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(requests_max)), timeout }
    }
}

impl<S> Layer<S> for AdmitLayer {
    type Service = Admit<S>;

    fn layer(&self, inner: S) -> Admit<S> {
        Admit { inner, permits: Arc::clone(&self.permits), timeout: self.timeout }
    }
}

/// A service behind [`AdmitLayer`].
#[derive(Clone)]
pub(super) struct Admit<S> {
    inner: S,
    permits: Arc<Semaphore>,
    timeout: Duration,
}

impl<S, B> Service<Request<B>> for Admit<S>
where
    S: Service<Request<B>, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Admitted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            return Admitted::Refused;
        };
        let limit = self.timeout;
        let answer = tokio::time::timeout(limit, self.inner.call(request));
        Admitted::Running { answer, limit, _permit: permit }
    }
}

pin_project! {
    /// The answer of a request that asked to be admitted.
    #[project = AdmittedProj]
    pub(super) enum Admitted<F> {
        Refused,
        Running {
            #[pin]
            answer: Timeout<F>,
            limit: Duration,
            _permit: OwnedSemaphorePermit,
        },
    }
}

impl<F, E> Future for Admitted<F>
where
    F: Future<Output = Result<Response, E>>,
{
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project() {
            AdmittedProj::Refused => Ok(Error::Overloaded.into_response()),
            AdmittedProj::Running { answer, limit, .. } => ready!(answer.poll(cx))
                .unwrap_or_else(|_elapsed| Ok(Error::Timeout(*limit).into_response())),
        })
    }
}

//! Admission control: limits the number of concurrent requests, and the time that each request may take.
//!
//! [`AdmitLayer`] rejects a request with a problem document. It replaces two kinds of layers: those of tower, which
//! fail with their own error types, and the timeout layer of tower-http, which responds without a body.

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

use super::context::RequestContext;
use super::rpc;
use crate::error::Error;

/// Layer that rejects a request if too many requests are running, and ends a request that exceeds the timeout.
#[derive(Clone)]
pub(super) struct AdmitLayer {
    /// Semaphore with a permit for each request that may run at the same time.
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

/// The service that [`AdmitLayer`] wraps around the router.
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
        let is_call =
            request.extensions().get::<RequestContext>().is_some_and(|call| call.rpc().is_some());
        let deadline = is_call.then(|| rpc::deadline(request.headers())).flatten();
        let deadline = deadline.filter(|deadline| *deadline < self.timeout);
        let limit = deadline.unwrap_or(self.timeout);
        let response = tokio::time::timeout(limit, self.inner.call(request));
        Admitted::Running { response, limit, is_of_client: deadline.is_some(), _permit: permit }
    }
}

pin_project! {
    /// Future that resolves to the response of an [`Admit`] service.
    #[project = AdmittedProj]
    pub(super) enum Admitted<F> {
        Refused,
        Running {
            #[pin]
            response: Timeout<F>,
            limit: Duration,
            is_of_client: bool,
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
            AdmittedProj::Running { response, limit, is_of_client, .. } => {
                ready!(response.poll(cx)).unwrap_or_else(|_elapsed| {
                    let error =
                        if *is_of_client { Error::DeadlineExceeded } else { Error::Timeout };
                    Ok(error(*limit).into_response())
                })
            }
        })
    }
}

//! Completes the responses of handlers: writes the problem document of a failure, marks responses that are worth
//! compressing, and accounts for the memory of each body until the client has read it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::BoxError;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::combinators::Fuse;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};
use tower_http::body::UnsyncBoxBody;

use super::compression::{self, COMPRESSIONS_MAX};
use super::connection::{HandlerGuard, OpenConnection, RequestSlot};
use super::context::RequestContext;
use super::memory::{MemoryCharge, SharedBytes, UNCHARGED_BYTES};
use super::problem;
use super::rpc::record::{CallRecorder, OpenCall};
use crate::error::{Error, Result};

/// Memory that is charged to the memory budget for a streamed body. The size of the body is unknown, but only a part of
/// it is in memory at a time.
const STREAMED_BYTES: usize = 1024 * 1024;

/// Body of a response from the router. The layer that catches panics converts every body to this type.
pub(super) type RoutedBody = UnsyncBoxBody<Bytes, BoxError>;

/// Body of every response, before compression.
///
/// The body is fused: after its last frame, polling it again is safe. Compression does so, and the stream of a handler
/// might panic.
pub struct ResponseBody {
    inner: Fuse<Either<RoutedBody, Full<Bytes>>>,
    held: Held,
}

/// Resources that a response holds until its client has read it.
#[derive(Default)]
struct Held {
    /// Memory that the body takes from the memory budget. If the whole body is in memory, the charge moves to the bytes
    /// of its first frame, because HTTP/2 may still hold these bytes after it has dropped the body.
    memory: Option<MemoryCharge>,
    /// Access record of a gRPC call, which ends when the trailers of the response are sent.
    call: Option<OpenCall>,
    _compression: Option<OwnedSemaphorePermit>,
    _slot: Option<RequestSlot>,
}

impl ResponseBody {
    fn routed(body: RoutedBody) -> Self {
        Self { inner: Fuse::new(Either::Left(body)), held: Held::default() }
    }

    /// Creates a body from bytes that are in memory.
    pub(super) fn full(bytes: Bytes) -> Self {
        Self { inner: Fuse::new(Either::Right(Full::new(bytes))), held: Held::default() }
    }
}

impl Default for ResponseBody {
    fn default() -> Self {
        Self::full(Bytes::new())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let is_in_memory = self.inner.size_hint().exact().is_some();
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let (Some(call), Some(Ok(frame))) = (&mut self.held.call, &frame) {
            call.observe(frame);
        }
        let Some(charge) = self.held.memory.take_if(|_| is_in_memory) else {
            return Poll::Ready(frame);
        };
        let charged = frame.map(|frame| Ok(frame?.map_data(|bytes| charge.hold(bytes))));
        Poll::Ready(charged)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Layer that completes the responses of the router.
#[derive(Clone)]
pub(super) struct CompleteLayer {
    /// Semaphore with a permit for each body that may be compressed at the same time.
    compressions: Arc<Semaphore>,
    calls: CallRecorder,
}

impl CompleteLayer {
    pub(super) fn new(calls: CallRecorder) -> Self {
        Self { compressions: Arc::new(Semaphore::new(COMPRESSIONS_MAX)), calls }
    }
}

impl<S> Layer<S> for CompleteLayer {
    type Service = Complete<S>;

    fn layer(&self, inner: S) -> Complete<S> {
        Complete { inner, compressions: Arc::clone(&self.compressions), calls: self.calls.clone() }
    }
}

/// The service that [`CompleteLayer`] wraps around the router.
#[derive(Clone)]
pub(super) struct Complete<S> {
    inner: S,
    compressions: Arc<Semaphore>,
    calls: CallRecorder,
}

impl<S> Service<Request> for Complete<S>
where
    S: Service<Request, Response = Response<RoutedBody>>,
{
    type Response = Response<ResponseBody>;
    type Error = S::Error;
    type Future = Completing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let context = request.extensions().get::<RequestContext>();
        let context = context.expect("the pipeline begins with it").clone();
        let slot = match context.connection().map(OpenConnection::begin_request).transpose() {
            Ok(slot) => slot,
            Err(error) => return Completing::Refused { error: Some(error), context },
        };
        let completion = Completion {
            is_safe: request.method().is_safe(),
            compressions: compression::is_wanted(request.headers())
                .then(|| Arc::clone(&self.compressions)),
            calls: context.rpc().map(|_| self.calls.clone()),
            slot,
        };
        let handler = context.connection().map(OpenConnection::begin_handler);
        Completing::Running {
            response: self.inner.call(request),
            completion: Some(completion),
            _handler: handler,
            context,
        }
    }
}

pin_project! {
    /// Future that resolves to the response of a [`Complete`] service.
    #[project = CompletingProj]
    pub(super) enum Completing<F> {
        Refused { error: Option<Error>, context: RequestContext },
        Running {
            #[pin]
            response: F,
            completion: Option<Completion>,
            _handler: Option<HandlerGuard>,
            context: RequestContext,
        },
    }
}

impl<F, E> Future for Completing<F>
where
    F: Future<Output = Result<Response<RoutedBody>, E>>,
{
    type Output = Result<Response<ResponseBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match self.project() {
            CompletingProj::Refused { error, context } => {
                refused(error.take().unwrap_or(Error::Overloaded), context)
            }
            CompletingProj::Running { response, completion, context, .. } => {
                let response = ready!(response.poll(cx))?;
                let completion = completion.take().expect("not polled after its end");
                completion.complete(response, context)
            }
        }))
    }
}

/// Inputs for completing a response, gathered before the handler runs.
pub(super) struct Completion {
    /// Whether the request's method is safe (changes nothing). If memory is short, only the response to a safe request
    /// may be replaced by an error.
    is_safe: bool,
    /// Permits for compression; `None` if the client does not want a compressed response.
    compressions: Option<Arc<Semaphore>>,
    /// Recorder of the call; `None` unless the request is a gRPC call.
    calls: Option<CallRecorder>,
    slot: Option<RequestSlot>,
}

impl Completion {
    fn complete(
        self,
        mut response: Response<RoutedBody>,
        context: &RequestContext,
    ) -> Response<ResponseBody> {
        let memory = match charge(&response, context) {
            Ok(memory) => memory,
            Err(error) if self.is_safe => return refused(error, context),
            Err(_) => None,
        };
        let is_failure = response.extensions().get::<Arc<Error>>().is_some();
        // Reserves room for all headers at once. Otherwise the map would grow twice, because hyper adds two more
        // headers.
        response.headers_mut().reserve(7);
        let mut response = problem::write(response, context, ResponseBody::routed);
        let mut compression = None;
        if compression::pays(&response) {
            compression = compression::mark(&mut response, self.compressions);
        }
        let call = self.calls.filter(|_| !is_failure).map(|calls| calls.open(context));
        response.body_mut().held =
            Held { memory, call, _compression: compression, _slot: self.slot };
        response
    }
}

/// Charges a response body to the memory budget until the client has read the body.
fn charge(
    response: &Response<RoutedBody>,
    context: &RequestContext,
) -> Result<Option<MemoryCharge>> {
    // gRPC messages are small, and the message queue of a stream is bounded, so they are not charged to the budget. The
    // content type is checked too, because a gRPC client can call a route that is not a gRPC service.
    let kind = response.headers().get(http::header::CONTENT_TYPE);
    let is_grpc = context.rpc().is_some() && kind.is_some_and(|kind| kind == "application/grpc");
    if response.extensions().get::<SharedBytes>().is_some() || is_grpc {
        return Ok(None);
    }
    let bytes = match response.body().size_hint().exact() {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => STREAMED_BYTES,
    };
    (bytes > UNCHARGED_BYTES).then(|| context.memory().charge_response(bytes)).transpose()
}

fn refused(error: Error, context: &RequestContext) -> Response<ResponseBody> {
    problem::write(error.into_response(), context, |_empty| ResponseBody::default())
}

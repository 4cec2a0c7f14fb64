//! Shared code of all gRPC services. They use the same port as the HTTP API.
//!
//! Each call passes the HTTP middleware (`http/rpc`) and then reaches its gRPC service. A handler that fails returns a
//! status that contains the error ([`status::from_error`]). A layer in this module takes the error out of the status,
//! and the middleware then writes the final status with its details. The reflection services (v1 and v1alpha) and the
//! health service need no credential.

mod health;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::post_service;
use prost::Message;
use prost_types::FileDescriptorSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic_reflection::server::Builder;
use tower::Service;
use tower::util::MapResponseLayer;
use uuid::Uuid;

use crate::auth::{
    Authenticator, Caller, PresentedCredential, TrustedProxies, bearer, client_address,
};
use crate::error::{Error, Result};
use crate::http::context::RequestContext;
use crate::http::rpc::{self, RpcMethods, status};
use crate::idempotency_key::IdempotencyKey;

pub use self::health::Health;

/// Largest gRPC message that a client may send, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Rust code that the build generates from the files in `proto/`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod proto {
    tonic::include_proto!("revwallet.v1");
}

/// Encoded descriptors of the files in `proto/`. They supply the reflection service and the list of method names.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Decodes the descriptors of all gRPC services, including health and reflection.
fn descriptors() -> Vec<FileDescriptorSet> {
    let encoded = [
        DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let decode = |bytes| FileDescriptorSet::decode(bytes).expect("the build made the descriptors");
    encoded.into_iter().map(decode).collect()
}

/// Returns the methods of all gRPC services, each by its full name, such as `package.Service/Method`.
pub fn methods() -> RpcMethods {
    let sets = descriptors();
    let files = sets.iter().flat_map(|set| &set.file);
    let services = files.flat_map(|file| file.service.iter().map(move |service| (file, service)));
    RpcMethods::new(services.flat_map(|(file, service)| {
        let name = format!("{}.{}", file.package(), service.name());
        service.method.iter().map(move |method| format!("{name}/{}", method.name()))
    }))
}

/// Returns the routes of the reflection and health services.
pub fn routes(health: &Health) -> anyhow::Result<Router> {
    let builder = || {
        descriptors().into_iter().fold(Builder::configure(), Builder::register_file_descriptor_set)
    };
    let v1 = builder().build_v1()?.max_decoding_message_size(MESSAGE_BYTES_MAX);
    let v1alpha = builder().build_v1alpha()?.max_decoding_message_size(MESSAGE_BYTES_MAX);
    Ok(Router::new().merge(service(v1)).merge(service(v1alpha)).merge(service(health.service())))
}

/// Returns the routes of a gRPC service, with the layers that every gRPC service needs.
pub fn service<S>(service: S) -> Router
where
    S: Service<Request, Response = http::Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let path = format!("/{}/{{*method}}", S::NAME);
    Router::new()
        .route(&path, post_service(service))
        .layer(MapResponseLayer::new(recover_error))
        .layer(axum::middleware::from_fn(check_request))
}

/// Refuses a request whose content type is not a gRPC type. The gRPC library (tonic) does not check the content type,
/// and browsers let pages of any website send requests with certain types, such as `text/plain`. Also drops the
/// trailers of the request, because tonic would let them replace headers, such as the credential or the client address
/// that the edge proxy has written.
async fn check_request(request: Request, next: Next) -> Response {
    let context = request.extensions().get::<RequestContext>();
    let is_call = context.is_some_and(|context| context.rpc().is_some());
    if request.method() == http::Method::POST && !is_call {
        return Error::UnsupportedMediaType.into_response();
    }
    let encoding = request.headers().get("grpc-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Error::CompressedBody.into_response();
    }
    next.run(request.map(|body| axum::body::Body::from_stream(body.into_data_stream()))).await
}

/// Moves the error of a failed gRPC call into the extensions of the response, where the HTTP middleware finds it and
/// writes the gRPC status.
fn recover_error(mut response: Response) -> Response {
    let status = response.extensions_mut().remove::<Status>();
    // The generated code of tonic writes some statuses only as response headers.
    let status = status.or_else(|| Status::from_header_map(response.headers()));
    let Some(status) = status.filter(|status| status.code() != tonic::Code::Ok) else {
        return response;
    };
    let mut failed = http::StatusCode::OK.into_response();
    failed.extensions_mut().insert(status::failure_of(&status, MESSAGE_BYTES_MAX));
    failed
}

/// Caller, credential, idempotency key and trace of a gRPC call.
#[derive(Debug)]
pub struct CallMeta {
    pub caller: Caller,
    pub presented: Option<PresentedCredential>,
    pub key: IdempotencyKey,
    pub trace: Uuid,
}

impl CallMeta {
    /// Identifies the caller from the metadata of the call, and reads the idempotency key.
    pub async fn read<T>(
        request: &tonic::Request<T>,
        authenticator: &Authenticator,
    ) -> Result<Self> {
        let headers = request.metadata().as_ref();
        let context = request.extensions().get::<RequestContext>();
        let trace = context.map(RequestContext::stored_trace);
        let checked_at = std::time::Instant::now();
        Ok(Self {
            caller: authenticator.identify_request(headers).await?,
            presented: bearer(headers)?.map(|token| PresentedCredential { token, checked_at }),
            key: IdempotencyKey::from_headers(headers)?,
            trace: trace.unwrap_or_default(),
        })
    }
}

/// Client address and deadline of a gRPC stream, and the signal that the client's connection is about to close.
#[derive(Clone)]
pub struct StreamMeta {
    pub address: Option<IpAddr>,
    /// Token that the server cancels when it is about to close the client's connection.
    pub closing: CancellationToken,
    /// Deadline of the stream: the timeout that the client sent, and the time at which it expires. `None` if there is
    /// no deadline.
    deadline: Option<(Duration, Instant)>,
    context: Option<RequestContext>,
}

impl StreamMeta {
    pub fn read<T>(request: &tonic::Request<T>, proxies: &TrustedProxies) -> Self {
        let headers = request.metadata().as_ref();
        let context = request.extensions().get::<RequestContext>().cloned();
        let peer = context.as_ref().and_then(RequestContext::peer);
        let closing = context.as_ref().and_then(RequestContext::closing);
        let deadline = rpc::deadline(headers)
            .and_then(|limit| Some((limit, Instant::now().checked_add(limit)?)));
        let address = peer.map(|peer| client_address(peer, headers, proxies));
        Self { address, closing: closing.unwrap_or_default(), deadline, context }
    }

    /// Waits for `next`, but at most until the client's deadline. Converts an error to the final status of the stream.
    pub async fn within_deadline<T>(
        &self,
        next: impl Future<Output = Result<T>>,
    ) -> Result<T, Status> {
        let outcome = match self.deadline {
            Some((limit, deadline)) if deadline <= Instant::now() => {
                Err(Error::DeadlineExceeded(limit))
            }
            Some((limit, deadline)) => tokio::time::timeout_at(deadline, next)
                .await
                .unwrap_or_else(|_elapsed| Err(Error::DeadlineExceeded(limit))),
            None => next.await,
        };
        outcome.map_err(|error| self.status(error))
    }

    /// Returns the final status of a stream that ends with `error`.
    pub fn status(&self, error: impl Into<Arc<Error>>) -> Status {
        let error = error.into();
        match &self.context {
            Some(context) => status::status(&error, context),
            None => status::from_error(error),
        }
    }

    /// Returns the final status of a stream that ends because the gRPC library (tonic) refused a message from the
    /// client.
    pub fn status_of_message(&self, refusal: &Status) -> Status {
        self.status(status::failure_of(refusal, MESSAGE_BYTES_MAX))
    }
}

/// Converts the outcome of a handler to a gRPC response or status.
pub fn reply<T>(outcome: Result<T>) -> Result<tonic::Response<T>, Status> {
    outcome.map(tonic::Response::new).map_err(status::from_error)
}

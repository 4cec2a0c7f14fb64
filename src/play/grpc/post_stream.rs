//! The gRPC method `PostStream`: a client sends many deposits, withdrawals and transfers (items) over a single stream.
//! Each item succeeds or fails independently of the others.
//!
//! Two limits slow down a client that sends faster than the ledger posts: a limit on the requests in progress on each
//! stream, and a limit on the items in progress on all streams together. When a limit is reached, the server stops
//! reading, and the flow control of HTTP/2 makes the client wait.

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::Semaphore;
use tonic::{Request, Status, Streaming};

use super::WalletRpc;
use crate::auth::{Caller, PresentedCredential};
use crate::error::{Error, Result};
use crate::grpc::proto::post_item::Operation;
use crate::grpc::proto::post_result::Outcome;
use crate::grpc::proto::{
    FieldFailure, ItemFailure, PostItem, PostResult, PostStreamRequest, PostStreamResponse,
    PostedItem,
};
use crate::grpc::{CallMeta, StreamMeta};
use crate::http::rpc::status;
use crate::idempotency_key::IdempotencyKey;
use crate::telemetry::Metrics;
use crate::wallet::RequestMeta;

/// Maximum number of items in a request message.
const ITEMS_MAX: usize = 256;

/// Maximum number of requests in progress on a stream.
const REQUESTS_MAX: usize = 4;

/// Maximum number of items in progress on all streams together: half of the default size of the ledger writer's queue.
/// The other half is left for other requests.
const ITEMS_IN_PROGRESS_MAX: usize = 4_096;

type Responses = BoxStream<'static, Result<PostStreamResponse, Status>>;

/// Limit on the items in progress on all streams. Cheap to clone.
#[derive(Clone)]
pub struct StreamLimit(Arc<Semaphore>);

impl Default for StreamLimit {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ITEMS_IN_PROGRESS_MAX)))
    }
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["posted", "replayed", "refused", "failed"] {
        metrics.wallet_stream_items_total.preregister([outcome]);
    }
}

/// The caller of a stream, and the state that all items of the stream share.
struct Sender {
    rpc: WalletRpc,
    call: CallMeta,
}

impl WalletRpc {
    /// Posts the items of each request on the stream, and sends the responses in the order of the requests.
    pub(super) async fn post_items(
        &self,
        request: Request<Streaming<PostStreamRequest>>,
    ) -> Result<Responses> {
        let call = CallMeta::read(&request, &self.authenticator).await?;
        let meta = StreamMeta::read(&request, &self.trusted_proxies);
        let sender = Arc::new(Sender { rpc: self.clone(), call });
        let end = meta.clone();
        let answers = requests(request.into_inner(), meta).map(move |request| {
            let (sender, meta) = (Arc::clone(&sender), end.clone());
            async move { sender.answer(request?).await.map_err(|error| meta.status(error)) }
        });
        Ok(until_failure(answers.buffered(REQUESTS_MAX)).boxed())
    }
}

/// Returns a stream of the client's requests. It ends when the client ends its stream, the deadline passes, or the
/// server is about to close the connection.
fn requests(
    messages: Streaming<PostStreamRequest>,
    meta: StreamMeta,
) -> impl stream::Stream<Item = Result<PostStreamRequest, Status>> + Send {
    stream::unfold(Some(messages), move |messages| {
        let meta = meta.clone();
        async move {
            let mut messages = messages?;
            let next = async {
                tokio::select! {
                    biased;
                    // The error makes the client reconnect to another process and repeat the requests that have no
                    // response.
                    () = meta.closing.cancelled() => Err(Error::Overloaded),
                    message = messages.message() => Ok(message),
                }
            };
            let request = match meta.within_deadline(next).await {
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(request))) => Ok(request),
                Ok(Err(status)) => Err(meta.status_of_message(&status)),
                Err(status) => Err(status),
            };
            let rest = request.is_ok().then_some(messages);
            Some((request, rest))
        }
    })
}

/// Ends a stream of responses after its first error, because a gRPC stream cannot continue after an error.
fn until_failure<T: Send + 'static>(
    answers: impl stream::Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl stream::Stream<Item = Result<T, Status>> + Send {
    let mut has_failed = false;
    answers.take_while(move |answer| {
        let is_after_failure = std::mem::replace(&mut has_failed, answer.is_err());
        std::future::ready(!is_after_failure)
    })
}

impl Sender {
    /// Posts the items of a request. If an item fails, the response contains the item's failure. If the whole request
    /// fails, the stream ends.
    async fn answer(&self, request: PostStreamRequest) -> Result<PostStreamResponse> {
        let PostStreamRequest { items } = request;
        let count = items.len();
        if count > ITEMS_MAX {
            let detail = format!("must have at most {ITEMS_MAX} items, and has {count}");
            return Err(Error::field("/items", detail));
        }
        let caller = self.caller().await?;
        let permits = u32::try_from(count).unwrap_or(u32::MAX);
        let limit = &self.rpc.stream_limit.0;
        let _in_progress =
            limit.acquire_many(permits).await.map_err(|_closed| Error::Overloaded)?;
        let results = items.into_iter().map(|item| self.result(item, &caller));
        Ok(PostStreamResponse { results: join_all(results).await })
    }

    /// Authenticates the caller again for each request, so that a stream ends soon after its credential expires or is
    /// revoked.
    async fn caller(&self) -> Result<Caller> {
        match &self.call.presented {
            Some(PresentedCredential { token, .. }) => {
                self.rpc.authenticator.identify(Some(token)).await
            }
            None => Ok(self.call.caller.clone()),
        }
    }

    async fn result(&self, item: PostItem, caller: &Caller) -> PostResult {
        let posted = self.post(item, caller).await;
        let outcome = match &posted {
            Ok(posted) if posted.replayed => "replayed",
            Ok(_) => "posted",
            Err(error) if error.problem().status.is_server_error() => "failed",
            Err(_) => "refused",
        };
        self.rpc.metrics.wallet_stream_items_total.with([outcome]).increment(1);
        let outcome =
            posted.map_or_else(|error| Outcome::Failure(failure(&error)), Outcome::Posted);
        PostResult { outcome: Some(outcome) }
    }

    async fn post(&self, item: PostItem, caller: &Caller) -> Result<PostedItem> {
        let key = IdempotencyKey::from_text(&item.idempotency_key)
            .map_err(|detail| Error::field("/idempotency_key", detail))?;
        let meta = RequestMeta { caller, key: &key, trace: self.call.trace };
        let posting = match item.operation {
            Some(Operation::Deposit(message)) => self.rpc.post_deposit(&message, meta).await,
            Some(Operation::Withdraw(message)) => self.rpc.post_withdrawal(&message, meta).await,
            Some(Operation::Transfer(message)) => self.rpc.post_transfer(&message, meta).await,
            None => Err(Error::field("/operation", "is required: deposit, withdraw or transfer")),
        };
        posting.map(Into::into)
    }
}

fn failure(error: &Error) -> ItemFailure {
    if let Some(cause) = error.cause() {
        // The log record of the call contains only the status of the whole stream, so the cause is logged here.
        tracing::error!(
            event = "rpc.item_failed",
            error.message = %error,
            error.chain = format!("{cause:#}"),
            "could not post an item of a gRPC stream because of an internal error; the response reports the failure to the client"
        );
    }
    let fields = status::violations(error);
    ItemFailure {
        code: status::code(error).into(),
        reason: error.problem().slug.to_owned(),
        message: error.to_string(),
        fields: fields
            .into_iter()
            .map(|violation| FieldFailure {
                field: violation.field,
                description: violation.description,
            })
            .collect(),
    }
}

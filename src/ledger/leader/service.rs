//! The service of the leader: writes the postings that followers send.

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{BoxStream, StreamExt};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::LeaderHandle;
use super::proto::ledger_service_server::{LedgerService, LedgerServiceServer};
use super::proto::{self, PostReply, PostRequest, PostResponse};
use super::wire::{self, VERSION};
use crate::ledger::Ledger;
use crate::ledger::writer::PostError;
use crate::secret::constant_time_eq;
use crate::telemetry::Metrics;

/// Largest request that the leader accepts, in bytes. A request has at most about a thousand legs, with up to 4 KiB of
/// metadata each.
const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Full names of the gRPC methods.
pub const METHODS: [&str; 1] = ["revwallet.internal.v1.LedgerService/Post"];

/// Maximum number of requests of one follower that are processed at the same time.
const REQUESTS_MAX: usize = 4;

/// Writes the postings of followers. Cheap to clone.
#[derive(Clone)]
pub struct PostingService {
    ledger: Ledger,
    leader: LeaderHandle,
    metrics: Arc<Metrics>,
}

impl PostingService {
    /// Creates the gRPC service; `None` if this process takes no part in the election of a leader.
    pub fn new(ledger: &Ledger) -> Option<LedgerServiceServer<Self>> {
        let service = Self {
            leader: ledger.leader.clone()?,
            metrics: Arc::clone(&ledger.metrics),
            ledger: ledger.clone(),
        };
        Some(LedgerServiceServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX))
    }

    /// Returns the key of this leader if the sender presents it, which proves that the sender can read the database;
    /// otherwise returns an error.
    fn require_key<T>(&self, request: &Request<T>) -> Result<Uuid, Status> {
        let key = self.leader.leader_key().ok_or_else(not_leading)?;
        let expected = format!("Bearer {key}");
        let presented = request.metadata().get("authorization");
        let presented = presented.map(MetadataValue::as_bytes).unwrap_or_default();
        if constant_time_eq(presented, expected.as_bytes()) {
            return Ok(key);
        }
        Err(Status::unauthenticated("the key does not match that of this leader"))
    }

    /// Queues the postings of a request in order, and returns a future that completes with the response. Returns an
    /// error, and queues no posting, if this process no longer leads with this key.
    fn write(
        &self,
        request: PostRequest,
        key: Uuid,
    ) -> Result<impl Future<Output = PostResponse> + Send + use<>, Status> {
        if self.leader.leader_key() != Some(key) {
            return Err(not_leading());
        }
        let PostRequest { postings, version } = request;
        self.metrics.wallet_ledger_received_total.increment(postings.len() as u64);
        let queued = postings.into_iter().map(|posting| self.enqueue(posting, version));
        let queued: Vec<_> = queued.collect();
        Ok(async move { PostResponse { replies: join_all(queued).await } })
    }

    fn enqueue(
        &self,
        posting: proto::Posting,
        version: u32,
    ) -> impl Future<Output = PostReply> + Send + use<> {
        let posting = (version == VERSION).then_some(posting);
        let posting = posting.and_then(|one| wire::decode_posting(one, &self.leader.registry));
        let queued = posting.map(|posting| self.ledger.enqueue_own(posting));
        async move {
            let reply = match queued {
                None => return wire::unsupported(),
                Some(Ok(reply)) => reply.await.unwrap_or(Err(PostError::Unknown)),
                Some(Err(error)) => Err(error),
            };
            wire::encode_reply(&reply)
        }
    }
}

#[tonic::async_trait]
impl LedgerService for PostingService {
    type PostStream = BoxStream<'static, Result<PostResponse, Status>>;

    async fn post(
        &self,
        request: Request<Streaming<PostRequest>>,
    ) -> Result<Response<Self::PostStream>, Status> {
        let key = self.require_key(&request)?;
        let service = self.clone();
        // Requests that were read before the process began to stop still get a response.
        let stopping = self.leader.stopping.clone().cancelled_owned();
        let requests = request.into_inner().take_until(stopping);
        let responses = requests
            .map(move |request| request.and_then(|request| service.write(request, key)))
            .map(|writing| async move { Ok(writing?.await) })
            .buffered(REQUESTS_MAX);
        Ok(Response::new(responses.boxed()))
    }
}

fn not_leading() -> Status {
    Status::failed_precondition("this process is not the leader")
}

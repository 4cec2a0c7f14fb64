//! The service of the leader: writes the postings that followers send.

use std::sync::Arc;

use futures_util::future::join_all;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use tracing::Span;

use super::LeaderHandle;
use super::proto::ledger_service_server::{LedgerService, LedgerServiceServer};
use super::proto::{self, PostRequest, PostResponse};
use super::wire::{self, VERSION};
use crate::ledger::Ledger;
use crate::ledger::writer::PostError;
use crate::secret::constant_time_eq;
use crate::telemetry::Metrics;

/// Largest request: a follower sends at most about a thousand legs, with 4 KiB of metadata each.
const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Full names of the methods.
pub const METHODS: [&str; 1] = ["revwallet.internal.v1.LedgerService/Post"];

/// Writes the postings of followers.
pub struct PostingService {
    ledger: Ledger,
    leader: LeaderHandle,
    metrics: Arc<Metrics>,
}

impl PostingService {
    /// Creates the gRPC service; `None` if the ledger takes part in no election.
    pub fn new(ledger: &Ledger) -> Option<LedgerServiceServer<Self>> {
        let service = Self {
            leader: ledger.leader.clone()?,
            metrics: Arc::clone(&ledger.metrics),
            ledger: ledger.clone(),
        };
        Some(LedgerServiceServer::new(service).max_decoding_message_size(REQUEST_BYTES_MAX))
    }

    /// Refuses senders without the key, which is in the database.
    fn require_key(&self, request: &Request<PostRequest>) -> Result<(), Status> {
        let key = self.leader.leader_key();
        let key = key.ok_or_else(|| Status::failed_precondition("this process does not lead"))?;
        let expected = format!("Bearer {key}");
        let presented = request.metadata().get("authorization");
        let presented = presented.map(MetadataValue::as_bytes).unwrap_or_default();
        if constant_time_eq(presented, expected.as_bytes()) {
            return Ok(());
        }
        Err(Status::unauthenticated("the key is not that of this leader"))
    }

    async fn write(&self, posting: proto::Posting) -> proto::PostReply {
        let Some(posting) = wire::decode_posting(posting, &self.leader.registry) else {
            return wire::unsupported();
        };
        let reply = match self.ledger.enqueue(&self.ledger.queue, posting, Span::none()) {
            Ok(reply) => reply.await.unwrap_or(Err(PostError::Unknown)),
            Err(error) => Err(error),
        };
        wire::encode_reply(&reply)
    }
}

#[tonic::async_trait]
impl LedgerService for PostingService {
    async fn post(&self, request: Request<PostRequest>) -> Result<Response<PostResponse>, Status> {
        self.require_key(&request)?;
        let PostRequest { postings, version } = request.into_inner();
        if version != VERSION {
            let replies = postings.iter().map(|_| wire::unsupported()).collect();
            return Ok(Response::new(PostResponse { replies }));
        }
        self.metrics.wallet_ledger_received_total.increment(postings.len() as u64);
        let replies = join_all(postings.into_iter().map(|posting| self.write(posting))).await;
        Ok(Response::new(PostResponse { replies }))
    }
}

//! The connection of a follower (a process that sends its postings to the leader): a stream of requests to the leader.
//! The leader responds in the order of the requests.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Streaming};

use super::LeaderAddress;
use super::proto::ledger_service_client::LedgerServiceClient;
use super::proto::{PostReply, PostRequest, PostResponse};
use super::wire::{self, VERSION};
use crate::ledger::writer::QueuedPosting;

/// Largest response that a follower accepts, in bytes. A response contains the rows of the request's postings, at most
/// about a thousand.
const RESPONSE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Longest time that opening the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest time that the leader may take to respond to a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Interval of pings to the leader. A missing response shows that the leader is suspended or unreachable.
const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Longest time that the response to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// A stream of requests to the leader. The leader responds in the order of the requests.
pub(super) struct Connection {
    requests: mpsc::UnboundedSender<PostRequest>,
    responses: Streaming<PostResponse>,
    /// The requests that await a response, oldest first.
    pub(super) sent: VecDeque<Sent>,
}

/// A request to the leader.
pub(super) struct Sent {
    pub(super) items: Vec<QueuedPosting>,
    pub(super) at: Instant,
}

/// A request with the leader's replies to its postings.
pub(super) struct Answered {
    pub(super) sent: Sent,
    pub(super) replies: Vec<PostReply>,
}

/// How a connection ended.
pub(super) enum ConnectionEnd {
    /// The leader has read none of the requests that await a response.
    NotRead,
    /// The leader may have read some of the requests that await a response.
    Failed(String),
}

impl Connection {
    /// Connects, and waits until the leader has accepted the key that this process sends to authenticate. An open
    /// connection does not prove that the leader responds: a suspended process accepts connections, and another program
    /// may listen at the address.
    pub(super) async fn open(leader: &LeaderAddress) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{}", leader.address))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let client = LedgerServiceClient::new(endpoint.connect().await?);
        let mut client = client.max_decoding_message_size(RESPONSE_BYTES_MAX);
        let (requests, queue) = mpsc::unbounded_channel();
        let next = async |mut queue: mpsc::UnboundedReceiver<PostRequest>| {
            queue.recv().await.map(|request| (request, queue))
        };
        let mut call = Request::new(stream::unfold(queue, next));
        call.metadata_mut().insert("authorization", format!("Bearer {}", leader.key).parse()?);
        let accepted = tokio::time::timeout(CONNECT_TIMEOUT, client.post(call)).await??;
        Ok(Self { requests, responses: accepted.into_inner(), sent: VecDeque::new() })
    }

    pub(super) fn send(&mut self, items: Vec<QueuedPosting>) {
        let postings = items.iter().map(|item| wire::encode_posting(&item.posting)).collect();
        // If the stream has ended, [`Self::response`] reports it.
        let _ended = self.requests.send(PostRequest { postings, version: VERSION });
        self.sent.push_back(Sent { items, at: Instant::now() });
    }

    /// Waits for the response to the oldest request, or for the end of the stream.
    pub(super) async fn response(&mut self) -> Result<Answered, ConnectionEnd> {
        let response = match self.sent.front() {
            Some(oldest) => timeout_at(oldest.at + REQUEST_TIMEOUT, self.responses.message()).await,
            None => Ok(self.responses.message().await),
        };
        let failed = |cause: &str| Err(ConnectionEnd::Failed(cause.to_owned()));
        match response {
            Ok(Ok(Some(PostResponse { replies }))) => match self.sent.pop_front() {
                Some(sent) if replies.len() == sent.items.len() => Ok(Answered { sent, replies }),
                Some(sent) => {
                    self.sent.push_front(sent);
                    failed("the number of replies differs from the number of postings")
                }
                None => failed("a response without a request"),
            },
            Ok(Ok(None)) => Err(ConnectionEnd::NotRead),
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => {
                Err(ConnectionEnd::NotRead)
            }
            Ok(Err(status)) => failed(status.message()),
            Err(_elapsed) => failed("no response in time"),
        }
    }
}

//! The queue through which callers pass their postings to the writer task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::Span;

use crate::ledger::decide::Refusal;
use crate::ledger::transfer::{Posted, Posting};

/// Reason why a posting is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The posting breaks a rule; a retry does not help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The queue is full. The posting was not written.
    #[error("the ledger is overloaded; retry later")]
    Overloaded,
    /// The database cannot accept the posting now. The posting was not written.
    #[error("the ledger is unavailable; retry later")]
    Unavailable,
    /// The program stopped, or lost the connection to its database, before the outcome was known. A retry with the same
    /// key is safe.
    #[error("the outcome is unknown; retry with the same key")]
    Unknown,
    /// The idempotency key was used for a posting that is now archived, so its reply cannot be rebuilt. No posting was
    /// written.
    #[error("the posting that used this idempotency key is archived")]
    Archived { until: OffsetDateTime },
    /// The database rejects the posting because of a bug in this program. The posting was not written; the log has the
    /// cause.
    #[error("internal ledger error; see the log for the cause")]
    Internal,
}

/// A successful reply of the writer. If the idempotency key was used before (`Replay`), the reply contains only the
/// seqs of the earlier posting, and the caller reads the transfers with these seqs.
#[derive(Debug, Clone)]
pub(in crate::ledger) enum PostOutcome {
    Posted(Posted),
    Replay { first_seq: i64, last_seq: i64 },
}

pub(in crate::ledger) type PostReply = Result<PostOutcome, PostError>;

/// A posting between its arrival and its reply.
#[derive(Debug)]
pub(in crate::ledger) struct QueuedPosting {
    pub(in crate::ledger) posting: Posting,
    pub(super) queued: Instant,
    /// Span of this posting in the trace of its request; disabled if that trace is not sampled.
    pub(super) span: Span,
    /// Whether the posting gets a batch of its own, because the database rejected the batch that it was in.
    pub(super) alone: bool,
    /// Whether the outcome of the posting is unknown: the ledger's leader (the process that writes the postings of all
    /// processes) may have written this posting, or an earlier posting with the same idempotency key, or may still
    /// write it.
    is_in_doubt: bool,
    reply: oneshot::Sender<PostReply>,
    /// Counts the posting's legs against the limit of the queue until the posting has its reply.
    _load: QueueLoad,
}

impl QueuedPosting {
    /// Gives the posting a batch of its own, to find out whether this is the posting that the database rejects.
    pub(super) fn into_alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Marks the posting as in doubt: the leader may have written it, or an earlier posting under its key, without
    /// replying.
    pub(in crate::ledger) fn in_doubt(self) -> Self {
        Self { is_in_doubt: true, ..self }
    }

    /// Replaces a reply that may be wrong. If the posting is in doubt, every error except a reused key becomes
    /// [`PostError::Unknown`], because the leader may have written the posting, or may still write it.
    pub(super) fn certain(&self, reply: PostReply) -> PostReply {
        match reply {
            Err(PostError::Refused(Refusal::KeyReused)) => reply,
            Err(_) if self.is_in_doubt => Err(PostError::Unknown),
            _ => reply,
        }
    }

    pub(in crate::ledger) fn answer(self, reply: PostReply) {
        let reply = self.certain(reply);
        // The send fails if the caller is no longer waiting for the reply.
        drop(self.reply.send(reply));
    }
}

/// Limits the queue by the number of legs (single movements), because posting sizes differ by a factor of up to 20,000.
#[derive(Debug, Clone)]
pub(in crate::ledger) struct Admission {
    legs: Arc<AtomicUsize>,
    legs_max: usize,
    /// Time at which the oldest posting without a reply began to wait, in microseconds after `started_at`; 0 if every
    /// posting has its reply.
    oldest: Arc<AtomicU64>,
    started_at: Instant,
}

/// Number of legs that a posting adds to the queue; subtracted when this value is dropped.
#[derive(Debug)]
struct QueueLoad {
    legs: Arc<AtomicUsize>,
    count: usize,
}

impl Admission {
    pub(in crate::ledger) fn new(legs_max: usize) -> Self {
        Self { legs: Arc::default(), legs_max, oldest: Arc::default(), started_at: Instant::now() }
    }

    /// Admits a posting if the queue has room for its legs. An empty queue has room for any posting.
    pub(in crate::ledger) fn admit(
        &self,
        posting: Posting,
        span: Span,
    ) -> Result<(QueuedPosting, oneshot::Receiver<PostReply>), PostError> {
        let count = posting.legs.len();
        let load = QueueLoad { legs: Arc::clone(&self.legs), count };
        let before = self.legs.fetch_add(count, Ordering::SeqCst);
        if before > 0 && before + count > self.legs_max {
            return Err(PostError::Overloaded);
        }
        let (reply, receiver) = oneshot::channel();
        let queued = Instant::now();
        let item = QueuedPosting {
            posting,
            queued,
            span,
            alone: false,
            is_in_doubt: false,
            reply,
            _load: load,
        };
        Ok((item, receiver))
    }

    /// Returns an [`Admission`] for another writer. It shares the limit on queued legs with this [`Admission`], and
    /// tracks the age of the other writer's oldest posting.
    pub(in crate::ledger) fn for_writer(&self) -> Self {
        Self { oldest: Arc::default(), ..self.clone() }
    }

    pub(in crate::ledger) fn queued_legs(&self) -> usize {
        self.legs.load(Ordering::SeqCst)
    }

    /// Sets the time at which the oldest posting without a reply began to wait.
    pub(super) fn set_oldest(&self, since: Option<Instant>) {
        let since = since.map_or(0, |since| {
            u64::try_from((since - self.started_at).as_micros()).unwrap_or(u64::MAX).max(1)
        });
        self.oldest.store(since, Ordering::Relaxed);
    }

    /// The age of the oldest posting without a reply.
    pub(in crate::ledger) fn oldest_age(&self) -> Duration {
        match self.oldest.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.started_at.elapsed().saturating_sub(Duration::from_micros(since)),
        }
    }
}

impl Drop for QueueLoad {
    fn drop(&mut self) {
        self.legs.fetch_sub(self.count, Ordering::Relaxed);
    }
}

//! The queue between the many who post and the one who writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::Span;

use crate::ledger::decide::Refusal;
use crate::ledger::transfer::{Posted, Posting};

/// Why a posting got no place in the book.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It breaks a rule; asking again will not help.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// More is waiting than can be written soon. It was not written.
    #[error("too busy, try again")]
    Overloaded,
    /// The database does not take it. It was not written.
    #[error("the ledger is not available, try again")]
    Unavailable,
    /// The program ends, or lost its database, before it could tell. Asking again with the same key is safe.
    #[error("it is not known whether it was written, ask again with the same key")]
    Unknown,
    /// The database refuses it for a reason that is a fault of ours. It was not written; the log has the cause.
    #[error("something went wrong on our side")]
    Internal,
}

/// What the writer answers: a replay's rows are read by who asked, not by the writer.
#[derive(Debug, Clone)]
pub(in crate::ledger) enum Outcome {
    Posted(Posted),
    Replay { first_seq: i64, last_seq: i64 },
}

pub(in crate::ledger) type Answer = Result<Outcome, PostError>;

/// A posting on its way.
#[derive(Debug)]
pub(in crate::ledger) struct QueuedPosting {
    pub(super) posting: Posting,
    pub(super) queued: Instant,
    /// Of its request's trace, where that is kept.
    pub(super) span: Span,
    /// Its company failed for a reason that no rule foresees: it travels alone, to find out which one it was.
    pub(super) alone: bool,
    reply: oneshot::Sender<Answer>,
    /// Its legs count against the bound of the queue until it is answered.
    _load: Load,
}

impl QueuedPosting {
    /// To find out which one of a batch the database refuses.
    pub(super) fn sent_alone(self) -> Self {
        Self { alone: true, ..self }
    }

    pub(super) fn answer(self, answer: Answer) {
        // Who asked may have gone; the money does not depend on that.
        drop(self.reply.send(answer));
    }
}

/// How much is waiting, in legs: postings differ by a factor of 20,000.
#[derive(Debug, Clone)]
pub(in crate::ledger) struct Admission {
    legs: Arc<AtomicUsize>,
    legs_max: usize,
    /// Since when the oldest of them waits, in microseconds after `began`; 0 when nothing does.
    oldest: Arc<AtomicU64>,
    began: Instant,
}

/// A part of what is waiting; gone when dropped.
#[derive(Debug)]
struct Load {
    legs: Arc<AtomicUsize>,
    count: usize,
}

impl Admission {
    pub(in crate::ledger) fn new(legs_max: usize) -> Self {
        Self { legs: Arc::default(), legs_max, oldest: Arc::default(), began: Instant::now() }
    }

    /// Makes an item if there is room for its legs. A posting of any size fits an empty queue.
    pub(in crate::ledger) fn admit(
        &self,
        posting: Posting,
        span: Span,
    ) -> Result<(QueuedPosting, oneshot::Receiver<Answer>), PostError> {
        let count = posting.legs.len();
        let load = Load { legs: Arc::clone(&self.legs), count };
        let before = self.legs.fetch_add(count, Ordering::Relaxed);
        if before > 0 && before + count > self.legs_max {
            return Err(PostError::Overloaded);
        }
        let (reply, answer) = oneshot::channel();
        let queued = Instant::now();
        Ok((QueuedPosting { posting, queued, span, alone: false, reply, _load: load }, answer))
    }

    pub(in crate::ledger) fn legs(&self) -> usize {
        self.legs.load(Ordering::Relaxed)
    }

    /// The writer tells since when the oldest that it has not answered waits.
    pub(super) fn note_oldest(&self, since: Option<Instant>) {
        let since = since.map_or(0, |since| {
            u64::try_from((since - self.began).as_micros()).unwrap_or(u64::MAX).max(1)
        });
        self.oldest.store(since, Ordering::Relaxed);
    }

    /// How long the oldest has been waiting.
    pub(in crate::ledger) fn oldest(&self) -> Duration {
        match self.oldest.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.began.elapsed().saturating_sub(Duration::from_micros(since)),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.legs.fetch_sub(self.count, Ordering::Relaxed);
    }
}

//! The ledger: an append-only book of transfers, written by group commit, with accounts, amounts and a few rules.
//!
//! No row is ever updated. Each transfer carries both balances after it, so the last transfer that touched an account
//! holds its current balance, and any earlier transfer holds the balance at that time.
//!
//! Start reading at [`transfer`] (input and output types) and [`decide`] (the rules); then [`writer`], which combines
//! the postings of many callers into batches. Each batch is one commit that names the batch before it. With several
//! processes on one book, the process that leads writes the postings of all ([`leader`]).
//!
//! Guarantees to a caller: a posting is acknowledged after its commit; a refusal is final; the same idempotency key
//! with the same content gets the same reply; whichever process is killed, each acknowledged posting is in the book
//! exactly once.

#![deny(clippy::float_arithmetic)]

mod args;
pub mod book;
pub mod currency;
pub mod currency_store;
pub mod money;

pub mod account;
pub mod transfer;

pub mod decide;

pub mod companion;
mod encode;

pub mod partition;
pub mod read;
pub mod verify;

pub mod auditor;
pub mod tail;

mod connect;
mod durability;
mod leader;
mod metrics;
mod replay;
mod sql;
mod trace;
mod writer;
mod writer_queues;

use std::sync::Arc;

use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tracing::Span;

use crate::db::Pipelined;
use crate::error::Error;
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

use self::book::book_of;
use self::companion::CompanionKind;
use self::decide::Rules;
use self::leader::{LeaderHandle, OwnWriter};
use self::metrics::{PostingTimer, to_gauge};
use self::transfer::{Posted, Posting};
use self::writer::{Admission, PostOutcome, PostReply, QueuedPosting};
use self::writer_queues::WriterQueues;
use crate::idempotency_key::HashedKey;

pub use self::args::LedgerArgs;
pub use self::connect::StartError;
pub use self::decide::Refusal;
pub use self::durability::UnsafeSettings;
pub use self::leader::{AdvertisedAddress, Candidacy, METHODS as INTERNAL_METHODS, PostingService};
pub use self::writer::{Failpoints, InjectedFault, PostError, Settings, WriterStage};

/// Dependencies and settings of a ledger.
#[derive(Clone)]
pub struct LedgerOptions {
    /// Options of the writer's own connection.
    pub database: Pipelined,
    /// Pool for reads.
    pub pool: PgPool,
    pub settings: Settings,
    pub rules: Rules,
    /// Every companion statement that a posting may use.
    pub companions: Vec<&'static CompanionKind>,
    /// Part of this process in the election of a leader; `None` if it only writes its own postings.
    pub candidacy: Option<Candidacy>,
    pub failpoints: Failpoints,
    pub metrics: Arc<Metrics>,
}

/// A handle to the books and their writers. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    queues: WriterQueues,
    leader: Option<LeaderHandle>,
    admission: Admission,
    pool: PgPool,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// Connects and starts the writers. Once the tasks stop, they drain their queues and end.
    pub async fn start(options: LedgerOptions, tasks: &Tasks) -> Result<Self, StartError> {
        let (settings, metrics) = (&options.settings, Arc::clone(&options.metrics));
        metrics.wallet_ledger_queue_capacity.set(to_gauge(settings.queue_legs_max));
        metrics::preregister(&metrics);
        let admission = Admission::new(settings.queue_legs_max);
        let queues = WriterQueues::start(&options, &admission, tasks).await?;
        let start = |candidacy| {
            let own_writer = OwnWriter { queues: queues.clone(), admission: admission.clone() };
            LeaderHandle::start(&options, candidacy, own_writer, tasks)
        };
        let leader = options.candidacy.clone().map(start);
        Ok(Self { queues, leader, admission, pool: options.pool, metrics })
    }

    /// Writes a posting, and returns once it is durable. Dropping the future does not cancel the posting.
    pub async fn post(&self, posting: Posting) -> Result<Posted, PostError> {
        let (timer, span) = (PostingTimer::start(&posting), trace::posting_span(&posting));
        let result = self.post_untimed(posting, span).await;
        timer.finish(&self.metrics, &result);
        result
    }

    async fn post_untimed(&self, mut posting: Posting, span: Span) -> Result<Posted, PostError> {
        let has_key = posting.key.is_some();
        if self.leader_queue(posting.legs.len()).is_some() {
            // If the leader does not answer, the posting is written again under its key.
            posting.key.get_or_insert_with(HashedKey::random);
        }
        let key = posting.key;
        let reply = self.enqueue(posting, span)?;
        let posted = match reply.await {
            Ok(Ok(PostOutcome::Posted(posted))) => Ok(posted),
            Ok(Ok(PostOutcome::Replay { first_seq, last_seq })) => {
                // Boxed, so that this rare path does not enlarge the future of every request.
                let replayed = Box::pin(self.replay(key, first_seq, last_seq)).await;
                // The posting is in the book, so a client without a key must not repeat it.
                if has_key { replayed } else { replayed.map_err(|_| PostError::Unknown) }
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PostError::Unknown),
        };
        posted.map(|posted| Posted { replayed: posted.replayed && has_key, ..posted })
    }

    /// The queue to the leader, if a posting of this many legs is to be sent to it.
    fn leader_queue(&self, legs: usize) -> Option<&mpsc::Sender<QueuedPosting>> {
        self.leader.as_ref()?.queue_for(legs)
    }

    /// Queues a posting for the leader or for the own writer, and returns the receiver of the reply.
    fn enqueue(
        &self,
        posting: Posting,
        span: Span,
    ) -> Result<oneshot::Receiver<PostReply>, PostError> {
        // Admitted before the queue is chosen: the forwarder sends nothing while the own writer has admitted postings.
        let (item, reply) = self.admission.admit(posting, span)?;
        let leader_queue = self.leader_queue(item.posting.legs.len());
        let leader_queue = leader_queue.filter(|_| item.posting.key.is_some());
        let queue = leader_queue.unwrap_or_else(|| self.queues.queue_of(&item.posting));
        self.send(queue, item)?;
        Ok(reply)
    }

    /// Queues a posting for the own writer.
    fn enqueue_own(&self, posting: Posting) -> Result<oneshot::Receiver<PostReply>, PostError> {
        let (item, reply) = self.admission.admit(posting, Span::none())?;
        self.send(self.queues.queue_of(&item.posting), item)?;
        Ok(reply)
    }

    fn send(
        &self,
        queue: &mpsc::Sender<QueuedPosting>,
        mut item: QueuedPosting,
    ) -> Result<(), PostError> {
        if let (Some(leader), Some(key)) = (&self.leader, item.posting.key)
            && leader.is_in_doubt(key, queue)
        {
            item = item.in_doubt();
        }
        queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PostError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => PostError::Unavailable,
        })
    }

    /// Returns the posting that was written under this idempotency key, as it was first acknowledged.
    pub async fn find(&self, key: HashedKey) -> Result<Option<Posted>, PostError> {
        let read = async {
            let mut db = Box::pin(self.pool.acquire()).await?;
            sql::find_key(&mut db, key.hash).await
        };
        match read.await {
            Ok(None) => Ok(None),
            Ok(Some((content, ..))) if !key.has_content(content) => Err(Refusal::KeyReused.into()),
            Ok(Some((_, first_seq, last_seq))) => {
                self.replay(Some(key), first_seq, last_seq).await.map(Some)
            }
            Err(error) => {
                tracing::warn!(error.message = %error, "idempotency key lookup failed; the client may retry");
                Err(PostError::Unavailable)
            }
        }
    }

    /// Updates the gauges of the queue: its depth, and the age of its oldest posting.
    pub fn sample(&self) {
        self.metrics.wallet_ledger_queue_depth.set(to_gauge(self.admission.queued_legs()));
        self.metrics
            .wallet_ledger_oldest_queued_seconds
            .set(self.queues.oldest_age().as_secs_f64());
    }

    /// Rebuilds the first reply to an idempotency key from the book. Fails as unavailable if the book no longer has the
    /// posting.
    async fn replay(
        &self,
        key: Option<HashedKey>,
        first_seq: i64,
        last_seq: i64,
    ) -> Result<Posted, PostError> {
        let Some(key) = key else { return Err(PostError::Internal) };
        let read = async {
            let mut db = Box::pin(self.pool.acquire()).await?;
            let book = book_of(first_seq);
            let posted = sql::find_posted(&mut db, book, key.hash, first_seq, last_seq).await?;
            // Asked after the read, because an archive may have begun. Rows of an archived posting may still be there, but
            // not all that a caller reads besides them.
            read::require_in_book(&mut db, book, first_seq).await?;
            let Some(mut posted) = posted else { return Ok(None) };
            replay::complete(&mut db, &mut posted).await?;
            Ok(Some(posted))
        };
        let read: crate::error::Result<Option<Posted>> = read.await;
        match read {
            Ok(Some(posted)) => Ok(posted),
            Err(Error::Archived { until }) => Err(PostError::Archived { until }),
            Ok(None) => {
                // The writer clears its cache of keys, too, once a catch-up shows that the server has lost commits.
                tracing::warn!(
                    first_seq,
                    last_seq,
                    "the posting of an idempotency key is missing from the book; the client may retry"
                );
                Err(PostError::Unavailable)
            }
            Err(error) => {
                tracing::warn!(
                    error.message = %error,
                    "reading the first reply to an idempotency key failed; the client may retry"
                );
                Err(PostError::Unavailable)
            }
        }
    }
}

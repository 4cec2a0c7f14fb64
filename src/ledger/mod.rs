//! The ledger: an append-only record of all transfers, written in batches (group commit), with accounts, amounts and
//! the rules that transfers must obey.
//!
//! Rows are never updated. Each transfer stores the balances that both of its accounts have after the transfer. The
//! last transfer of an account therefore contains the current balance, and the earlier transfers contain the past
//! balances.
//!
//! Start reading at [`transfer`] (input and output types) and [`decide`] (the rules); then [`writer`], which combines
//! the postings of many callers into batches. A posting is a set of transfers that are written atomically. Each batch
//! is one database commit and names the batch before it. If several processes share the ledger, an elected process
//! writes the postings of all of them ([`leader`]).
//!
//! Guarantees to a caller: a posting is acknowledged only after its commit. A refusal is final. A request with the
//! same idempotency key and the same content gets the same reply. Even if a process is killed, each acknowledged
//! posting is in the ledger exactly once.

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

use self::account::AccountId;
use self::book::{book_of, touches_unknown_book};
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
    /// Connection options of the writer, which uses a connection of its own instead of the pool.
    pub database: Pipelined,
    /// Connection pool for reads of the ledger.
    pub pool: PgPool,
    pub settings: Settings,
    pub rules: Rules,
    /// SQL statements that write rows of other modules in the same transaction as the transfers of a posting.
    pub companions: Vec<&'static CompanionKind>,
    /// Role of this process in the election of the leader, which writes the postings of all processes; `None` if this
    /// process does not take part in the election and writes its own postings.
    pub candidacy: Option<Candidacy>,
    pub failpoints: Failpoints,
    pub metrics: Arc<Metrics>,
}

/// Handle to the ledger and its writer tasks. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    queues: WriterQueues,
    books: i32,
    leader: Option<LeaderHandle>,
    admission: Admission,
    pool: PgPool,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// Connects to the database and starts the writer tasks. When the program stops, the writers finish the queued
    /// postings and end.
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
        let books = settings.books;
        Ok(Self { queues, books, leader, admission, pool: options.pool, metrics })
    }

    /// Number of books (independently ordered parts of the ledger).
    pub fn books(&self) -> i32 {
        self.books
    }

    /// Converts the sequential number of an account to its id. The id encodes the account's book; consecutive numbers
    /// get different books, so the accounts are spread evenly over the books.
    pub fn spread(&self, number: i64) -> AccountId {
        AccountId(book::id_of(number, self.books))
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
            // If the leader does not reply, this process also writes the posting. The shared key ensures that the
            // posting takes effect only once.
            posting.key.get_or_insert_with(HashedKey::random);
        }
        let key = posting.key;
        let reply = self.enqueue(posting, span)?;
        let posted = match reply.await {
            Ok(Ok(PostOutcome::Posted(posted))) => Ok(posted),
            Ok(Ok(PostOutcome::Replay { first_seq, last_seq })) => {
                // Boxed, so that this rare path does not enlarge the future of every request.
                let replayed = Box::pin(self.replay(key, first_seq, last_seq)).await;
                // The posting is in the book. A client that sent no key must not get an error that invites a retry,
                // because the retry would write the posting twice.
                if has_key { replayed } else { replayed.map_err(|_| PostError::Unknown) }
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PostError::Unknown),
        };
        posted.map(|posted| Posted { replayed: posted.replayed && has_key, ..posted })
    }

    /// Returns the queue of postings that are sent to the leader; `None` if this process itself must write a posting
    /// with this number of legs.
    fn leader_queue(&self, legs: usize) -> Option<&mpsc::Sender<QueuedPosting>> {
        self.leader.as_ref()?.queue_for(legs)
    }

    /// Queues a posting for the leader or for this process's own writer, and returns the receiver of the reply.
    fn enqueue(
        &self,
        posting: Posting,
        span: Span,
    ) -> Result<oneshot::Receiver<PostReply>, PostError> {
        self.require_known_books(&posting)?;
        // Admits the posting before choosing its queue: the forwarder starts to send postings to the leader only once
        // this process's own writer has no admitted posting left.
        let (item, reply) = self.admission.admit(posting, span)?;
        let leader_queue = self.leader_queue(item.posting.legs.len());
        let leader_queue = leader_queue.filter(|_| item.posting.key.is_some());
        let queue = leader_queue.unwrap_or_else(|| self.queues.queue_of(&item.posting));
        self.send(queue, item)?;
        Ok(reply)
    }

    /// Queues a posting for this process's own writer, even if another process is the leader.
    fn enqueue_own(&self, posting: Posting) -> Result<oneshot::Receiver<PostReply>, PostError> {
        self.require_known_books(&posting)?;
        let (item, reply) = self.admission.admit(posting, Span::none())?;
        self.send(self.queues.queue_of(&item.posting), item)?;
        Ok(reply)
    }

    /// Returns an error if the posting is for a book that another process created after this process started.
    fn require_known_books(&self, posting: &Posting) -> Result<(), PostError> {
        if touches_unknown_book(posting, self.books) {
            tracing::warn!(
                "a posting was rejected because it needs a book that was created after this process started; restart this process"
            );
            return Err(PostError::Unavailable);
        }
        Ok(())
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

    /// Rebuilds, from the stored transfers, the reply to the first request with an idempotency key. Returns
    /// [`PostError::Unavailable`] if the transfers are missing, and [`PostError::Archived`] if they are archived.
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
            // Checked after the read, because an operator may have begun to archive these transfers during the read.
            // Some rows of an archived posting may remain in the book, but other data that the response needs may be
            // gone.
            read::require_in_book(&mut db, first_seq).await?;
            let Some(mut posted) = posted else { return Ok(None) };
            replay::complete(&mut db, &mut posted).await?;
            Ok(Some(posted))
        };
        let read: crate::error::Result<Option<Posted>> = read.await;
        match read {
            Ok(Some(posted)) => Ok(posted),
            Err(Error::Archived { until }) => Err(PostError::Archived { until }),
            Ok(None) => {
                // The database server has lost commits. The writer also clears its cache of keys once it notices the
                // loss.
                tracing::warn!(
                    first_seq,
                    last_seq,
                    "an idempotency key is stored, but its posting is missing from the ledger; the client may retry"
                );
                Err(PostError::Unavailable)
            }
            Err(error) => {
                tracing::warn!(
                    error.message = %error,
                    "could not read the posting that belongs to an idempotency key; the client may retry"
                );
                Err(PostError::Unavailable)
            }
        }
    }
}

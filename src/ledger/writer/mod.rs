//! Group commit: all waiting postings become one batch, one statement, one commit.
//!
//! | phase | round trips | note |
//! |---|---|---|
//! | gather | 0 | postings queue up while earlier batches are in flight |
//! | look up | 0 or 1 | reads the accounts that are not in the cache; only postings that need these accounts wait |
//! | decide | 0 | in memory, in order of arrival, based on the predicted outcome of the batches in flight |
//! | post | 1 | up to [`Settings::pipe_max`] batches overlap on one connection |
//! | catch up | 1 | only after another process committed a batch first; the next batches are written under the book's lock |
//!
//! A refused posting does not affect the other postings of its batch. A refusal is reported only when it is final. For
//! that, the balances on which it is based must be committed: either the batch of the refused posting was committed, or
//! the writer has read the head (newest batch) of the book again, and the head is still the batch with these balances.
//! If the posting has an idempotency key, the writer also looks up the key, because an earlier attempt may have been
//! accepted. If a batch fails, the later batches in flight are based on balances that never came into effect, so the
//! writer decides on their postings again. If the connection breaks, the same batch is resent: at most one attempt can
//! commit, and the stored seal (the row that ends a batch) shows whether an attempt did. No posting of the batch gets a
//! reply before the writer knows the outcome.
//!
//! All sizes are bounded: the queue (in postings and legs), a batch (in legs), the pipeline (in requests), the account
//! cache, and the cached keys.

mod backend;
mod batch;
mod cache;
mod catch_up;
mod columns;
mod cross_book;
mod failpoint;
mod idempotency;
mod lookups;
mod notify_throttle;
mod pipeline;
mod queue;
mod recover;
mod steps;
mod verdict;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::backend::Backend;
use self::batch::BookHead;
use self::cache::AccountCache;
use self::idempotency::RecentKeys;
use self::pipeline::{Pipeline, read_books, read_head};
use super::LedgerOptions;
use super::companion::CompanionKind;
use super::connect::StartError;
use super::decide::{Decision, Rules};
use super::durability;
use crate::db::Pipelined;
use crate::telemetry::Metrics;

pub(super) use self::cross_book::CrossBookWriter;
pub use self::failpoint::{Failpoints, InjectedFault, WriterStage};
pub use self::queue::PostError;
pub(super) use self::queue::{Admission, PostOutcome, PostReply, QueuedPosting};

/// Interval at which the writer checks whether a reply of the database is overdue.
const OVERDUE_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Limits of the writer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of books, the independently ordered parts of the ledger. This process writes all of them.
    pub books: i32,
    /// Maximum number of postings in the queue. A longer queue would only add latency.
    pub queue_max: usize,
    /// Maximum total number of legs (single movements) in the queued postings. A limit on the number of postings alone
    /// does not suffice, because a posting may have thousands of legs.
    pub queue_legs_max: usize,
    /// Maximum number of legs in a batch. The limit keeps the latency low, because every leg waits until the whole
    /// batch is written. A larger posting gets a batch of its own.
    pub batch_legs_max: usize,
    /// Maximum number of requests to the database that await a reply.
    pub pipe_max: usize,
    /// Maximum number of accounts in the cache; each takes 50 bytes.
    pub cache_accounts_max: usize,
    /// Maximum number of transfers of other processes that the writer reads to update its cache. If there are more, the
    /// writer clears the cache instead.
    pub catch_up_max: i64,
    /// Longest time that the database may take to reply before the connection counts as lost.
    pub reply_max: Duration,
    /// Whether the ledger starts even if the database server may lose acknowledged commits.
    pub allow_unsafe_server: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            books: 1,
            queue_max: 8192,
            queue_legs_max: 65_536,
            batch_legs_max: 1024,
            pipe_max: 3,
            cache_accounts_max: 400_000,
            catch_up_max: 10_000,
            reply_max: Duration::from_secs(30),
            allow_unsafe_server: false,
        }
    }
}

/// Whether the writer may send batches, and whether it holds the book's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WriterMode {
    /// The writer may send batches and does not hold the book's lock.
    Free,
    /// Another process may have committed a batch; the writer must read its transfers before it sends the next batch.
    Behind,
    /// The writer is reading the transfers of other processes.
    CatchingUp,
    /// The writer has read all transfers and holds the book's lock, so no other process can commit a batch before this
    /// writer's next batch.
    HoldsLock,
}

/// The task that writes the postings of one book.
pub(super) struct Writer {
    /// Number of the book (a part of the ledger) that this task writes.
    book: i32,
    database: Pipelined,
    settings: Settings,
    rules: Rules,
    companions: Vec<&'static CompanionKind>,
    failpoints: Failpoints,
    queue: mpsc::Receiver<QueuedPosting>,
    pipeline: Pipeline,
    mode: WriterMode,
    /// Number of batches that this writer has yet to send under the book's lock. After another process has committed a
    /// batch first, the lock keeps this writer from repeatedly losing the race to write the next batch.
    locked_batches_left: u32,
    /// Head of the book (the end of its newest batch) after the last confirmed commit.
    head: BookHead,
    /// Head that the book will have if all batches in flight succeed.
    tail: BookHead,
    cache: AccountCache,
    keys: RecentKeys,
    /// Postings that the writer has taken from the queue and not yet sent to the database.
    intake: VecDeque<QueuedPosting>,
    decision: Decision,
    /// Server processes of earlier connections that may still commit a batch, because it is not certain that they have
    /// ended.
    old_backends: Vec<Backend>,
    /// Number of connections that the writer has tried to open since the shutdown began.
    connects_in_shutdown: u32,
    metrics: Arc<Metrics>,
    admission: Admission,
}

/// Reason why the writer stops early.
enum WriterStop {
    /// A test killed the writer.
    Killed,
    /// The outcome of the last batches could not be determined during shutdown.
    GaveUp,
}

impl Writer {
    /// Connects to the database, checks that the server does not lose commits, and reads the head of the book.
    pub(super) async fn connect(
        options: LedgerOptions,
        book: i32,
        queue: mpsc::Receiver<QueuedPosting>,
        admission: Admission,
    ) -> Result<Self, StartError> {
        let LedgerOptions { database, settings, rules, companions, failpoints, metrics, .. } =
            options;

        let mut pipeline = Pipeline::open(&database, &companions, book, &mut Vec::new()).await?;
        let client = pipeline.shared_client();
        if !settings.allow_unsafe_server
            && let Some(unsafe_settings) =
                pipeline.run_alone(durability::check_durability(&client)).await?
        {
            return Err(StartError::Unsafe(unsafe_settings));
        }
        let books = pipeline.run_alone(read_books(&client)).await?;
        if books != settings.books {
            return Err(StartError::Books { found: books, expected: settings.books });
        }
        let head =
            pipeline.run_alone(read_head(&client, book)).await?.ok_or(StartError::NoBook(book))?;
        Ok(Self {
            book,
            cache: AccountCache::new(settings.cache_accounts_max),
            database,
            settings,
            rules,
            companions,
            failpoints,
            queue,
            pipeline,
            mode: WriterMode::Free,
            locked_batches_left: 0,
            head,
            tail: head,
            keys: RecentKeys::default(),
            intake: VecDeque::new(),
            decision: Decision::default(),
            old_backends: Vec::new(),
            connects_in_shutdown: 0,
            metrics,
            admission,
        })
    }

    /// Writes postings until the token is canceled and every queued posting has its reply.
    pub(super) async fn run(mut self, token: CancellationToken) {
        if let Err(WriterStop::GaveUp) = self.run_loop(&token).await {
            tracing::error!(
                "the ledger's writer is stopping without knowing whether its last batches were committed; clients that retry with the same idempotency key will learn the outcome"
            );
        }
    }

    async fn run_loop(&mut self, token: &CancellationToken) -> Result<(), WriterStop> {
        let mut overdue_check = tokio::time::interval(OVERDUE_CHECK_INTERVAL);
        let mut is_closing = false;
        let mut is_drained = false;
        let mut arrived = Vec::new();
        loop {
            self.send_all(token).await?;
            self.admission.set_oldest(self.oldest());
            // No notification is sent within the transaction that holds the book's lock.
            let notify_at = self.pipeline.notify_due_at().filter(|_| self.mode == WriterMode::Free);
            let is_idle = self.intake.is_empty() && self.pipeline.len() == 0;
            if is_drained && is_idle && notify_at.is_none() {
                return Ok(());
            }
            let has_room = self.has_room();
            tokio::select! {
                biased;
                reply = poll_fn(|cx| self.pipeline.poll_next(cx)) => match reply {
                    Ok((request, replies)) => self.finish_request(request, replies, token).await?,
                    Err(_) => self.reconnect(Vec::new(), token).await?,
                },
                count = self.queue.recv_many(&mut arrived, self.settings.batch_legs_max), if has_room && !is_drained => {
                    is_drained = count == 0;
                    for item in arrived.drain(..) {
                        self.admit(item);
                    }
                }
                () = token.cancelled(), if !is_closing => {
                    is_closing = true;
                    self.queue.close();
                }
                () = sleep_until(notify_at), if notify_at.is_some() => self.pipeline.send_notify(self.book),
                _ = overdue_check.tick() => if self.is_overdue() {
                    tracing::warn!(
                        "the database has not replied for {:?}; the ledger's writer is reconnecting",
                        self.settings.reply_max
                    );
                    self.reconnect(Vec::new(), token).await?;
                },
            }
        }
    }

    /// Returns whether the writer can take more postings from the queue now.
    fn has_room(&self) -> bool {
        self.mode != WriterMode::CatchingUp
            && self.pipeline.len() < self.settings.pipe_max
            && (self.intake.is_empty() || self.is_gathering())
    }

    /// Returns whether to wait for more postings before sending the next batch, because fewer postings are waiting than
    /// are in flight. Larger batches are more efficient: the fixed cost of a batch equals the cost of a dozen
    /// transfers. If each client waits for its response before it sends the next request, two batches alternate, each
    /// with half of the postings.
    fn is_gathering(&self) -> bool {
        self.mode == WriterMode::Free && self.intake.len() < self.pipeline.postings_in_flight()
    }

    /// Time at which the oldest request in flight was sent; if there is none, time at which the oldest waiting posting
    /// was queued.
    fn oldest(&self) -> Option<Instant> {
        self.pipeline.oldest().or_else(|| self.intake.front().map(|item| item.queued))
    }

    fn is_overdue(&self) -> bool {
        self.pipeline.oldest().is_some_and(|since| since.elapsed() > self.settings.reply_max)
    }
}

/// Sleeps until `moment`; forever if it is `None`.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

//! Group commit: all postings that wait become one batch, one statement, one commit.
//!
//! | phase | round trips | note |
//! |---|---|---|
//! | gather | 0 | whatever queued up while the batches before were in flight |
//! | ask | 0 or 1 | accounts that are not in the cache; who needs one waits, the others go ahead |
//! | decide | 0 | in memory, in order of arrival, on the outcome of the batches in flight |
//! | post | 1 | up to [`Settings::pipe_max`] of them overlap on one connection |
//! | catch up | 1 | only after another process sealed first; then under the book's lock for a while |
//!
//! A posting that is refused does not disturb its neighbours, and is refused only when that is certain: the head it
//! was decided on is confirmed (by the seal of its batch, or by reading the head), and its key was looked up after that.
//! If a batch fails, all behind it in the pipe stand on nothing and are decided again.
//! If the connection breaks, the same batch is sent again: of the attempts at most one can win, and the seal tells
//! which. Nobody is told anything before that.
//!
//! Bounds: the queue (postings and legs), a batch (legs), the pipe (batches), the cache (accounts), remembered keys.

mod batch;
mod cache;
mod columns;
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

use self::batch::Head;
use self::cache::Cache;
use self::idempotency::RecentKeys;
use self::pipeline::{Pipeline, read_head};
use super::LedgerOptions;
use super::companion::CompanionKind;
use super::connect::{self, StartError};
use super::decide::{Decision, Rules};
use crate::db::Pipelined;
use crate::telemetry::Metrics;

pub use self::failpoint::{Failpoints, Fault, Stage};
pub use self::queue::PostError;
pub(super) use self::queue::{Admission, Outcome, QueuedPosting};

/// How often the writer looks whether the oldest answer is overdue.
const TICK: Duration = Duration::from_secs(1);

/// What bounds the writer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which book it writes.
    pub book: i32,
    /// Most postings that wait. More would only wait longer.
    pub queue_max: usize,
    /// Most legs that wait, since a posting may have thousands.
    pub queue_legs_max: usize,
    /// Most legs of a batch: they all wait until the last one is written. A larger posting travels alone.
    pub batch_legs_max: usize,
    /// Most pieces of work in flight at once.
    pub pipe_max: usize,
    /// Most accounts in memory, 50 bytes each.
    pub cache_accounts_max: usize,
    /// Most transfers that are read to catch up; further behind, the cache is dropped instead.
    pub catch_up_max: i64,
    /// A server that is silent for longer than this has lost the connection.
    pub reply_max: Duration,
    /// Write to a server that may lose acknowledged commits.
    pub allow_unsafe_server: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            book: 1,
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

/// Whether the writer may send batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Free,
    /// Another process was faster: read what it wrote first.
    Behind,
    /// That is being read.
    CatchingUp,
    /// It was read under the book's lock: nobody else can seal before our next batch.
    Holding,
}

/// The task that writes.
pub(super) struct Writer {
    database: Pipelined,
    settings: Settings,
    rules: Rules,
    companions: Vec<&'static CompanionKind>,
    failpoints: Failpoints,
    queue: mpsc::Receiver<QueuedPosting>,
    link: Pipeline,
    mode: Mode,
    /// Batches yet to be sent under the book's lock, so that a writer that lost does not starve.
    turns_locked: u32,
    /// The last seal that is confirmed.
    head: Head,
    /// The head when everything in flight succeeds.
    tail: Head,
    cache: Cache,
    keys: RecentKeys,
    /// Taken from the queue, not in flight.
    intake: VecDeque<QueuedPosting>,
    decision: Decision,
    /// Whether the backends of all earlier connections are certainly gone.
    alone_on_server: bool,
    metrics: Arc<Metrics>,
    gauge: Admission,
}

/// Why the run ends early.
enum Stop {
    /// A test wants it so.
    Killed,
    /// Nothing could be settled any more before the program ends.
    GaveUp,
}

impl Writer {
    /// Connects, checks that the server is fit to keep money, and finds the head of the book.
    pub(super) async fn connect(
        options: LedgerOptions,
        queue: mpsc::Receiver<QueuedPosting>,
        gauge: Admission,
    ) -> Result<Self, StartError> {
        let LedgerOptions { database, settings, rules, companions, failpoints, metrics, .. } =
            options;

        let (mut link, _) = Pipeline::open(&database, &companions, None).await?;
        let client = link.shared_client();
        if !settings.allow_unsafe_server
            && let Some(found) = link.ask(connect::check_durability(&client)).await?
        {
            return Err(StartError::Unsafe(found));
        }
        let head = link
            .ask(read_head(&client, settings.book))
            .await?
            .ok_or(StartError::NoBook(settings.book))?;
        Ok(Self {
            cache: Cache::new(settings.cache_accounts_max),
            database,
            settings,
            rules,
            companions,
            failpoints,
            queue,
            link,
            mode: Mode::Free,
            turns_locked: 0,
            head,
            tail: head,
            keys: RecentKeys::default(),
            intake: VecDeque::new(),
            decision: Decision::default(),
            alone_on_server: true,
            metrics,
            gauge,
        })
    }

    /// Writes until the token is cancelled and everything that was queued is answered.
    pub(super) async fn run(mut self, token: CancellationToken) {
        if let Err(Stop::GaveUp) = self.serve(&token).await {
            tracing::error!(
                "the ledger's writer ends without knowing the fate of its last batches"
            );
        }
    }

    async fn serve(&mut self, token: &CancellationToken) -> Result<(), Stop> {
        let mut tick = tokio::time::interval(TICK);
        let mut closing = false;
        let mut drained = false;
        let mut arrived = Vec::new();
        loop {
            self.send_more(token).await?;
            self.gauge.note_oldest(self.oldest());
            // Not inside the transaction that holds the book's lock.
            let bell = self.link.bell_due().filter(|_| self.mode == Mode::Free);
            if drained && self.intake.is_empty() && self.link.len() == 0 && bell.is_none() {
                return Ok(());
            }
            let has_room = self.has_room();
            tokio::select! {
                biased;
                reply = poll_fn(|cx| self.link.poll_next(cx)) => match reply {
                    Ok((work, replies)) => self.finish_work(work, replies, token).await?,
                    Err(_) => self.reconnect(Vec::new(), token).await?,
                },
                count = self.queue.recv_many(&mut arrived, self.settings.batch_legs_max), if has_room && !drained => {
                    drained = count == 0;
                    for item in arrived.drain(..) {
                        self.admit(item);
                    }
                }
                () = token.cancelled(), if !closing => {
                    closing = true;
                    self.queue.close();
                }
                () = sleep_until(bell), if bell.is_some() => self.link.ring(self.settings.book),
                _ = tick.tick() => if self.is_overdue() {
                    tracing::warn!("the database has not answered for {:?}; connecting anew", self.settings.reply_max);
                    self.reconnect(Vec::new(), token).await?;
                },
            }
        }
    }

    /// Whether more may be taken from the queue.
    fn has_room(&self) -> bool {
        self.mode != Mode::CatchingUp
            && self.link.len() < self.settings.pipe_max
            && (self.intake.is_empty() || self.gathers())
    }

    /// Whether what was taken in waits for company: the database is busy with a batch that is more than twice as
    /// large, and a batch costs as much as a dozen transfers before the first of them.
    fn gathers(&self) -> bool {
        self.mode == Mode::Free && 2 * self.intake.len() < self.link.newest_rows()
    }

    /// Since when the oldest that is not answered waits.
    fn oldest(&self) -> Option<Instant> {
        self.link.oldest().or_else(|| self.intake.front().map(|item| item.queued))
    }

    fn is_overdue(&self) -> bool {
        self.link.oldest().is_some_and(|since| since.elapsed() > self.settings.reply_max)
    }
}

/// Sleeps until then; until the end of time when there is no such moment.
async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

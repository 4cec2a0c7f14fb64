//! The queue of submitted scores. Submissions that arrive while a transaction for their leaderboard is running share
//! the next transaction.
//!
//! Submissions to a leaderboard run one after another, because each submission may change every rank. With a
//! transaction for each submission, a submission would wait for the commits of all earlier submissions. A batch waits
//! for only one commit.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::sql;
use super::{Submission, SubmittedEntry};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::LeaderboardId;
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, RequestScope};

/// Maximum number of submissions that wait in the channel to the task that batches them. The same maximum applies to
/// the submissions that wait in the task itself. Further submissions are refused.
const QUEUE_MAX: usize = 4_096;

/// Maximum number of submissions in a transaction. Each submission takes about 0.3 ms.
const BATCH_MAX: usize = 64;

/// Maximum number of concurrent transactions. Each transaction is for a different leaderboard, and uses its own
/// database connection.
const CONCURRENCY: usize = 4;

/// A submission that waits for the next transaction of its leaderboard.
pub(super) struct QueuedSubmission {
    pub(super) board: LeaderboardId,
    pub(super) submission: Submission,
    pub(super) key: Option<HashedKey>,
}

/// Outcome of a submission.
#[derive(Debug)]
pub(super) enum SubmissionOutcome {
    Taken(SubmittedEntry),
    KeyReused,
    Overflow,
    NoBoard,
    /// The last season of the leaderboard has ended.
    SeasonOver,
    /// The season is past its end. The caller must end the season and then submit the score again.
    SeasonDue,
}

struct Waiting {
    queued: QueuedSubmission,
    reply: oneshot::Sender<Result<SubmissionOutcome>>,
    scope: RequestScope,
}

/// Handle to the task that batches submissions. Cheap to clone.
#[derive(Clone)]
pub(in crate::play::leaderboards) struct SubmissionQueue {
    queue: mpsc::Sender<Waiting>,
}

impl SubmissionQueue {
    /// Starts the task that batches submissions. During shutdown, the task ends once the queue is empty.
    pub(in crate::play::leaderboards) fn start(
        db: Database,
        metrics: Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        let (queue, arrivals) = mpsc::channel(QUEUE_MAX);
        let stopping = tasks.stopping().clone();
        let batcher = Batcher { db, metrics, waiting: HashMap::new(), ready: VecDeque::new() };
        tasks.spawn("leaderboard-submissions", async move {
            batcher.run(arrivals, stopping).await;
            Ok(())
        });
        Self { queue }
    }

    /// Enqueues a submission, and returns once the submission is committed. Dropping the future does not cancel the
    /// submission.
    pub(super) async fn submit(&self, queued: QueuedSubmission) -> Result<SubmissionOutcome> {
        let (reply, outcome) = oneshot::channel();
        let waiting = Waiting { queued, reply, scope: RequestScope::current() };
        self.queue.try_send(waiting).map_err(|_| Error::Overloaded)?;
        outcome.await.map_err(|_| Error::OutcomeUnknown)?
    }
}

/// Collects submissions by leaderboard, and runs them in batches. A leaderboard has at most one running batch.
struct Batcher {
    db: Database,
    metrics: Arc<Metrics>,
    waiting: HashMap<LeaderboardId, BoardQueue>,
    /// Leaderboards that have waiting submissions and no running batch, in order of arrival.
    ready: VecDeque<LeaderboardId>,
}

#[derive(Default)]
struct BoardQueue {
    submissions: VecDeque<Waiting>,
    is_in_flight: bool,
}

impl Batcher {
    async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Waiting>,
        stopping: tokio_util::sync::CancellationToken,
    ) {
        let mut in_flight = FuturesUnordered::new();
        loop {
            while in_flight.len() < CONCURRENCY
                && let Some((board, batch)) = self.next_batch()
            {
                let (db, metrics) = (self.db.clone(), Arc::clone(&self.metrics));
                in_flight.push(async move {
                    take(&db, &metrics, board, batch).await;
                    board
                });
            }
            tokio::select! {
                biased;
                Some(board) = in_flight.next() => self.finish(board),
                Some(waiting) = arrivals.recv(), if self.has_room() => {
                    self.push(waiting);
                    // All submissions that have arrived in the meantime share the next batch.
                    while self.has_room() && let Ok(waiting) = arrivals.try_recv() {
                        self.push(waiting);
                    }
                }
                () = stopping.cancelled(), if in_flight.is_empty() && self.ready.is_empty() && arrivals.is_empty() => return,
            }
        }
    }

    /// Returns whether the task may take more submissions from the channel. If not, the channel fills up and refuses
    /// further submissions.
    fn has_room(&self) -> bool {
        self.waiting.values().map(|board| board.submissions.len()).sum::<usize>() < QUEUE_MAX
    }

    fn push(&mut self, waiting: Waiting) {
        let id = waiting.queued.board;
        let board = self.waiting.entry(id).or_default();
        if board.submissions.is_empty() && !board.is_in_flight {
            self.ready.push_back(id);
        }
        board.submissions.push_back(waiting);
    }

    fn next_batch(&mut self) -> Option<(LeaderboardId, Vec<Waiting>)> {
        let id = self.ready.pop_front()?;
        let board = self.waiting.get_mut(&id)?;
        board.is_in_flight = true;
        let count = board.submissions.len().min(BATCH_MAX);
        Some((id, board.submissions.drain(..count).collect()))
    }

    fn finish(&mut self, id: LeaderboardId) {
        let Some(board) = self.waiting.get_mut(&id) else { return };
        board.is_in_flight = false;
        if board.submissions.is_empty() {
            self.waiting.remove(&id);
        } else {
            self.ready.push_back(id);
        }
    }
}

/// Runs a batch of submissions, and sends the outcome of each submission to its caller.
async fn take(db: &Database, metrics: &Metrics, board: LeaderboardId, batch: Vec<Waiting>) {
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    metrics.wallet_leaderboard_batch_size.record(batch.len() as f64);
    let queued: Vec<&QueuedSubmission> = batch.iter().map(|waiting| &waiting.queued).collect();
    let scope = batch.first().map_or(RequestScope::Outside, |waiting| waiting.scope.clone());
    let outcomes = scope.run(submit(db, board, &queued)).await;
    let outcomes = match outcomes {
        // A single submission may have made the whole batch fail, so each submission is retried on its own.
        Err(Error::Internal(_)) if batch.len() > 1 => {
            let mut single = Vec::new();
            for waiting in &batch {
                let alone = [&waiting.queued];
                let outcomes = waiting.scope.clone().run(submit(db, board, &alone)).await;
                single.push(outcomes.and_then(|mut one| one.pop().ok_or_else(incomplete)));
            }
            single
        }
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        Err(error) => {
            let others: Vec<_> = queued[1..].iter().map(|_| Err(same_kind(&error))).collect();
            std::iter::once(Err(error)).chain(others).collect()
        }
    };
    for (waiting, outcome) in batch.into_iter().zip(outcomes) {
        // Sending fails if the client has disconnected. That does not matter here.
        let _gone = waiting.reply.send(outcome);
    }
}

/// Returns a copy of the error of a failed batch. The first submission of the batch gets `error` itself; the others get
/// the copy, which has no detailed cause. The cause is therefore logged only once.
fn same_kind(error: &Error) -> Error {
    match error {
        Error::OutcomeUnknown => Error::OutcomeUnknown,
        Error::Overloaded => Error::Overloaded,
        other => Error::DatabaseUnavailable(anyhow::Error::msg(other.to_string())),
    }
}

async fn submit(
    db: &Database,
    board: LeaderboardId,
    batch: &[&QueuedSubmission],
) -> Result<Vec<SubmissionOutcome>> {
    let mut db = db.acquire("leaderboard.submit").await?;
    let rows = sql::submit(&mut db, board, batch).await?;
    // A single row without a number is the outcome of every submission of the batch.
    if let [sql::OutcomeRow { n: None, outcome, .. }] = rows.as_slice() {
        return batch.iter().map(|_| whole_batch(outcome)).collect();
    }
    if rows.len() != batch.len() {
        return Err(incomplete());
    }
    rows.into_iter().map(SubmissionOutcome::try_from).collect()
}

fn whole_batch(outcome: &str) -> Result<SubmissionOutcome> {
    match outcome {
        "no_board" => Ok(SubmissionOutcome::NoBoard),
        "season_over" => Ok(SubmissionOutcome::SeasonOver),
        "season_due" => Ok(SubmissionOutcome::SeasonDue),
        _ => Err(incomplete()),
    }
}

impl TryFrom<sql::OutcomeRow> for SubmissionOutcome {
    type Error = Error;

    fn try_from(row: sql::OutcomeRow) -> Result<Self> {
        let entry = |replayed| {
            let text = row.answer.as_deref().ok_or_else(incomplete)?;
            let entry: SubmittedEntry =
                serde_json::from_str(text).map_err(|cause| Error::Internal(cause.into()))?;
            Ok(Self::Taken(SubmittedEntry { replayed, ..entry }))
        };
        match row.outcome.as_str() {
            "taken" => entry(false),
            "replayed" => entry(true),
            "key_reused" => Ok(Self::KeyReused),
            "overflow" => Ok(Self::Overflow),
            _ => Err(incomplete()),
        }
    }
}

fn incomplete() -> Error {
    Error::Internal(anyhow::anyhow!("the database did not return an outcome for every submission"))
}

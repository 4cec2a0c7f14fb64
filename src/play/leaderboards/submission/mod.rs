//! Submission of scores: a client submits a score for a player, and gets the player's updated entry.

pub(super) mod queue;
mod sql;

use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use self::queue::{QueuedSubmission, SubmissionOutcome};
use super::board::BoardName;
use super::{Leaderboards, no_board};
use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::idempotency_key::{HashedKey, IdempotencyKey};
use crate::ids::PlayerId;
use crate::telemetry::Metrics;

/// Largest absolute value of a score; every JSON parser reads numbers up to this value exactly.
pub const SCORE_MAX: i64 = (1 << 53) - 1;

/// Maximum number of attempts to record a submitted score. The server tries again after it has ended an overdue season,
/// or has removed a stale leaderboard id from the cache.
const ATTEMPTS_MAX: usize = 5;

/// A score that a client submits for a player.
#[derive(Debug, Clone)]
pub struct Submission {
    pub owner: PlayerId,
    pub score: i64,
    pub subscore: i64,
    /// Metadata of the entry, stored byte for byte; if absent, the entry keeps its previous metadata.
    pub metadata: Option<Box<RawValue>>,
}

/// The entry of a player after a submission.
#[derive(Debug, Deserialize)]
pub struct SubmittedEntry {
    pub season: i32,
    pub rank: i64,
    pub owner: String,
    pub score: i64,
    pub subscore: i64,
    pub metadata: Option<Box<RawValue>>,
    pub submissions: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// Whether an earlier request with the same idempotency key made the submission.
    #[serde(skip)]
    pub replayed: bool,
}

pub(super) fn preregister(metrics: &Metrics) {
    for outcome in ["taken", "replayed", "refused", "failed"] {
        metrics.wallet_leaderboard_submissions_total.preregister([outcome]);
    }
    for operation in ["put", "delete"] {
        metrics.wallet_leaderboard_changes_total.preregister([operation]);
    }
}

impl Leaderboards {
    /// Submits a score. Returns the updated entry of the player, with its rank.
    pub async fn submit(
        &self,
        name: &BoardName,
        submission: Submission,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<SubmittedEntry> {
        caller.require_scope(Scope::EventsWrite)?;
        let entry = self.submit_until_open(name, submission, caller, key).await;
        let outcome = match &entry {
            Ok(entry) if entry.replayed => "replayed",
            Ok(_) => "taken",
            Err(error) if error.problem().status.is_client_error() => "refused",
            Err(_) => "failed",
        };
        self.metrics.wallet_leaderboard_submissions_total.with([outcome]).increment(1);
        entry
    }

    async fn submit_until_open(
        &self,
        name: &BoardName,
        submission: Submission,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<SubmittedEntry> {
        for _ in 0..ATTEMPTS_MAX {
            let board = self.id_of(name).await?;
            let queued = QueuedSubmission {
                board,
                submission: submission.clone(),
                key: hashed(&submission, &board.to_string(), caller, key),
            };
            match self.queue.submit(queued).await? {
                SubmissionOutcome::Taken(entry) => return Ok(entry),
                SubmissionOutcome::KeyReused => return Err(Error::IdempotencyKeyReused),
                SubmissionOutcome::Overflow => {
                    let why = format!("the score would exceed {SCORE_MAX}");
                    return Err(Error::field("/score", why));
                }
                SubmissionOutcome::SeasonOver => return Err(Error::SeasonOver),
                SubmissionOutcome::SeasonDue => drop(self.end_due_season(board).await?),
                // The cached id may be stale: the name may belong to another leaderboard by now.
                SubmissionOutcome::NoBoard => {
                    if !self.forget_id(name) {
                        return Err(no_board());
                    }
                }
            }
        }
        Err(Error::Overloaded)
    }
}

/// Returns the hashed idempotency key of a submission. The hash includes the leaderboard, so that batches of different
/// leaderboards never insert the same key and so never wait for each other.
fn hashed(
    submission: &Submission,
    board: &str,
    caller: &Caller,
    key: &IdempotencyKey,
) -> Option<HashedKey> {
    let Submission { owner, score, subscore, metadata } = submission;
    let metadata = metadata.as_ref().map_or("", |metadata| metadata.get());
    let content = [owner.as_str(), &score.to_string(), &subscore.to_string(), metadata];
    key.hashed(caller.name(), &format!("leaderboard {board}"), &content)
}

//! Background jobs of leaderboards: end a season, pay its prizes, and remove a deleted leaderboard. Running a job twice
//! has the same effect as running it once.

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use super::Leaderboards;
use crate::error::Result;
use crate::ids::{LeaderboardId, SeasonId};
use crate::jobs::{self, Registry};

/// Maximum number of attempts of a job. With the queue's exponential backoff, the last attempt runs about a day after
/// the first attempt.
const ATTEMPTS_MAX: i16 = 13;

/// Job that ends the current season of a leaderboard if the season is past its scheduled end.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndSeason {
    board: LeaderboardId,
}

/// Job that pays the prizes of a season.
#[derive(Debug, Serialize, Deserialize)]
pub struct PayPrizes {
    season: SeasonId,
}

/// Job that removes the data of a deleted leaderboard.
#[derive(Debug, Serialize, Deserialize)]
pub struct PurgeBoard {
    board: LeaderboardId,
}

impl EndSeason {
    pub const QUEUE: &'static str = "leaderboard_reset";
}

impl PayPrizes {
    pub const QUEUE: &'static str = "leaderboard_prizes";
}

impl PurgeBoard {
    pub const QUEUE: &'static str = "leaderboard_purge";
}

/// Registers the jobs of leaderboards with the job queue.
#[must_use]
pub fn register(registry: Registry, leaderboards: Leaderboards) -> Registry {
    registry
        .job::<EndSeason>(EndSeason::QUEUE)
        .job::<PayPrizes>(PayPrizes::QUEUE)
        .job::<PurgeBoard>(PurgeBoard::QUEUE)
        .context(leaderboards)
}

impl TaskHandler for EndSeason {
    const IDENTIFIER: &'static str = Self::QUEUE;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        jobs::run(Self::QUEUE, &context, async |leaderboards: &Leaderboards, _| {
            leaderboards.end_due_season(self.board).await.map(drop)
        })
        .await
    }
}

impl TaskHandler for PayPrizes {
    const IDENTIFIER: &'static str = Self::QUEUE;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        jobs::run(Self::QUEUE, &context, async |leaderboards: &Leaderboards, _| {
            leaderboards.pay_prizes(self.season).await
        })
        .await
    }
}

impl TaskHandler for PurgeBoard {
    const IDENTIFIER: &'static str = Self::QUEUE;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        jobs::run(Self::QUEUE, &context, async |leaderboards: &Leaderboards, _| {
            if leaderboards.purge(self.board).await? {
                Ok(())
            } else {
                Err(jobs::retry("prizes of the deleted leaderboard are still due".to_owned()))
            }
        })
        .await
    }
}

pub(super) async fn enqueue_reset(db: &mut PgConnection, board: LeaderboardId) -> Result<()> {
    let key = format!("leaderboard-reset-{board}");
    jobs::enqueue(db, EndSeason::QUEUE, &json!({ "board": board }), &key, &key, ATTEMPTS_MAX).await
}

pub(super) async fn enqueue_prizes(db: &mut PgConnection, season: SeasonId) -> Result<()> {
    let key = format!("leaderboard-prizes-{season}");
    jobs::enqueue(db, PayPrizes::QUEUE, &json!({ "season": season }), &key, &key, ATTEMPTS_MAX)
        .await
}

pub(super) async fn enqueue_purge(db: &mut PgConnection, board: LeaderboardId) -> Result<()> {
    let key = format!("leaderboard-purge-{board}");
    jobs::enqueue(db, PurgeBoard::QUEUE, &json!({ "board": board }), &key, &key, ATTEMPTS_MAX).await
}

//! The end of a season of a leaderboard. The process that comes first records the winners of the prizes and begins the
//! next season, exactly once.
//!
//! The clock of the database decides when a season is due to end. Every process looks for due seasons, and a job ends
//! them. A score that is submitted before the job runs ends the due season itself, so that the score counts for the
//! season in which it was submitted.

mod sql;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use serde_json::value::to_raw_value;
use sqlx::Connection as _;
use tokio_util::sync::CancellationToken;

use super::board::Season;
use super::{Leaderboards, jobs, sql as boards};
use crate::error::{Error, Result};
use crate::ids::LeaderboardId;
use crate::ledger::tail::append_event;
use crate::telemetry::gauge_value;

/// Pause after a search that found seasons past their end.
const PAUSE_AFTER_DUE: Duration = Duration::from_secs(1);

/// Longest pause between two searches for due seasons, because another process may have begun a season meanwhile.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Interval between two updates of the gauges, and between two searches for prizes that are still due.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// Interval at which old idempotency keys of score submissions are deleted.
const KEYS_INTERVAL: Duration = Duration::from_mins(10);

/// Time for which the response to a submitted score is kept, so that a repeated request gets the same response.
const KEY_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// Maximum number of idempotency keys that a statement removes, to keep its transaction short.
const KEYS_MAX: i64 = 10_000;

/// Maximum number of seasons for which a round enqueues jobs.
const DUE_MAX: i64 = 100;

/// Enqueues jobs for due seasons and prizes, updates the gauges and removes old idempotency keys, until shutdown.
pub async fn run(leaderboards: Leaderboards, stopping: CancellationToken) -> anyhow::Result<()> {
    let (mut sampled, mut removed) = (None, None);
    loop {
        let round = async {
            let pause = leaderboards.enqueue_resets().await?;
            if is_over(&mut sampled, SAMPLE_INTERVAL) {
                leaderboards.sample_and_enqueue_prizes().await?;
            }
            if is_over(&mut removed, KEYS_INTERVAL) {
                leaderboards.remove_keys().await?;
            }
            Ok::<_, Error>(pause)
        };
        let pause = round.await.unwrap_or_else(|error| {
            tracing::warn!(
                event = "leaderboard.schedule_failed",
                error.message = error.into_cause().to_string(),
                "the leaderboard seasons that are due to end, and the prizes that are due to be paid, could not be read; retrying"
            );
            PAUSE_AFTER_DUE
        });
        if stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

/// Returns whether an interval has passed since `last`, or `last` is not set yet. If so, sets `last` to now.
fn is_over(last: &mut Option<Instant>, interval: Duration) -> bool {
    let is_over = last.is_none_or(|last| last.elapsed() >= interval);
    if is_over {
        *last = Some(Instant::now());
    }
    is_over
}

impl Leaderboards {
    /// Enqueues a job for each season whose end has passed. Returns the pause until another season may be due.
    async fn enqueue_resets(&self) -> Result<Duration> {
        let mut db = self.db.acquire("leaderboard.due").await?;
        let mut pause = PAUSE_MAX;
        for end in sql::next_ends(&mut db, DUE_MAX).await? {
            if end.seconds > 0.0 {
                return Ok(pause.min(Duration::from_secs_f64(end.seconds)));
            }
            let mut tx = db.begin().await?;
            jobs::enqueue_reset(&mut tx, end.board).await?;
            tx.commit().await?;
            pause = PAUSE_AFTER_DUE;
        }
        Ok(pause)
    }

    async fn sample_and_enqueue_prizes(&self) -> Result<()> {
        let mut db = self.db.acquire("leaderboard.sample").await?;
        let state = sql::state(&mut db).await?;
        self.metrics.wallet_leaderboards.set(gauge_value(state.boards));
        let prizes = &self.metrics.wallet_leaderboard_prizes_open;
        prizes.with(["due"]).set(gauge_value(state.due));
        prizes.with(["unpaid"]).set(gauge_value(state.unpaid));
        self.metrics.wallet_leaderboard_season_overdue_seconds.set(state.overdue_seconds);
        // The job that pays prizes is enqueued when the season ends. This enqueues it again if it has used up its
        // attempts.
        for season in sql::seasons_with_due_prizes(&mut db, DUE_MAX).await? {
            let mut tx = db.begin().await?;
            jobs::enqueue_prizes(&mut tx, season).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn remove_keys(&self) -> Result<()> {
        let mut db = self.db.acquire("leaderboard.remove_keys").await?;
        let lifetime = KEY_LIFETIME.as_secs_f64();
        while sql::remove_keys(&mut db, lifetime, KEYS_MAX).await? == KEYS_MAX {}
        Ok(())
    }

    /// Ends the current season of a leaderboard if its end has passed, and begins the next season. Returns the season
    /// that ended.
    pub async fn end_due_season(&self, board: LeaderboardId) -> Result<Option<Season>> {
        let mut db = self.db.acquire("leaderboard.end_season").await?;
        if !sql::is_due(&mut db, board).await? {
            return Ok(None);
        }
        let mut tx = db.begin().await?;
        let Some(row) = boards::lock_board(&mut tx, board).await? else { return Ok(None) };
        let board = self.board_from(row)?;
        let Some(row) = boards::current_season(&mut tx, board.id).await? else { return Ok(None) };
        let season = self.season_from(row)?;
        let now = boards::now(&mut tx).await?;
        let Some(ends_at) = season.ends_at.filter(|ends_at| *ends_at <= now) else {
            return Ok(None);
        };
        sql::end_season(&mut tx, season.id).await?;
        let prizes = sql::fix_prizes(&mut tx, season.id).await?;
        // Seasons that would have begun and ended while no process ran are skipped, because no player could take part
        // in them.
        let is_last = board.settings.schedule.reset.is_none()
            || board.settings.schedule.ends_at.is_some_and(|last| last <= ends_at.max(now));
        if !is_last {
            let next_end = board.settings.schedule.season_end(now.max(ends_at))?;
            boards::open_season(&mut tx, board.id, ends_at, next_end).await?;
        }
        if prizes > 0 {
            jobs::enqueue_prizes(&mut tx, season.id).await?;
        }
        let body = json!({
            "board": board.name, "season": season.number, "ended": true, "prizes": prizes, "last": is_last,
        });
        let body = to_raw_value(&body).map_err(|cause| Error::Internal(cause.into()))?;
        append_event(&mut tx, &format!("leaderboard:{}", board.name), &body, None).await?;
        tx.commit().await?;
        self.metrics.wallet_leaderboard_seasons_ended_total.increment(1);
        tracing::info!(
            event = "leaderboard.season_ended",
            leaderboard.id = board.id.0,
            season.number = season.number,
            prizes,
            "season {} of leaderboard {} ended",
            season.number,
            board.name
        );
        Ok(Some(Season { ended_at: Some(now), ..season }))
    }

    /// Removes the data of a deleted leaderboard in steps, to keep transactions short. Returns `false`, and removes
    /// nothing, while prizes are still to be paid.
    pub(super) async fn purge(&self, board: LeaderboardId) -> Result<bool> {
        let mut db = self.db.acquire("leaderboard.purge").await?;
        if sql::has_due_prizes(&mut db, board).await? {
            return Ok(false);
        }
        while sql::purge_entries(&mut db, board).await? > 0 {}
        let mut tx = db.begin().await?;
        sql::purge_board(&mut tx, board).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Starts the task that looks for due seasons and prizes, and keeps the gauges of leaderboards up to date.
pub fn start(leaderboards: Leaderboards, tasks: &crate::tasks::Tasks) {
    let stopping = tasks.stopping().clone();
    let metrics = Arc::clone(&leaderboards.metrics);
    for state in ["due", "unpaid"] {
        metrics.wallet_leaderboard_prizes_open.with([state]).set(0.0);
    }
    tasks.spawn("leaderboard-seasons", run(leaderboards, stopping));
}

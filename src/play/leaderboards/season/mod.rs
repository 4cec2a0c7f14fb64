//! End of leaderboard seasons. When a season ends, exactly one process records the winners of the prizes and begins the
//! next season.
//!
//! The database clock decides when a season ends. Every process looks for seasons that are past their end, and enqueues
//! jobs that end them. If a score is submitted after the end of a season, but before the job has run, the submission
//! first ends the season. The score then counts for the next season.

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

/// Pause after a search for seasons past their end, if the search found such a season or failed.
const PAUSE_AFTER_DUE: Duration = Duration::from_secs(1);

/// Longest pause between two searches for seasons past their end. With a longer pause, a short season that another
/// process begins in the meantime could end late.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Interval at which this process updates the gauge metrics of leaderboards, and searches for prizes that are still
/// due.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// Interval at which expired idempotency keys of score submissions are deleted.
const KEYS_INTERVAL: Duration = Duration::from_mins(10);

/// Time for which the response to a submitted score is kept, so that a repeated request gets the same response.
const KEY_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// Maximum number of idempotency keys that a single statement deletes. The limit keeps the transaction short.
const KEYS_MAX: i64 = 10_000;

/// Maximum number of seasons for which the server enqueues jobs at a time.
const DUE_MAX: i64 = 100;

/// Enqueues jobs that end seasons and pay prizes, updates the gauge metrics, and deletes expired idempotency keys.
/// Repeats these steps until the process stops.
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
                "could not check which leaderboard seasons have ended and which prizes are due; retrying"
            );
            PAUSE_AFTER_DUE
        });
        if stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return Ok(());
        }
    }
}

/// Returns whether `interval` has passed since `last`, and if so, sets `last` to the current time. If `last` is `None`,
/// the interval counts as passed.
fn is_over(last: &mut Option<Instant>, interval: Duration) -> bool {
    let is_over = last.is_none_or(|last| last.elapsed() >= interval);
    if is_over {
        *last = Some(Instant::now());
    }
    is_over
}

impl Leaderboards {
    /// Enqueues a job for each season that is past its end. Returns the pause before the next search.
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
        // The job that pays prizes is enqueued when the season ends. If the job has used up its attempts, it is
        // enqueued again here.
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

    /// Ends the current season of a leaderboard if the season is past its end, and begins the next season. Returns the
    /// ended season, if any.
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

    /// Removes the data of a deleted leaderboard, in several short transactions. If prizes of the leaderboard are still
    /// due, removes nothing and returns `false`.
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

/// Starts the task that enqueues jobs to end seasons and pay prizes, and that updates the gauge metrics of
/// leaderboards.
pub fn start(leaderboards: Leaderboards, tasks: &crate::tasks::Tasks) {
    let stopping = tasks.stopping().clone();
    let metrics = Arc::clone(&leaderboards.metrics);
    for state in ["due", "unpaid"] {
        metrics.wallet_leaderboard_prizes_open.with([state]).set(0.0);
    }
    tasks.spawn("leaderboard-seasons", run(leaderboards, stopping));
}

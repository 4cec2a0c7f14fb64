//! A read replica, which serves the reads of clients that accept stale responses (`?stale=ok`).
//!
//! A check every second compares the replica with the primary. While the replica does not respond, lags too far behind,
//! or is not a copy of the primary, the primary serves these reads too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tracing::{info, warn};

use super::{Database, sql};
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// Time between two checks of the replica.
const INTERVAL: Duration = Duration::from_secs(1);

/// Longest time that a read waits for a snapshot of the replica, before the primary serves the read.
pub(super) const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// Interval at which a check polls the replica until the replica has replayed the write-ahead log of the primary up to
/// the expected position.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Name of the operation under which metrics record a check's queries to the primary.
const CHECK: &str = "replica.check";

/// Reason that is logged if the primary lacks the last seal (the record that ends a committed batch) of the replica:
/// then the replica is not a copy of the primary, and is not used.
const NO_COPY: &str = "it is not a copy of the primary, which does not have the last seal of the replica; \
    create the replica again with pg_basebackup";

/// Longest time that a check may take, after which the replica counts as unavailable.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// State of the replica, according to the last check or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplicaState {
    /// The replica responds, and does not lag further behind than `--database-read-lag-max` allows.
    Usable,
    /// The replica lags too far behind.
    Behind,
    /// The replica did not respond, or is not a copy of the primary.
    Unavailable,
    /// The replica has not been compared with the primary yet.
    Unchecked,
}

impl ReplicaState {
    const ALL: [Self; 4] = [Self::Usable, Self::Behind, Self::Unavailable, Self::Unchecked];

    /// Returns the metric label for `?stale=ok` reads that arrive while the replica is in this state.
    fn outcome(self) -> &'static str {
        match self {
            Self::Usable => "replica",
            Self::Behind => "behind",
            Self::Unavailable | Self::Unchecked => "unavailable",
        }
    }
}

/// The read replica of the database.
pub(super) struct ReadReplica {
    pool: PgPool,
    lag_max: Duration,
    /// The current state, as an index in [`ReplicaState::ALL`].
    state: AtomicU8,
    metrics: Arc<Metrics>,
}

impl ReadReplica {
    pub(super) fn new(
        options: PgConnectOptions,
        pool: PgPoolOptions,
        lag_max: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        for state in ReplicaState::ALL {
            metrics.wallet_replica_reads_total.preregister([state.outcome()]);
        }
        let pool = pool.acquire_timeout(READ_TIMEOUT).connect_lazy_with(options);
        let state = AtomicU8::new(ReplicaState::Unchecked as u8);
        Self { pool, lag_max, state, metrics }
    }

    /// Returns the pool of the replica, if the replica may serve a read now. Counts the read in the metrics.
    pub(super) fn pool_for_read(&self) -> Option<&PgPool> {
        let state = self.state();
        self.metrics.wallet_replica_reads_total.with([state.outcome()]).increment(1);
        (state == ReplicaState::Usable).then_some(&self.pool)
    }

    /// Marks the replica as unavailable after a failed read, so that the primary serves reads until the next check.
    pub(super) fn note_failure(&self, cause: &str) {
        self.enter(ReplicaState::Unavailable, cause);
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    fn state(&self) -> ReplicaState {
        ReplicaState::ALL[usize::from(self.state.load(Ordering::Relaxed))]
    }

    fn enter(&self, state: ReplicaState, reason: &str) {
        let before = self.state.swap(state as u8, Ordering::Relaxed);
        if before == state as u8 {
            return;
        }
        match state {
            ReplicaState::Usable => {
                info!(event = "replica.usable", "the read replica serves the reads with ?stale=ok");
            }
            ReplicaState::Behind => warn!(
                event = "replica.behind",
                "the read replica lags too far behind ({reason}); serving reads with ?stale=ok from the primary"
            ),
            ReplicaState::Unavailable => warn!(
                event = "replica.unavailable",
                error.message = reason,
                "the read replica cannot be used ({reason}); serving reads with ?stale=ok from the primary"
            ),
            ReplicaState::Unchecked => {}
        }
    }

    /// Compares the replica with the primary every second.
    pub(super) async fn watch(&self, primary: &Database) {
        let mut progress = Progress::new();
        loop {
            match tokio::time::timeout(CHECK_TIMEOUT, self.check(primary, &mut progress)).await {
                Ok(Ok(true)) => self.enter_by_lag(progress.lag()),
                // The primary did not respond, so the replica could not be compared with it. Only the lag is updated.
                Ok(Ok(false)) => match self.state() {
                    ReplicaState::Usable | ReplicaState::Behind => {
                        self.enter_by_lag(progress.lag());
                    }
                    ReplicaState::Unavailable | ReplicaState::Unchecked => {}
                },
                Ok(Err(cause)) => self.note_failure(&super::describe(&cause)),
                Err(_elapsed) => self.note_failure("it does not respond"),
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn enter_by_lag(&self, lag: Duration) {
        self.metrics.wallet_replica_lag_seconds.set(lag.as_secs_f64());
        if lag <= self.lag_max {
            self.enter(ReplicaState::Usable, "");
        } else {
            self.enter(ReplicaState::Behind, &format!("by {:.1} s", lag.as_secs_f64()));
        }
    }

    /// Compares the replica with the primary once. Returns whether the primary responded, or an error if the replica
    /// cannot be used.
    async fn check(&self, primary: &Database, progress: &mut Progress) -> Result<bool> {
        let began = Instant::now();
        let Ok(written) = async { sql::written(&mut *primary.acquire(CHECK).await?).await }.await
        else {
            return Ok(false);
        };
        progress.note_written(written, Instant::now());
        let copy = loop {
            let copy = sql::state_of_copy(&mut *self.pool.acquire().await?).await?;
            if progress.note_replayed(copy.replayed) || began.elapsed() > INTERVAL {
                break copy;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        let compare = async || sql::is_copy(&mut *primary.acquire(CHECK).await?, &copy).await;
        let mut is_copy = compare().await;
        if matches!(is_copy, Ok(false)) {
            // With synchronous replication, the replica may show a commit a little earlier than the primary.
            tokio::time::sleep(INTERVAL).await;
            is_copy = compare().await;
        }
        match is_copy {
            Ok(true) => Ok(true),
            Ok(false) => Err(Error::DatabaseUnavailable(anyhow::anyhow!(NO_COPY))),
            Err(_unanswered) => Ok(false),
        }
    }
}

/// Progress of a replica in replaying the primary's write-ahead log.
struct Progress {
    /// Time up to which the replica is known to be complete: it has everything that the primary had written by that
    /// time.
    complete_at: Instant,
    /// The position in the log of the primary that the replica is expected to reach next, and a time by which the
    /// primary had written the log up to this position.
    next: Option<(i64, Instant)>,
}

impl Progress {
    fn new() -> Self {
        Self { complete_at: Instant::now(), next: None }
    }

    /// Records that the primary had written its log up to the position `written` by the time `at`. Has no effect while
    /// the replica is still expected to reach an earlier position.
    fn note_written(&mut self, written: i64, at: Instant) {
        self.next.get_or_insert((written, at));
    }

    /// Records the position up to which the replica has replayed the log. Returns whether the replica has reached the
    /// expected position.
    fn note_replayed(&mut self, replayed: i64) -> bool {
        let reached = self.next.take_if(|(position, _)| *position <= replayed);
        if let Some((_, at)) = reached {
            self.complete_at = at;
        }
        reached.is_some()
    }

    /// Returns an upper bound of the replica's lag. The replica has every write of the primary that is older than this
    /// bound.
    fn lag(&self) -> Duration {
        self.complete_at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_the_time_since_the_replica_had_everything() {
        let mut progress = Progress::new();
        let began = progress.complete_at;
        let complete_at = |progress: &Progress| (progress.complete_at - began).as_secs();
        let mut check = |second, written, replayed| {
            progress.note_written(written, began + Duration::from_secs(second));
            (progress.note_replayed(replayed), complete_at(&progress))
        };

        assert_eq!(check(1, 10, 10), (true, 1));
        assert_eq!(check(2, 20, 10), (false, 1));
        assert_eq!(check(3, 30, 15), (false, 1));
        assert_eq!(check(4, 40, 25), (true, 2), "it lacks nothing from before the second check");
        assert_eq!(check(5, 50, 35), (false, 2));
        assert_eq!(check(6, 60, 60), (true, 5));
        assert_eq!(check(7, 60, 60), (true, 7), "the primary is idle");
    }
}

//! A read replica, which answers the reads of clients that accept an older state (`?stale=ok`).
//!
//! A check every second compares the replica with the primary. While the replica does not answer, lags too far behind,
//! or is no copy of the primary, the primary answers these reads too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Database, sql};
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// Time between two checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Longest time that a read waits for a connection to the replica, before the primary answers it.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether the replica can be used, as the last check or read has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplicaState {
    /// The replica answers, and lags less than the setting allows.
    Usable,
    /// The replica lags too far behind.
    Behind,
    /// The replica was not checked yet, did not answer, or is no copy of the primary.
    Unavailable,
}

impl ReplicaState {
    const ALL: [Self; 3] = [Self::Usable, Self::Behind, Self::Unavailable];

    /// Label of the reads that the replica, or instead of it the primary, answers in this state.
    fn outcome(self) -> &'static str {
        match self {
            Self::Usable => "replica",
            Self::Behind => "behind",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The read replica of the database.
pub(super) struct ReadReplica {
    pool: PgPool,
    lag_max: Duration,
    /// Index in [`ReplicaState::ALL`].
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
        let pool = pool.acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
        let state = AtomicU8::new(ReplicaState::Unavailable as u8);
        Self { pool, lag_max, state, metrics }
    }

    /// The pool of the replica, if the replica may answer a read now. Counts the read.
    pub(super) fn pool_for_read(&self) -> Option<&PgPool> {
        let state = self.state();
        self.metrics.wallet_replica_reads_total.with([state.outcome()]).increment(1);
        (state == ReplicaState::Usable).then_some(&self.pool)
    }

    /// Notes that a read failed, so that the primary answers until the next check.
    pub(super) fn note_failure(&self, cause: &Error) {
        self.enter(ReplicaState::Unavailable, &super::describe(cause));
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
                info!(event = "replica.usable", "the read replica answers reads with ?stale=ok");
            }
            ReplicaState::Behind => warn!(
                event = "replica.behind",
                "the read replica lags too far behind ({reason}); the primary answers its reads"
            ),
            ReplicaState::Unavailable => warn!(
                event = "replica.unavailable",
                error.message = reason,
                "the read replica cannot be used ({reason}); the primary answers its reads"
            ),
        }
    }

    /// Compares the replica with the primary every second, until shutdown.
    pub(super) async fn watch(&self, primary: &Database, stopping: CancellationToken) {
        let mut is_first = true;
        loop {
            match self.check(primary).await {
                Ok(Some(lag)) if lag <= self.lag_max => self.enter(ReplicaState::Usable, ""),
                Ok(Some(lag)) => {
                    self.enter(ReplicaState::Behind, &format!("by {:.1} s", lag.as_secs_f64()));
                }
                // Without the primary, the lag is unknown, but does not grow either.
                Ok(None) => {}
                Err(cause) if is_first => {
                    // The first state is the same, so that entering it would log nothing.
                    self.state.store(ReplicaState::Usable as u8, Ordering::Relaxed);
                    self.note_failure(&cause);
                }
                Err(cause) => self.note_failure(&cause),
            }
            is_first = false;
            if stopping.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// How far the replica lags behind the book; `None` if the primary does not answer. Fails if the replica cannot be
    /// used.
    async fn check(&self, primary: &Database) -> Result<Option<Duration>> {
        let copy = sql::state_of_copy(&mut *self.pool.acquire().await?).await?;
        let Ok(mut primary) = primary.acquire("replica.check").await else { return Ok(None) };
        let Ok(compared) = sql::compare_copy(&mut primary, &copy).await else { return Ok(None) };
        drop(primary);
        if !compared.is_copy {
            let cause = "it is a copy of another database or of another past: build it anew from the primary";
            return Err(Error::DatabaseUnavailable(anyhow::anyhow!(cause)));
        }
        let lag = Duration::try_from_secs_f64(compared.lag).unwrap_or_default();
        self.metrics.wallet_replica_lag_seconds.set(lag.as_secs_f64());
        Ok(Some(lag))
    }
}

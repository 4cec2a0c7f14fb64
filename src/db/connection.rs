//! A database connection from a pool. Metrics record how long operations wait for a connection, and how long each
//! operation uses its connection.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use tracing::{Span, info_span};

use crate::error::Result;
use crate::telemetry::{Metrics, is_exported};

/// Begins a transaction whose statements all see the same snapshot.
const BEGIN_SNAPSHOT: &str = "begin transaction isolation level repeatable read, read only";

/// Begins, on a read replica, a transaction whose statements all see the same snapshot.
///
/// The transaction locks the transfers table before it takes the snapshot. Without the lock, a partition of the table
/// could be replaced after the snapshot is taken, and the snapshot would lack the rows of the new partition. The
/// primary needs no lock: there, the command that archives a partition waits until older snapshots are no longer in
/// use.
const BEGIN_REPLICA_SNAPSHOT: &str = "begin transaction isolation level repeatable read, read only; \
    lock table only ledger.transfer in access share mode";

/// A wait for a connection from the pool. Metrics count the wait and record its duration, even if the request is
/// canceled during the wait.
struct PoolWait<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl<'a> PoolWait<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.db_client_connection_pending_requests.increment(1.0);
        Self { metrics, since: Instant::now() }
    }
}

impl Drop for PoolWait<'_> {
    fn drop(&mut self) {
        self.metrics.db_client_connection_pending_requests.decrement(1.0);
        let seconds = self.since.elapsed().as_secs_f64();
        self.metrics.db_client_connection_wait_time_seconds.record(seconds);
    }
}

/// Snapshot that the statements on a connection see.
#[derive(Debug, Clone, Copy)]
pub(super) enum SnapshotScope {
    /// Each statement sees everything that was committed before the statement began.
    Statements,
    /// All statements see the same snapshot.
    Snapshot,
    /// All statements see the same snapshot, which is from a read replica.
    ReplicaSnapshot,
}

enum Held {
    Connection(PoolConnection<Postgres>),
    Snapshot(Transaction<'static, Postgres>),
}

/// A connection from the pool. A metric, labeled with the name of the operation, records how long the connection is
/// used.
pub struct DbConnection {
    held: Held,
    operation: &'static str,
    metrics: Arc<Metrics>,
    since: Instant,
    /// Tracing span that ends when the connection returns to the pool.
    _span: Span,
}

impl DbConnection {
    /// Takes a connection from a pool. `operation` labels the metric that records how long the connection is used.
    pub(super) async fn take(
        pool: &PgPool,
        operation: &'static str,
        scope: SnapshotScope,
        metrics: &Arc<Metrics>,
    ) -> Result<Self> {
        let span = if is_exported(&Span::current()) {
            info_span!(
                "db.operation",
                otel.kind = "client",
                otel.name = operation,
                db.system.name = "postgresql",
                db.operation.name = operation
            )
        } else {
            Span::none()
        };
        let wait = PoolWait::new(metrics);
        // Boxed, because the pool's future takes 5 KB, which would enlarge the future of every operation.
        let acquired = match scope {
            SnapshotScope::Statements => Box::pin(pool.acquire()).await.map(Held::Connection),
            SnapshotScope::Snapshot => {
                Box::pin(pool.begin_with(BEGIN_SNAPSHOT)).await.map(Held::Snapshot)
            }
            SnapshotScope::ReplicaSnapshot => {
                Box::pin(pool.begin_with(BEGIN_REPLICA_SNAPSHOT)).await.map(Held::Snapshot)
            }
        };
        if matches!(acquired, Err(sqlx::Error::PoolTimedOut)) {
            metrics.db_client_connection_timeouts_total.increment(1);
        }
        drop(wait);
        let metrics = Arc::clone(metrics);
        Ok(Self { held: acquired?, operation, metrics, since: Instant::now(), _span: span })
    }
}

impl Deref for DbConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.held {
            Held::Connection(connection) => connection,
            Held::Snapshot(transaction) => transaction,
        }
    }
}

impl DerefMut for DbConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.held {
            Held::Connection(connection) => connection,
            Held::Snapshot(transaction) => transaction,
        }
    }
}

impl Drop for DbConnection {
    fn drop(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.metrics.db_client_operation_duration_seconds.with([self.operation]).record(seconds);
    }
}

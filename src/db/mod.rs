//! The database: its address, the connection pool, and the migrations.
//!
//! Other modules take a connection with [`Database::acquire`]. Metrics record how long an operation waits for its
//! connection, and how long it uses the connection. An operation that reads data for a response calls
//! [`Database::snapshot`] instead: all its statements see the same snapshot, and the response carries the snapshot's
//! position in the ledger ([`position`]). If the client accepts an older state, the snapshot may be from the read
//! replica (`replica`).

mod connection;
pub mod embedded;
pub mod migrations;
mod pipelined;
pub mod position;
mod replica;
mod server;
mod sql;
mod tls;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrate as _;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::error::{Error, Result};
use crate::secret::{self, Secret, from_setting};
use crate::settings;
use crate::telemetry::Metrics;
use connection::SnapshotScope;
use embedded::{Embedded, EmbeddedArgs};
use replica::ReadReplica;

pub use self::connection::DbConnection;
pub use self::pipelined::Pipelined;
pub(crate) use self::sql::{become_application, renew_installation, skip_ids};

/// Smallest allowed value of `--database-connections-max`. Some operations read through a second connection while they
/// hold the first.
const CONNECTIONS_MIN: i64 = 2;

/// Settings of the database: its address, and limits on its use.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// URL of a PostgreSQL server (15 or newer), or `@` and the path of a file that contains it [default: an embedded
    /// server under --data-dir].
    #[arg(long, env = "DATABASE_URL", global = true, hide_env_values = true, value_parser = from_setting)]
    pub database_url: Option<Secret>,
    /// File that contains the URL of the database, if `DATABASE_URL` is not set.
    #[arg(long, env = "REVWALLET_DATABASE_URL_FILE", global = true, hide_env_values = true, value_parser = secret::from_file)]
    pub database_url_file: Option<Secret>,
    /// URL of a read replica, or `@` and the path of a file that contains it. The replica serves reads with
    /// `?stale=ok`.
    #[arg(long, env = "REVWALLET_DATABASE_READ_URL", global = true, hide_env_values = true, value_parser = from_setting)]
    pub database_read_url: Option<Secret>,
    /// Maximum lag of the read replica; while the lag is larger, the primary serves all reads.
    #[arg(long, env = "REVWALLET_DATABASE_READ_LAG_MAX", global = true, default_value = "10s", value_parser = settings::positive_duration)]
    pub database_read_lag_max: Duration,
    /// Maximum number of connections in the pool. The pool of the read replica has the same limit.
    #[arg(long, env = "REVWALLET_DATABASE_CONNECTIONS_MAX", global = true, default_value_t = 16, value_parser = clap::value_parser!(u32).range(CONNECTIONS_MIN..=10_000))]
    pub database_connections_max: u32,
    /// Longest time that a request waits for a connection.
    #[arg(long, env = "REVWALLET_DATABASE_ACQUIRE_TIMEOUT", global = true, default_value = "3s", value_parser = settings::positive_duration)]
    pub database_acquire_timeout: Duration,
    /// Do not migrate the database when the server starts; run `revwallet migrate` instead.
    #[arg(long, env = "REVWALLET_NO_MIGRATE", global = true)]
    pub no_migrate: bool,
}

impl DatabaseArgs {
    /// Returns the URL of the server, if it is set. An empty setting counts as absent.
    fn url(&self) -> Option<&str> {
        let given = [&self.database_url, &self.database_url_file].into_iter().flatten();
        given.map(Secret::reveal).find(|url| !url.is_empty())
    }

    /// Returns the read replica, if its URL is set. An empty setting counts as absent.
    fn replica(&self, metrics: &Arc<Metrics>) -> anyhow::Result<Option<ReadReplica>> {
        let given = self.database_read_url.as_ref().map(Secret::reveal);
        let Some(url) = given.filter(|url| !url.is_empty()) else { return Ok(None) };
        let options = server::options("REVWALLET_DATABASE_READ_URL", url)?;
        let options = server::with_session_settings(options);
        let pool = self.pool_options();
        Ok(Some(ReadReplica::new(options, pool, self.database_read_lag_max, Arc::clone(metrics))))
    }

    fn pool_options(&self) -> PgPoolOptions {
        PgPoolOptions::new()
            .max_connections(self.database_connections_max)
            .acquire_timeout(self.database_acquire_timeout)
            // A ping on every use would double the round trips of a read.
            .test_before_acquire(false)
            .before_acquire(|connection, state| {
                Box::pin(async move {
                    if state.idle_for > IDLE_WITHOUT_PING {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| Box::pin(become_application(connection)))
    }
}

/// Longest idle time after which a pooled connection is reused without a ping. After a longer idle time, a ping first
/// checks that the connection is still open.
const IDLE_WITHOUT_PING: Duration = Duration::from_secs(1);

/// The connection pool, and the embedded Postgres server if the program uses it. Cheap to clone.
#[derive(Clone)]
pub struct Database(Arc<DatabaseParts>);

pub struct DatabaseParts {
    pool: PgPool,
    replica: Option<ReadReplica>,
    options: PgConnectOptions,
    pipelined: Pipelined,
    embedded: Option<Arc<Embedded>>,
    metrics: Arc<Metrics>,
}

impl Deref for Database {
    type Target = DatabaseParts;

    fn deref(&self) -> &DatabaseParts {
        &self.0
    }
}

impl Database {
    /// Connects to the configured server. If no server is configured, starts the embedded server, and creates its data
    /// directory if it does not exist. An error message is one sentence that says what to do.
    pub async fn open(
        args: &DatabaseArgs,
        embedded: &EmbeddedArgs,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        Self::open_at(args, || Embedded::start(embedded), metrics).await
    }

    /// Like `open`, but fails if the embedded server has no data directory yet.
    pub async fn open_existing(
        args: &DatabaseArgs,
        embedded: &EmbeddedArgs,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        Self::open_at(args, || Embedded::start_existing(embedded), metrics).await
    }

    async fn open_at(
        args: &DatabaseArgs,
        start_embedded: impl AsyncFnOnce() -> anyhow::Result<Embedded>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let replica = args.replica(metrics)?;
        let (options, mut pipelined, embedded) = if let Some(url) = args.url() {
            (server::options("DATABASE_URL", url)?, url.parse::<Pipelined>()?, None)
        } else {
            let embedded = start_embedded().await?;
            let mut config = tokio_postgres::Config::new();
            config.host_path(embedded.socket_dir()).user(embedded.user());
            config.dbname(embedded.database());
            (embedded.connect_options(), Pipelined::local(config)?, Some(Arc::new(embedded)))
        };
        pipelined.config.application_name("revwallet ledger");
        let options = server::with_session_settings(options);
        let is_distributed = match server::check(&options).await {
            Ok(is_distributed) => is_distributed,
            Err(cause) => {
                if let Some(embedded) = &embedded {
                    embedded.stop().await;
                }
                return Err(cause);
            }
        };
        let options = if is_distributed {
            // Citus must plan each statement with its parameters, because they determine which server stores the book.
            pipelined.set_plan_cache_mode("force_custom_plan");
            options.options([("plan_cache_mode", "force_custom_plan")])
        } else {
            options
        };
        let pool = args.pool_options().connect_lazy_with(options.clone());
        metrics.db_client_connection_max.set(f64::from(args.database_connections_max));
        let metrics = Arc::clone(metrics);
        Ok(Self(Arc::new(DatabaseParts { pool, replica, options, pipelined, embedded, metrics })))
    }

    /// Migrates the schema to the version of this program. `migrate_others` migrates the schemas that these migrations
    /// do not cover, such as the job queue, under the same lock.
    pub async fn migrate(
        &self,
        migrate_others: impl AsyncFnOnce(&PgConnectOptions) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        // The lock also covers the job queue and its grants. A process that starts at the same time waits here.
        connection.lock().await?;
        migrations::apply(&mut connection).await?;
        migrate_others(&self.options).await?;
        connection.unlock().await?;
        Self::prepare(connection).await
    }

    /// Distributes the books of the ledger over the servers of the Citus cluster to which the database belongs.
    pub async fn distribute(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        connection.lock().await?;
        migrations::require_current(&mut connection).await?;
        migrations::distribute(&mut connection).await?;
        connection.unlock().await?;
        connection.close().await?;
        Ok(())
    }

    /// Returns an error unless the schema has the version of this program.
    pub async fn require_current(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        migrations::require_current(&mut connection).await?;
        Self::prepare(connection).await
    }

    /// Prepares a database that has the schema of this program: repairs the order of events after a restore, and warns
    /// if the program connects as the owner of the tables.
    async fn prepare(mut connection: PgConnection) -> anyhow::Result<()> {
        sql::repair_event_shift(&mut connection).await?;
        if let Some(user) = sql::user_without_role(&mut connection).await? {
            warn!(
                "the program connects as {user}, which owns the tables, so only triggers keep the ledger append-only; \
                 as an administrator, run: grant revwallet_app to \"{user}\""
            );
        }
        let installation = sql::installation(&mut connection).await?;
        debug!(installation.id = %installation, "database ready");
        connection.close().await?;
        Ok(())
    }

    /// Takes a connection from the pool. `operation` labels the metric that records how long the connection is used.
    pub async fn acquire(&self, operation: &'static str) -> Result<DbConnection> {
        DbConnection::take(&self.pool, operation, SnapshotScope::Statements, &self.metrics).await
    }

    /// Takes a connection whose statements all see the same snapshot, and records the snapshot's position in the
    /// ledger, which the response carries. If the client accepts an older state, the snapshot may be from the read
    /// replica.
    pub async fn snapshot(&self, operation: &'static str) -> Result<DbConnection> {
        match self.stale_snapshot(operation).await {
            Some(snapshot) => Ok(snapshot),
            None => self.fresh_snapshot(operation).await,
        }
    }

    /// Like `snapshot`, but always from the primary, for requests that have already read data. An older snapshot of the
    /// replica may lack the data.
    pub async fn fresh_snapshot(&self, operation: &'static str) -> Result<DbConnection> {
        position::note_fresh();
        self.snapshot_in(&self.pool, SnapshotScope::Snapshot, operation).await
    }

    /// Like `acquire`, for an operation whose single statement also reads the position in the ledger. If the client
    /// accepts an older state, the connection may be to the read replica.
    pub async fn read(&self, operation: &'static str) -> Result<DbConnection> {
        if let Some(snapshot) = self.stale_snapshot(operation).await {
            return Ok(snapshot);
        }
        position::note_fresh();
        self.acquire(operation).await
    }

    /// Takes a snapshot of the read replica, if the client accepts an older state and the replica can be used.
    async fn stale_snapshot(&self, operation: &'static str) -> Option<DbConnection> {
        let replica = self.replica.as_ref().filter(|_| position::may_use_replica())?;
        let snapshot =
            self.snapshot_in(replica.pool_for_read()?, SnapshotScope::ReplicaSnapshot, operation);
        // Boxed, so that this rare path does not enlarge the future of every read.
        match Box::pin(tokio::time::timeout(replica::READ_TIMEOUT, snapshot)).await {
            Ok(Ok(snapshot)) => return Some(snapshot),
            Ok(Err(cause)) => replica.note_failure(&describe(&cause)),
            Err(_elapsed) => replica.note_failure("it does not respond"),
        }
        None
    }

    async fn snapshot_in(
        &self,
        pool: &PgPool,
        scope: SnapshotScope,
        operation: &'static str,
    ) -> Result<DbConnection> {
        let mut connection = DbConnection::take(pool, operation, scope, &self.metrics).await?;
        position::note_read(sql::read_position(&mut connection).await?);
        Ok(connection)
    }

    /// Checks the read replica until shutdown. Without a replica, returns at once.
    pub async fn watch_replica(&self, stopping: CancellationToken) {
        if let Some(replica) = &self.replica {
            let _stopped = stopping.run_until_cancelled(replica.watch(self)).await;
        }
    }

    /// Returns the options for opening a connection outside the pool.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// Returns the options for opening a pipelined connection, which can have many requests in flight.
    pub fn pipelined(&self) -> &Pipelined {
        &self.pipelined
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub fn embedded(&self) -> Option<&Arc<Embedded>> {
        self.embedded.as_ref()
    }

    /// Checks that the server responds. The error is the reason why the server does not respond.
    pub async fn ping(&self) -> Result<(), String> {
        let mut connection = self.acquire("db.ping").await.map_err(|error| describe(&error))?;
        sql::ping(&mut connection).await.map_err(|error| describe(&error))
    }

    /// Updates the metrics of the connection pool and of the embedded server.
    pub fn sample(&self) {
        let idle = u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX);
        let used = self.pool.size().saturating_sub(idle);
        self.metrics.db_client_connection_count.with(["idle"]).set(f64::from(idle));
        self.metrics.db_client_connection_count.with(["used"]).set(f64::from(used));
        if let Some(embedded) = &self.embedded {
            self.metrics.wallet_embedded_postgres_restarts_total.absolute(embedded.restarts());
        }
    }

    /// Closes the pool, and stops the embedded server if this program started it.
    pub async fn close(&self) {
        self.pool.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
        if let Some(embedded) = &self.embedded {
            embedded.stop().await;
        }
    }
}

fn describe(error: &Error) -> String {
    match error.cause() {
        Some(cause) => format!("{error}: {cause:#}"),
        None => error.to_string(),
    }
}

//! The database: where it is, the pool, and how long one waits for it.
//!
//! Slices take a connection with [`Database::acquire`] under the name of what they do with it;
//! waiting and working are measured there, in one place.

pub mod embedded;
pub mod migrations;
mod pipelined;
mod server;
mod sql;
mod tls;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::migrate::Migrate as _;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};
use tracing::{Span, info, info_span};

use crate::duration::duration;
use crate::error::{Error, Result};
use crate::secret::{self, Secret, from_setting};
use crate::telemetry::{Metrics, is_traced};
use embedded::{Embedded, EmbeddedArgs};

pub use self::pipelined::Pipelined;
pub(crate) use self::sql::{renew_installation, skip_ids};

/// Which database, and how it is used.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// A PostgreSQL server (15 or newer), or `@` and the path of a file that names it [default: an embedded one under
    /// --data-dir].
    #[arg(long, env = "DATABASE_URL", global = true, hide_env_values = true, value_parser = from_setting)]
    pub database_url: Option<Secret>,
    /// A file that holds it, where `DATABASE_URL` is not given.
    #[arg(long, env = "REVWALLET_DATABASE_URL_FILE", global = true, hide_env_values = true, value_parser = secret::from_file)]
    pub database_url_file: Option<Secret>,
    /// Most connections that are open at once.
    #[arg(long, env = "REVWALLET_DATABASE_CONNECTIONS_MAX", global = true, default_value_t = 16)]
    pub database_connections_max: u32,
    /// Longest that a request waits for a connection.
    #[arg(long, env = "REVWALLET_DATABASE_ACQUIRE_TIMEOUT", global = true, default_value = "3s", value_parser = duration)]
    pub database_acquire_timeout: Duration,
    /// Do not migrate at start: `revwallet migrate` does it apart.
    #[arg(long, env = "REVWALLET_NO_MIGRATE", global = true)]
    pub no_migrate: bool,
}

impl DatabaseArgs {
    /// The server that was named; an empty variable names none.
    fn url(&self) -> Option<&str> {
        let given = [&self.database_url, &self.database_url_file].into_iter().flatten();
        given.map(Secret::reveal).find(|url| !url.is_empty())
    }
}

/// How long a connection may have been idle to be used without asking whether it still works.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// The pool, and the embedded server if there is one. Cheap to clone.
#[derive(Clone)]
pub struct Database(Arc<DatabaseParts>);

pub struct DatabaseParts {
    pool: PgPool,
    options: PgConnectOptions,
    writer: Pipelined,
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
    /// Connects, starting the embedded server when no other is named.
    /// Every failure is one sentence that says what to do.
    pub async fn open(
        args: &DatabaseArgs,
        embedded: &EmbeddedArgs,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let (options, mut writer, embedded) = if let Some(url) = args.url() {
            (server::options(url)?, url.parse::<Pipelined>()?, None)
        } else {
            let embedded = Embedded::start(embedded).await?;
            let mut writer = tokio_postgres::Config::new();
            writer.host_path(embedded.socket_dir()).user(embedded.user());
            writer.dbname(embedded.database());
            (embedded.connect_options(), Pipelined::local(writer)?, Some(Arc::new(embedded)))
        };
        writer.config.application_name("revwallet ledger");
        let options = server::with_session_settings(options);
        if let Err(cause) = server::check(&options).await {
            if let Some(embedded) = &embedded {
                embedded.stop().await;
            }
            return Err(cause);
        }
        let pool = PgPoolOptions::new()
            .max_connections(args.database_connections_max)
            .acquire_timeout(args.database_acquire_timeout)
            // Asking on every use would double the round trips of a read.
            .test_before_acquire(false)
            .before_acquire(|connection, state| {
                Box::pin(async move {
                    if state.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| Box::pin(sql::become_application(connection)))
            .connect_lazy_with(options.clone());
        metrics.db_client_connection_max.set(f64::from(args.database_connections_max));
        let metrics = Arc::clone(metrics);
        Ok(Self(Arc::new(DatabaseParts { pool, options, writer, embedded, metrics })))
    }

    /// Brings the schema to this program's version, or with `--no-migrate` only checks it. `others` migrates what is
    /// not in our own migrations, under the same lock.
    pub async fn migrate(
        &self,
        args: &DatabaseArgs,
        others: impl AsyncFnOnce(&PgConnectOptions) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        if args.no_migrate {
            migrations::check(&mut connection).await?;
        } else {
            // Over the queue as well, and what it grants: whoever starts at the same time waits here.
            connection.lock().await?;
            migrations::apply(&mut connection).await?;
            others(&self.options).await?;
            connection.unlock().await?;
        }
        sql::mend_event_shift(&mut connection).await?;
        let installation = sql::installation(&mut connection).await?;
        info!(installation.id = %installation, "the database is ready: installation {installation}");
        connection.close().await?;
        Ok(())
    }

    /// A connection for the operation of that name.
    pub async fn acquire(&self, operation: &'static str) -> Result<DbConnection> {
        let span = if is_traced() {
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
        let waiting = Waiting::begin(&self.metrics);
        let acquired = self.pool.acquire().await;
        if matches!(acquired, Err(sqlx::Error::PoolTimedOut)) {
            self.metrics.db_client_connection_timeouts_total.increment(1);
        }
        drop(waiting);
        let metrics = Arc::clone(&self.metrics);
        Ok(DbConnection {
            inner: acquired?,
            operation,
            metrics,
            since: Instant::now(),
            _span: span,
        })
    }

    /// How to open a connection outside the pool.
    pub fn options(&self) -> &PgConnectOptions {
        &self.options
    }

    /// How to open a connection that can have many requests in flight.
    pub fn pipelined(&self) -> &Pipelined {
        &self.writer
    }

    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub fn embedded(&self) -> Option<&Arc<Embedded>> {
        self.embedded.as_ref()
    }

    /// Whether the server answers; the reason when it does not.
    pub async fn ping(&self) -> Result<(), String> {
        let mut connection = self.acquire("db.ping").await.map_err(|error| reason(&error))?;
        sql::ping(&mut connection).await.map_err(|error| reason(&error))
    }

    /// Notes in the metrics how the pool is used now.
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
        if let Some(embedded) = &self.embedded {
            embedded.stop().await;
        }
    }
}

fn reason(error: &Error) -> String {
    match error.cause() {
        Some(cause) => format!("{error}: {cause:#}"),
        None => error.to_string(),
    }
}

/// Counts and times one wait, also when the waiter gives up.
struct Waiting<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl<'a> Waiting<'a> {
    fn begin(metrics: &'a Metrics) -> Self {
        metrics.db_client_connection_pending_requests.increment(1.0);
        Self { metrics, since: Instant::now() }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.metrics.db_client_connection_pending_requests.decrement(1.0);
        let seconds = self.since.elapsed().as_secs_f64();
        self.metrics.db_client_connection_wait_time_seconds.record(seconds);
    }
}

/// A connection that is measured under the name of what it is used for.
pub struct DbConnection {
    inner: PoolConnection<Postgres>,
    operation: &'static str,
    metrics: Arc<Metrics>,
    since: Instant,
    /// Ends when the connection goes back.
    _span: Span,
}

impl Deref for DbConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.inner
    }
}

impl DerefMut for DbConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.inner
    }
}

impl Drop for DbConnection {
    fn drop(&mut self) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.metrics.db_client_operation_duration_seconds.with([self.operation]).record(seconds);
    }
}

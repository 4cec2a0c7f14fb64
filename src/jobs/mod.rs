//! Jobs: work that is enqueued in a transaction and runs after its commit, with retries.
//!
//! The crate `graphile_worker` implements the queue. Its tables are in a separate schema of the same database. At
//! startup, every kind of job is added to a [`Registry`]. A job may run twice, so it must be safe to repeat, and it
//! must not hold a transaction open during slow calls to other systems.

mod sql;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use graphile_worker::{
    LocalQueueConfig, RefetchDelayConfig, TaskHandler, WorkerContext, WorkerOptions,
    WorkerRecoveryConfig, WorkerUtils,
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::db::become_application;
use crate::error::{Error, Result};
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, TraceContext, gauge_value, in_trace_if_sampled};

pub use sql::{defer, enqueue};

/// Database schema of the queue's tables.
const SCHEMA: &str = "graphile_worker";

/// Maximum number of jobs that this process runs at the same time. Jobs spend most of their time waiting for other
/// systems, and hold no database connection while they wait. A kind of job that may wait for a long time has its own,
/// much lower limit, as in `webhook/slots.rs`.
const CONCURRENCY: usize = 256;

/// Maximum number of database connections for managing the queue: one listens for notifications, the others fetch and
/// finish jobs.
const CONNECTIONS_MAX: u32 = 4;

/// Longest pause between two polls. The polls find jobs that become due without a notification, such as retries.
const POLL_INTERVAL: Duration = Duration::from_secs(3);

/// Maximum number of jobs that one poll fetches.
const FETCH_MAX: usize = 100;

/// Longest time that a fetched job waits in this process while [`CONCURRENCY`] other jobs run. After that time, the job
/// is returned to the queue for other processes.
const FETCHED_WAIT_MAX: Duration = Duration::from_secs(5);

/// Time for which finished jobs accumulate before a single statement deletes them all.
const COMPLETION_DELAY: Duration = Duration::from_millis(5);

/// Time without a heartbeat after which a worker process counts as dead, and other processes run its jobs again.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(20);

/// Interval between updates of the gauges that count waiting jobs.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// First pause before the queue is restarted after a failure; it doubles with each further failure.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// Longest pause before the queue is restarted after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The kinds of jobs that the process runs, and the values that their handlers need.
#[derive(Clone, Default)]
pub struct Registry {
    queues: Vec<&'static str>,
    definitions: Vec<Arc<dyn Fn(WorkerOptions) -> WorkerOptions + Send + Sync>>,
}

impl Registry {
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a kind of job. `queue` is the identifier of the kind, and labels its jobs in the metrics.
    #[must_use]
    pub fn job<T: TaskHandler + 'static>(mut self, queue: &'static str) -> Self {
        self.queues.push(queue);
        self.definitions.push(Arc::new(WorkerOptions::define_job::<T>));
        self
    }

    /// Adds a value that job handlers need. [`run`] finds the value by its type, so there can be only one value of each
    /// type.
    #[must_use]
    pub fn context<C: Clone + Send + Sync + 'static>(mut self, value: C) -> Self {
        let context = JobContext(value);
        self.definitions.push(Arc::new(move |options| options.add_extension(context.clone())));
        self
    }

    fn define(&self, options: WorkerOptions) -> WorkerOptions {
        self.definitions.iter().fold(options, |options, define| define(options))
    }
}

/// Wraps a value that handlers receive, because the worker stores only types that implement `Debug`.
#[derive(Clone)]
struct JobContext<C>(C);

impl<C> std::fmt::Debug for JobContext<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JobContext")
    }
}

/// Creates or updates the tables of the queue.
pub async fn migrate(options: &PgConnectOptions) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    let migrated = WorkerUtils::new(&pool, SCHEMA).migrate().await;
    migrated
        .map_err(|cause| anyhow::anyhow!("{cause}"))
        .context("the job queue cannot be migrated")?;
    sql::grant_to_application(&mut *pool.acquire().await?).await?;
    pool.close().await;
    Ok(())
}

/// Starts the tasks that run jobs until the program stops. `grace` is the longest time that shutdown waits for running
/// jobs.
pub fn start(
    options: &PgConnectOptions,
    registry: Registry,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
    grace: Duration,
) {
    for queue in &registry.queues {
        for outcome in ["ok", "retry", "dead"] {
            metrics.wallet_jobs_total.preregister([queue, outcome]);
        }
    }
    let registry = registry.context(Arc::clone(metrics));
    let (options, stopping) = (options.clone(), tasks.stopping().clone());
    let queues = registry.queues.clone();
    let sampling = sample_depths(options.clone(), queues, Arc::clone(metrics), stopping.clone());
    tasks.spawn("jobs", async move {
        let mut backoff = BACKOFF_MIN;
        while !stopping.is_cancelled() {
            let started = Instant::now();
            let Err(cause) = run_worker(&options, &registry, &stopping, grace).await else {
                continue;
            };
            if started.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
            tracing::warn!(
                event = "jobs.failed",
                error.message = format!("{cause:#}"),
                "job queue failed; restarting it in {backoff:?}"
            );
            let _stopped = stopping.run_until_cancelled(tokio::time::sleep(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        Ok(())
    });
    tasks.spawn("jobs-sample", sampling);
}

/// Runs the worker until the program stops or the queue fails.
async fn run_worker(
    options: &PgConnectOptions,
    registry: &Registry,
    stopping: &CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .after_connect(|connection, _| Box::pin(become_application(connection)))
        .connect_lazy_with(options.clone());
    let recovery = WorkerRecoveryConfig {
        enabled: true,
        heartbeat_interval: HEARTBEAT_TIMEOUT / 5,
        sweep_interval: HEARTBEAT_TIMEOUT / 3,
        sweep_threshold: HEARTBEAT_TIMEOUT,
        recovery_delay: Duration::ZERO,
        ..WorkerRecoveryConfig::default()
    };
    // Without this pause, the worker would poll again at once after an empty poll. A single notification ends the
    // pause.
    let pause = RefetchDelayConfig::default()
        .with_duration(POLL_INTERVAL)
        .with_threshold(0)
        .with_max_abort_threshold(1);
    let local_queue = LocalQueueConfig::default()
        .with_size(FETCH_MAX)
        .with_ttl(FETCHED_WAIT_MAX)
        .with_refetch_delay(pause);
    let options = WorkerOptions::default()
        .poll_interval(POLL_INTERVAL)
        .schema(SCHEMA)
        .pg_pool(pool.clone())
        .concurrency(CONCURRENCY)
        // With a local queue, one poll fetches jobs for all slots. Otherwise each slot would poll once a second and
        // fetch one job at a time.
        .local_queue(local_queue)
        .complete_job_batch_delay(COMPLETION_DELAY)
        .worker_recovery(recovery)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(stopping.clone().cancelled_owned())
        .shutdown_grace_period(grace);
    let worker = registry.define(options).init().await?;
    let outcome = worker.run().await;
    pool.close().await;
    Ok(outcome?)
}

/// Runs one job in its own trace, and counts its outcome. `C` is the type of the value that `job` needs, which was
/// added with [`Registry::context`].
pub(crate) async fn run<C: Clone + Send + Sync + 'static>(
    queue: &'static str,
    context: &WorkerContext,
    job: impl AsyncFnOnce(&C, JobAttempt) -> Result<()>,
) -> Result<(), String> {
    let metrics = context.get_ext::<JobContext<Arc<Metrics>>>();
    let (Some(JobContext(value)), Some(JobContext(metrics))) =
        (context.get_ext::<JobContext<C>>(), metrics)
    else {
        return Err("the registry has no context for this job".to_owned());
    };
    let job_row = context.job();
    let attempt = JobAttempt {
        number: i32::from(*job_row.attempts()),
        is_last: job_row.attempts() >= job_row.max_attempts(),
    };
    let due = job_row.run_at().timestamp_millis();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a wait")]
    let latency = (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000
        - i128::from(due)) as f64
        / 1e3;
    metrics.wallet_job_latency_seconds.with([queue]).record(latency.max(0.0));
    let span = in_trace_if_sampled(
        &TraceContext::new_root(),
        || tracing::info_span!(parent: None, "job", job.queue = queue, job.id = job_row.id()),
    );
    let outcome = job(value, attempt).instrument(span).await;
    let name = match &outcome {
        Ok(()) => "ok",
        Err(_) if attempt.is_last => "dead",
        Err(_) => "retry",
    };
    metrics.wallet_jobs_total.with([queue, name]).increment(1);
    outcome.map_err(|error| error.into_cause().to_string())
}

/// An attempt to run a job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobAttempt {
    pub(crate) number: i32,
    /// Whether this attempt is the last. If the last attempt fails, the job is not retried.
    pub(crate) is_last: bool,
}

impl JobAttempt {
    pub(crate) const FIRST: Self = Self { number: 1, is_last: false };
}

/// Updates the gauges that count the waiting jobs of each kind, until the program stops.
async fn sample_depths(
    options: PgConnectOptions,
    queues: Vec<&'static str>,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_connect(|connection, _| Box::pin(become_application(connection)))
        .connect_lazy_with(options);
    loop {
        // If the database is not available, the gauges keep their values until the next round.
        if let Ok(mut db) = pool.acquire().await
            && let Ok(depths) = sql::queue_depths(&mut db).await
        {
            for queue in &queues {
                let ready = depths.iter().find(|(other, _)| other == queue);
                let ready = ready.map_or(0, |(_, ready)| *ready);
                metrics.wallet_jobs_ready.with([queue]).set(gauge_value(ready));
            }
        }
        if stopping.run_until_cancelled(tokio::time::sleep(SAMPLE_INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

/// Creates the error that makes the queue run the job again later, for example after the failure of another system.
pub(crate) fn retry(why: String) -> Error {
    Error::Internal(anyhow::Error::msg(why))
}

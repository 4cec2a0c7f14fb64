//! Jobs: work that is promised in a transaction and done after it, however often that takes.
//!
//! The queue is `graphile_worker`, in a schema of its own beside the data. What is registered is listed in one place,
//! [`start`]. A job may run twice; it holds no transaction open while it does slow things outside.

mod sql;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use graphile_worker::{WorkerContext, WorkerOptions, WorkerRecoveryConfig, WorkerUtils};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::error::{Error, Result};
use crate::tasks::Tasks;
use crate::telemetry::{Metrics, TraceIds, begin};
use crate::webhook::{Deliver, Webhooks};

pub use sql::enqueue;

/// Where the queue keeps its tables.
const SCHEMA: &str = "graphile_worker";

/// Jobs that run at once in this process. They mostly wait for others, and hold no connection while they do; so many
/// that one caller's webhooks, all of them hanging, leave room for everybody else's.
const CONCURRENCY: usize = 256;

/// Connections of the queue's own: one listens, the others fetch and finish jobs.
const CONNECTIONS_MAX: u32 = 4;

/// A worker that has been silent for this long is dead, and its jobs run elsewhere.
const SILENT_MAX: Duration = Duration::from_secs(20);

/// How often the depths of the queues are looked up.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(15);

/// First and longest pause after the queue has failed.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What every job has at hand.
#[derive(Clone)]
struct Hands {
    webhooks: Webhooks,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hands")
    }
}

/// Brings the queue's own tables up to date.
pub async fn migrate(options: &PgConnectOptions) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    let migrated = WorkerUtils::new(&pool, SCHEMA).migrate().await;
    migrated.map_err(|cause| anyhow::anyhow!("{cause}")).context("the queue cannot be migrated")?;
    sql::grant(&mut *pool.acquire().await?).await?;
    pool.close().await;
    Ok(())
}

/// Runs jobs until the tasks stop.
pub fn start(
    options: &PgConnectOptions,
    webhooks: Webhooks,
    metrics: &Arc<Metrics>,
    tasks: &Tasks,
    grace: Duration,
) {
    for outcome in ["ok", "retry", "dead"] {
        metrics.wallet_jobs_total.announce([Deliver::QUEUE, outcome]);
    }
    metrics.wallet_dead_letters.with([Deliver::QUEUE]).set(0.0);
    let hands = Hands { webhooks, metrics: Arc::clone(metrics) };
    let (options, stopping) = (options.clone(), tasks.stopping().clone());
    let sampling = sample(options.clone(), Arc::clone(metrics), stopping.clone());
    tasks.spawn("jobs", async move {
        let mut wait = PAUSE_MIN;
        while !stopping.is_cancelled() {
            let Err(cause) = work(&options, hands.clone(), &stopping, grace).await else {
                continue;
            };
            tracing::warn!(
                event = "jobs.failed",
                error.message = format!("{cause:#}"),
                "the queue failed; again in {wait:?}"
            );
            let _stopped = stopping.run_until_cancelled(tokio::time::sleep(wait)).await;
            wait = (wait * 2).min(PAUSE_MAX);
        }
        Ok(())
    });
    tasks.spawn("jobs-sample", sampling);
}

async fn work(
    options: &PgConnectOptions,
    hands: Hands,
    stopping: &CancellationToken,
    grace: Duration,
) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .after_connect(|connection, _| Box::pin(sql::become_application(connection)))
        .connect_lazy_with(options.clone());
    let recovery = WorkerRecoveryConfig {
        enabled: true,
        heartbeat_interval: SILENT_MAX / 9,
        sweep_interval: SILENT_MAX / 3,
        sweep_threshold: SILENT_MAX,
        recovery_delay: Duration::ZERO,
        ..WorkerRecoveryConfig::default()
    };
    let worker = WorkerOptions::default()
        .schema(SCHEMA)
        .pg_pool(pool.clone())
        .concurrency(CONCURRENCY)
        .worker_recovery(recovery)
        .add_extension(hands)
        .listen_os_shutdown_signals(false)
        .shutdown_signal(stopping.clone().cancelled_owned())
        .shutdown_grace_period(grace)
        // Every kind of job there is.
        .define_job::<Deliver>()
        .init()
        .await?;
    let outcome = worker.run().await;
    pool.close().await;
    Ok(outcome?)
}

/// Runs one job with a trace of its own, and counts what becomes of it.
pub(crate) async fn run(
    queue: &'static str,
    context: &WorkerContext,
    job: impl AsyncFnOnce(&Webhooks, Attempt) -> Result<()>,
) -> Result<(), String> {
    let Some(hands) = context.get_ext::<Hands>() else { return Err("no hands".to_owned()) };
    let (job_row, metrics) = (context.job(), &hands.metrics);
    let attempt = Attempt {
        number: i32::from(*job_row.attempts()),
        last: job_row.attempts() >= job_row.max_attempts(),
    };
    let due = job_row.run_at().timestamp_millis();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of a wait")]
    let waited = (time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000
        - i128::from(due)) as f64
        / 1e3;
    metrics.wallet_job_latency_seconds.with([queue]).record(waited.max(0.0));
    let span = tracing::info_span!(parent: None, "job", job.queue = queue, job.id = job_row.id());
    begin(&span, &TraceIds::begin());
    let outcome = job(&hands.webhooks, attempt).instrument(span).await;
    let name = match &outcome {
        Ok(()) => "ok",
        Err(_) if attempt.last => "dead",
        Err(_) => "retry",
    };
    metrics.wallet_jobs_total.with([queue, name]).increment(1);
    outcome.map_err(|error| error.into_cause().to_string())
}

/// Which attempt of a job this is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt {
    pub(crate) number: i32,
    pub(crate) last: bool,
}

async fn sample(
    options: PgConnectOptions,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .after_connect(|connection, _| Box::pin(sql::become_application(connection)))
        .connect_lazy_with(options);
    loop {
        // The next time tells it if this one does not.
        if let Ok(mut db) = pool.acquire().await
            && let Ok(depths) = sql::depths(&mut db).await
        {
            metrics.wallet_jobs_ready.with([Deliver::QUEUE]).set(0.0);
            for (queue, ready) in depths {
                metrics.wallet_jobs_ready.with([&queue]).set(crate::ledger::to_metric(ready));
            }
            if let Ok(dead) = sql::dead_deliveries(&mut db).await {
                let dead = crate::ledger::to_metric(dead);
                metrics.wallet_dead_letters.with([Deliver::QUEUE]).set(dead);
            }
        }
        if stopping.run_until_cancelled(tokio::time::sleep(SAMPLE_INTERVAL)).await.is_none() {
            return Ok(());
        }
    }
}

/// A job's failure that is not ours: what was tried is tried again.
pub(crate) fn again(why: String) -> Error {
    Error::Internal(anyhow::Error::msg(why))
}

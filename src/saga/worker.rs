//! The saga worker: it claims the sagas that are due, many at a time, and runs each in its own task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::Sagas;
use super::definition::Definition;
use super::handler::SagaHandler;
use super::sql::{self, ClaimedRow};
use super::transitions::SagaState;
use crate::error::Result;
use crate::ledger::tail::Tail;
use crate::tasks::Tasks;
use crate::telemetry::{TraceContext, gauge_value, in_trace_if_sampled};

/// Maximum number of sagas that a process runs at once. The number can be high, because sagas mostly wait for external
/// systems and for commits.
const CONCURRENCY: usize = 256;

/// Longest pause between two searches for due sagas. No event announces a saga whose worker has died, so only a search
/// finds it.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// Pause after a claim, so that the next claim takes many sagas at once.
const CLAIM_PAUSE: Duration = Duration::from_millis(5);

/// Pause after a search that found no due saga. Most events that wake the worker are not about sagas, so the pause
/// saves queries.
const EMPTY_PAUSE: Duration = Duration::from_millis(50);

/// Pause after a failed attempt to claim due sagas, or to find out when the next saga is due.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Interval at which the open sagas are counted for the metrics.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// Starts the task that claims and runs sagas, and the task that counts open sagas; both end when the process stops.
pub fn start<H: SagaHandler>(sagas: &Sagas<H>, tail: &Tail, tasks: &Tasks) {
    let (worker, group) = (sagas.clone(), tasks.clone());
    let changes = tail.event_notifications();
    tasks.spawn("sagas", async move {
        worker.work(changes, &group).await;
        Ok(())
    });
    let (sampler, stopping) = (sagas.clone(), tasks.stopping().clone());
    tasks.spawn("sagas-sample", async move {
        sampler.sample(stopping).await;
        Ok(())
    });
}

impl<H: SagaHandler> Sagas<H> {
    async fn work(&self, mut changes: watch::Receiver<()>, tasks: &Tasks) {
        let (slots, stopping) = (Arc::new(Semaphore::new(CONCURRENCY)), tasks.stopping());
        while !stopping.is_cancelled() {
            changes.mark_unchanged();
            let Some(Ok(first)) =
                stopping.run_until_cancelled(Arc::clone(&slots).acquire_owned()).await
            else {
                break;
            };
            drop(first);
            let free = slots.available_permits();
            let claimed = match self.claim(free).await {
                Ok(claimed) => claimed,
                Err(error) => {
                    tracing::warn!(
                        event = "saga.claim_failed",
                        error.message = format!("{:#}", error.into_cause()),
                        "claiming due sagas failed; retrying in {FAILURE_PAUSE:?}"
                    );
                    let pause = tokio::time::sleep(FAILURE_PAUSE);
                    let _stopped = stopping.run_until_cancelled(pause).await;
                    continue;
                }
            };
            let count = claimed.len();
            for row in claimed {
                let slot = Arc::clone(&slots).try_acquire_owned();
                let (sagas, span) = (self.clone(), claim_span(&row));
                tasks.spawn_short_lived(async move {
                    sagas.run_claim(row).instrument(span).await;
                    drop(slot);
                });
            }
            if count < free {
                let pause = if count == 0 { EMPTY_PAUSE } else { CLAIM_PAUSE };
                let _stopped = stopping.run_until_cancelled(self.pause(pause, &mut changes)).await;
            }
        }
        // Before it ends, the worker waits for the sagas that it has claimed. Their calls end within their timeouts.
        let all = u32::try_from(CONCURRENCY).unwrap_or(u32::MAX);
        let _drained = slots.acquire_many(all).await;
    }

    /// Sleeps for `pause`, and then until an event arrives, a saga is due, or an attempt has been rescheduled.
    async fn pause(&self, pause: Duration, changes: &mut watch::Receiver<()>) {
        tokio::time::sleep(pause).await;
        if changes.has_changed().unwrap_or(false) {
            return;
        }
        let due_in = self.due_in().await.unwrap_or(FAILURE_PAUSE).min(POLL_INTERVAL);
        tokio::select! {
            _ = changes.changed() => {}
            () = self.put_off.notified() => {}
            () = tokio::time::sleep(due_in) => {}
        }
    }

    /// Returns the time until the next saga is due.
    async fn due_in(&self) -> Result<Duration> {
        let mut db = self.db.acquire("saga.due").await?;
        let seconds = sql::seconds_until_due(&mut db).await?;
        Ok(seconds.map_or(POLL_INTERVAL, |seconds| Duration::from_secs_f64(seconds.max(0.0))))
    }

    async fn claim(&self, free: usize) -> Result<Vec<ClaimedRow>> {
        let mut db = self.db.acquire("saga.claim").await?;
        let limit = i32::try_from(free).unwrap_or(i32::MAX);
        sql::claim(&mut db, limit, self.settings.lease.as_secs_f64()).await
    }

    async fn sample(&self, stopping: CancellationToken) {
        loop {
            if let Err(error) = self.sample_once(H::definitions()).await {
                tracing::debug!(
                    error.message = %error,
                    "could not count the open sagas for the metrics; the next round will count them"
                );
            }
            if stopping.run_until_cancelled(tokio::time::sleep(SAMPLE_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    async fn sample_once(&self, definitions: &[Definition]) -> Result<()> {
        let mut db = self.db.acquire("saga.sample").await?;
        let open = sql::open(&mut db).await?;
        drop(db);
        let mut counts: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        let mut oldest: BTreeMap<&str, f64> = BTreeMap::new();
        for definition in definitions {
            oldest.insert(definition.kind, 0.0);
            for state in SagaState::ALL.into_iter().filter(|state| !state.is_over()) {
                counts.insert((definition.kind, state.name()), 0);
            }
        }
        for row in &open {
            counts.insert((&row.kind, &row.state), row.count);
            let age = oldest.entry(&row.kind).or_default();
            *age = age.max(row.oldest);
        }
        for ((kind, state), count) in counts {
            self.metrics.wallet_saga_in_flight.with([kind, state]).set(gauge_value(count));
        }
        for (kind, age) in oldest {
            self.metrics.wallet_saga_oldest_seconds.with([kind]).set(age);
        }
        Ok(())
    }
}

/// Creates the span of a claimed saga, in the trace of the request that began the saga.
fn claim_span(row: &ClaimedRow) -> tracing::Span {
    let trace = row.trace.map_or_else(TraceContext::new_root, TraceContext::caused_by);
    in_trace_if_sampled(&trace, || {
        tracing::info_span!(
            parent: None,
            "saga",
            trace_id = %trace.trace_id_hex(),
            saga = row.saga.0,
            saga.kind = row.kind,
            saga.fence = row.fence,
        )
    })
}

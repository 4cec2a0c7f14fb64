//! Receives the notifications of Alertmanager, logs each alert, and counts the alerts.
//!
//! The watchdog is an alert that always fires. If its notifications stop, the alert pipeline is broken, and
//! notifications of other alerts would not arrive either. The program then logs an error, on which an alert rule of
//! Loki fires.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::Ops;
use crate::error::{Error, Result};
use crate::http::body::JsonBody;
use crate::http::extract::Path;
use crate::telemetry::{Metrics, gauge_value};

/// Names of the receivers that `alertmanager/alertmanager.yml` configures.
const RECEIVERS: [&str; 3] = ["pager", "tickets", "watchdog"];

/// Time without a watchdog notification after which the alert pipeline counts as broken. Normally, a notification
/// arrives each minute.
const SILENCE_MAX: Duration = Duration::from_mins(10);

/// Interval at which the program checks whether the watchdog notifications have stopped.
const CHECK_INTERVAL: Duration = Duration::from_mins(1);

/// Time of the last watchdog notification, in seconds of Unix time; 0 if none has arrived yet.
#[derive(Debug, Default)]
pub struct Watchdog(AtomicI64);

impl Watchdog {
    fn received(&self, metrics: &Metrics) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        self.0.store(now, Ordering::Relaxed);
        metrics.wallet_watchdog_last_timestamp_seconds.set(gauge_value(now));
    }

    /// Returns whether a watchdog notification has arrived before, but none within the last `limit`.
    fn is_silent(&self, limit: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let since = OffsetDateTime::now_utc().unix_timestamp() - last;
        last > 0 && u64::try_from(since).unwrap_or_default() > limit.as_secs()
    }

    /// Checks regularly whether the watchdog notifications have stopped, and logs one error each time they stop.
    pub async fn watch(self: Arc<Self>, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut is_logged = false;
        while stopping.run_until_cancelled(tokio::time::sleep(CHECK_INTERVAL)).await.is_some() {
            let is_silent = self.is_silent(SILENCE_MAX);
            if is_silent && !is_logged {
                tracing::error!(
                    event = "watchdog.silent",
                    "no watchdog notification for {} minutes: alerts may not be delivered; check Prometheus and Alertmanager",
                    SILENCE_MAX.as_secs() / 60
                );
            }
            is_logged = is_silent;
        }
        Ok(())
    }
}

pub fn routes<S>() -> Router<S>
where
    Ops: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    Router::new().route("/internal/alerts/{receiver}", post(receive_alerts))
}

/// A notification from Alertmanager. Members of its JSON document that are not declared here are ignored.
#[derive(Deserialize)]
struct Notification {
    alerts: Vec<FiredAlert>,
}

#[derive(Deserialize)]
struct FiredAlert {
    status: String,
    labels: Labels,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Labels {
    alertname: String,
}

#[derive(Deserialize, Default)]
struct Annotations {
    #[serde(default)]
    summary: String,
}

async fn receive_alerts(
    State(ops): State<Ops>,
    Path(receiver): Path<String>,
    body: JsonBody,
) -> Result<StatusCode> {
    let receiver = RECEIVERS.into_iter().find(|known| *known == receiver);
    let receiver = receiver.ok_or(Error::NotFound("receiver"))?;
    for FiredAlert { status, labels, annotations } in body.read_foreign::<Notification>()?.alerts {
        let status = if status == "resolved" { "resolved" } else { "firing" };
        ops.0.metrics.wallet_alerts_heard_total.with([receiver, status]).increment(1);
        if receiver == "watchdog" {
            ops.0.watchdog.received(&ops.0.metrics);
            continue;
        }
        tracing::warn!(
            event = "alert.heard",
            alert = labels.alertname,
            receiver,
            status,
            "alert {} is {status}: {}",
            labels.alertname,
            annotations.summary
        );
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Registers the counters of all receivers, so that Prometheus sees the first alert as an increase from zero.
pub fn preregister(metrics: &Metrics) {
    for receiver in RECEIVERS {
        for status in ["firing", "resolved"] {
            metrics.wallet_alerts_heard_total.preregister([receiver, status]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_silent_only_after_a_first_notification() {
        let watchdog = Watchdog::default();
        assert!(!watchdog.is_silent(Duration::ZERO), "not set up");

        watchdog.received(&Metrics::new());
        assert!(!watchdog.is_silent(Duration::from_mins(1)));
        watchdog.0.fetch_sub(120, Ordering::Relaxed);
        assert!(watchdog.is_silent(Duration::from_mins(1)));
    }
}

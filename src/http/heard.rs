//! What Alertmanager tells: each alert is a line in the log and a count, and the watchdog must go on barking.
//!
//! The watchdog is an alert that always fires. When it was heard once and then stays away, the way of alerts is broken
//! and nobody would be told of anything: that is an error in the log, which Loki's own rules see.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use serde::Deserialize;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use super::extract::{JsonBody, Path};
use crate::app::App;
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// Whom Alertmanager tells, in `alertmanager/alertmanager.yml`.
const RECEIVERS: [&str; 3] = ["pager", "tickets", "watchdog"];

/// It barks each minute; after this long without it something is wrong.
const SILENCE_MAX: Duration = Duration::from_mins(10);

const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// When the watchdog was heard last, in seconds since 1970; 0 when never.
#[derive(Debug, Default)]
pub struct Watchdog(AtomicI64);

impl Watchdog {
    fn heard(&self, metrics: &Metrics) {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        self.0.store(now, Ordering::Relaxed);
        metrics.wallet_watchdog_last_timestamp_seconds.set(crate::ledger::to_metric(now));
    }

    /// Whether it has stopped barking.
    fn is_silent(&self, limit: Duration) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        let since = OffsetDateTime::now_utc().unix_timestamp() - last;
        last > 0 && u64::try_from(since).unwrap_or_default() > limit.as_secs()
    }

    /// Says so when it falls silent, once for each silence.
    pub async fn mind(self: Arc<Self>, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut told = false;
        while stopping.run_until_cancelled(tokio::time::sleep(LOOK_INTERVAL)).await.is_some() {
            let silent = self.is_silent(SILENCE_MAX);
            if silent && !told {
                tracing::error!(
                    event = "watchdog.silent",
                    "Alertmanager's watchdog has not been heard for {} minutes: alerts may reach nobody; look at Prometheus and Alertmanager",
                    SILENCE_MAX.as_secs() / 60
                );
            }
            told = silent;
        }
        Ok(())
    }
}

pub fn routes() -> Router<App> {
    Router::new().route("/internal/alerts/{receiver}", post(hear))
}

/// As Alertmanager sends it; the rest of it is not needed.
#[derive(Deserialize)]
struct Told {
    alerts: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
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

async fn hear(
    State(app): State<App>,
    Path(receiver): Path<String>,
    body: JsonBody,
) -> Result<StatusCode> {
    let receiver = RECEIVERS.into_iter().find(|known| *known == receiver);
    let receiver = receiver.ok_or(Error::NotFound("receiver"))?;
    for Alert { status, labels, annotations } in body.read::<Told>()?.alerts {
        let status = if status == "resolved" { "resolved" } else { "firing" };
        app.metrics.wallet_alerts_heard_total.with([receiver, status]).increment(1);
        if receiver == "watchdog" {
            app.watchdog.heard(&app.metrics);
            continue;
        }
        tracing::warn!(
            event = "alert.heard",
            alert = labels.alertname,
            receiver,
            status,
            "{} is {status}: {}",
            labels.alertname,
            annotations.summary
        );
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Every count is there from the start.
pub fn announce(metrics: &Metrics) {
    for receiver in RECEIVERS {
        for status in ["firing", "resolved"] {
            metrics.wallet_alerts_heard_total.announce([receiver, status]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_silent_only_after_it_has_barked() {
        let watchdog = Watchdog::default();
        assert!(!watchdog.is_silent(Duration::ZERO), "nobody has set it up");

        watchdog.heard(&Metrics::new());
        assert!(!watchdog.is_silent(Duration::from_mins(1)));
        watchdog.0.fetch_sub(120, Ordering::Relaxed);
        assert!(watchdog.is_silent(Duration::from_mins(1)));
    }
}

//! Internal routes for orchestrators and Prometheus: liveness, readiness and metrics.

use std::time::Duration;

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::Ops;
use crate::error::Error;
use crate::telemetry::ExpositionFormat;

/// Longest time that a check may take. A check that takes longer fails, so that the readiness probe does not hang.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

pub fn routes<S>() -> Router<S>
where
    Ops: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// Responds with 200 as long as the process can run its tasks.
async fn livez() -> &'static str {
    "alive\n"
}

/// Responds with 200 if the process can serve requests. Otherwise, responds with 503 and the reason for each failed
/// check.
async fn readyz(State(ops): State<Ops>) -> Response {
    let failed = ops.failed_checks().await;
    if failed.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    let reasons: Map<_, _> = failed
        .into_iter()
        .map(|(check, reason)| (check.to_owned(), Value::String(reason)))
        .collect();
    let body = Json(json!({ "status": "not ready", "checks": reasons }));
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")], body).into_response()
}

impl Ops {
    /// Returns whether the process can serve requests.
    pub async fn is_ready(&self) -> bool {
        self.failed_checks().await.is_empty()
    }

    /// Returns whether the database responds within a second.
    pub(super) async fn is_database_up(&self) -> bool {
        matches!(tokio::time::timeout(CHECK_TIMEOUT, self.0.db.ping()).await, Ok(Ok(())))
    }

    /// Runs every readiness check and updates the gauge of each check. Returns the failed checks, each with the reason.
    pub(super) async fn failed_checks(&self) -> Vec<(&'static str, String)> {
        let database = tokio::time::timeout(CHECK_TIMEOUT, self.0.db.ping()).await;
        let database = database.map_err(|_| "no response within a second".to_owned()).flatten();
        let stopping = self.0.stopping.is_cancelled();
        let serving = if stopping { Err("shutting down".to_owned()) } else { Ok(()) };
        let mut failed = Vec::new();
        for (check, outcome) in [("database", database), ("serving", serving)] {
            self.0.metrics.wallet_ready.with([check]).set(if outcome.is_ok() { 1.0 } else { 0.0 });
            if let Err(reason) = outcome {
                failed.push((check, reason));
            }
        }
        failed
    }
}

async fn metrics(State(ops): State<Ops>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = ExpositionFormat::from_accept(accept.unwrap_or_default());
    ops.0.db.sample();
    ops.0.ledger.sample();
    let rendered = tokio::task::spawn_blocking(move || ops.0.exposition.render(format)).await;
    match rendered {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(cause) => Error::Internal(cause.into()).into_response(),
    }
}

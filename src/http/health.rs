//! The internal listener: is the process alive, should it get requests, how is it doing.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::telemetry::Format;

/// Longest that one check may take: a probe that hangs says less than one that fails.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

pub fn routes() -> Router<App> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// The process runs its tasks.
async fn livez() -> &'static str {
    "alive\n"
}

/// The process can serve: 503 with the reason of each check that fails.
async fn readyz(State(app): State<App>) -> Response {
    let failed = failures(&app).await;
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

/// Runs every check and notes its outcome in the metrics; returns those that failed, and why.
pub async fn failures(app: &App) -> Vec<(&'static str, String)> {
    let database = tokio::time::timeout(CHECK_TIMEOUT, app.db.ping()).await;
    let database = database.map_err(|_| "no answer within a second".to_owned()).flatten();
    let serving =
        if app.stopping.is_cancelled() { Err("shutting down".to_owned()) } else { Ok(()) };
    let mut failed = Vec::new();
    for (check, outcome) in [("database", database), ("serving", serving)] {
        app.metrics.wallet_ready.with([check]).set(if outcome.is_ok() { 1.0 } else { 0.0 });
        if let Err(reason) = outcome {
            failed.push((check, reason));
        }
    }
    failed
}

async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::accepted(accept.unwrap_or_default());
    app.db.sample();
    app.wallets.ledger().sample();
    let runtime = tokio::runtime::Handle::current();
    let rendered =
        tokio::task::spawn_blocking(move || app.exposition.render(&runtime, format)).await;
    match rendered {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(cause) => crate::error::Error::Internal(cause.into()).into_response(),
    }
}

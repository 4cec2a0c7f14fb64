//! The route `/api/status`, which reports whether the service and its database work, in the format that clients of the
//! games store expect.

use axum::Json;
use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Ops;
use crate::error::Result;
use crate::http::fields::moment;

pub fn routes<S>() -> OpenApiRouter<S>
where
    Ops: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(get_status))
}

/// Condition of the service.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ServiceCondition)]
#[serde(rename_all = "UPPERCASE")]
enum Condition {
    Ok,
    /// The database does not respond.
    Error,
}

/// Status of the service.
#[derive(Serialize, ToSchema)]
#[schema(as = ServiceStatus)]
struct StatusBody {
    #[schema(example = "revwallet")]
    service: &'static str,
    status: Condition,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    timestamp: String,
    /// Reason why the status is `ERROR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "the database does not respond")]
    details: Option<&'static str>,
}

/// Get the status of the service
#[utoipa::path(
    get, path = "/api/status", tag = "about",
    responses(
        (status = 200, description = "The service works", body = StatusBody),
        (status = 500, description = "The database does not respond", body = StatusBody),
    ),
)]
async fn get_status(State(ops): State<Ops>) -> Result<Response> {
    let works = ops.is_database_up().await;
    let (code, status) = if works {
        (StatusCode::OK, Condition::Ok)
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, Condition::Error)
    };
    let body = StatusBody {
        service: "revwallet",
        status,
        timestamp: moment(OffsetDateTime::now_utc())?,
        details: (!works).then_some("the database does not respond"),
    };
    Ok((code, Json(body)).into_response())
}

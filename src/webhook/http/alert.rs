//! `/wallet/{id}/alert`: a line at a wallet.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::extract::{Check, JsonBody, Member, Path};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::ledger::money::Minor;
use crate::wallet::WalletId;
use crate::wallet::http::body::{decimal, moment, number, replayable};
use crate::webhook::alert::Alert;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create_alert, list_alerts)).routes(routes!(delete_alert))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Alert)]
struct AlertBody {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "1")]
    wallet: String,
    /// `below` or `above`.
    #[schema(example = "below")]
    direction: String,
    #[schema(value_type = f64, example = 10.00)]
    line: Box<RawValue>,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    created_at: String,
}

impl AlertBody {
    fn of(alert: &Alert) -> Result<Self> {
        let Alert { row, currency, .. } = alert;
        Ok(Self {
            id: row.id.to_string(),
            wallet: row.wallet.to_string(),
            direction: row.direction.clone(),
            line: number(Minor(row.line), *currency)?,
            created_at: moment(row.created_at)?,
        })
    }
}

/// One of the two.
#[derive(Deserialize, ToSchema)]
struct CreateAlert<'a> {
    /// Tell when less than this can be spent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "10.00")]
    below: Member<'a>,
    /// Tell when more than this can be spent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    above: Member<'a>,
}

/// Have it told when what can be spent crosses a line
///
/// Each crossing is one event, `alert.crossed`; being beyond the line is none.
#[utoipa::path(
    post, path = "/wallet/{id}/alert", tag = "webhook",
    params(
        ("id" = String, Path, description = "The wallet", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body"),
    ),
    request_body = CreateAlert<'static>,
    responses(
        (status = 201, description = "Made", body = AlertBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_alert(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Path(id): Path<WalletId>,
    body: JsonBody,
) -> Result<Response> {
    let CreateAlert { below, above } = body.read()?;
    let mut check = Check::default();
    let below = decimal(&mut check, "/below", &below, false);
    let above = decimal(&mut check, "/above", &above, false);
    check.finish(Some(()))?;
    let (direction, line) = match (below, above) {
        (Some(line), None) => ("below", line),
        (None, Some(line)) => ("above", line),
        _ => return Err(Error::field("/below", "is required, or /above, but not both")),
    };
    let alert = app.webhooks.create_alert(id, direction, line, &caller, &key).await?;
    Ok(replayable(StatusCode::CREATED, &AlertBody::of(&alert)?, alert.replayed))
}

/// The alerts of a wallet
#[utoipa::path(
    get, path = "/wallet/{id}/alert", tag = "webhook",
    params(("id" = String, Path, description = "The wallet", example = "1")),
    responses(
        (status = 200, description = "At most 20", body = [AlertBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_alerts(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<WalletId>,
) -> Result<Response> {
    let alerts = app.webhooks.list_alerts(id, &caller).await?;
    let bodies = alerts.iter().map(AlertBody::of).collect::<Result<Vec<_>>>()?;
    Ok(axum::Json(bodies).into_response())
}

/// Take an alert away
#[utoipa::path(
    delete, path = "/wallet/{id}/alert/{alert}", tag = "webhook",
    params(
        ("id" = String, Path, description = "The wallet", example = "1"),
        ("alert" = String, Path, description = "The alert", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: it is gone once"),
    ),
    responses(
        (status = 204, description = "Gone"),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn delete_alert(
    State(app): State<App>,
    caller: Caller,
    Path((id, alert)): Path<(WalletId, i64)>,
) -> Result<StatusCode> {
    app.webhooks.delete_alert(id, alert, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

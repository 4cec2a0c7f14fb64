//! The routes `/wallet/{id}/alert` for balance alerts.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::JsonBody;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::moment;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{AlertId, WalletId};
use crate::wallet::http::body::{number, optional_decimal};
use crate::webhook::{AlertDirection, BalanceAlert, Webhooks};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Webhooks: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(create_alert, list_alerts)).routes(routes!(delete_alert))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Alert)]
struct AlertBody {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "1")]
    wallet: String,
    #[schema(value_type = AlertDirection)]
    direction: &'static str,
    /// The threshold of the alert.
    #[schema(value_type = f64, example = 10.00)]
    line: JsonDecimal,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
}

impl TryFrom<&BalanceAlert> for AlertBody {
    type Error = Error;

    fn try_from(alert: &BalanceAlert) -> Result<Self> {
        let BalanceAlert { alert, currency, .. } = alert;
        Ok(Self {
            id: alert.id.to_string(),
            wallet: alert.wallet.to_string(),
            direction: alert.direction.name(),
            line: number(alert.threshold, *currency)?,
            created_at: moment(alert.created_at)?,
        })
    }
}

/// Threshold of a new alert. Exactly one of the members `below` and `above` is required.
#[derive(Deserialize, ToSchema)]
struct CreateAlert<'a> {
    /// Send an event each time that the available balance falls below this amount.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "10.00")]
    below: RawField<'a>,
    /// Send an event each time that the available balance rises above this amount.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>)]
    above: RawField<'a>,
}

/// Create an alert
///
/// Sends one `alert.crossed` event each time the available balance crosses the threshold in the chosen direction.
#[utoipa::path(
    post, path = "/wallet/{id}/alert", tag = "webhook",
    params(
        ("id" = String, Path, description = "Id of the wallet", example = "1"),
        IdempotencyKey,
    ),
    request_body = CreateAlert<'static>,
    responses(
        (status = 201, description = "The alert", body = AlertBody),
        Problems,
    ),
)]
async fn create_alert(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    key: IdempotencyKey,
    Path(id): Path<WalletId>,
    body: JsonBody,
) -> Result<Response> {
    let CreateAlert { below, above } = body.read()?;
    let mut validator = Validator::default();
    let below = optional_decimal(&mut validator, "/below", &below);
    let above = optional_decimal(&mut validator, "/above", &above);
    validator.finish(Some(()))?;
    let (direction, threshold) = match (below, above) {
        (Some(threshold), None) => (AlertDirection::Below, threshold),
        (None, Some(threshold)) => (AlertDirection::Above, threshold),
        _ => return Err(Error::field("/below", "exactly one of /below and /above is required")),
    };
    let alert = webhooks.create_alert(id, direction, threshold, &caller, &key).await?;
    Ok(Replayable::created(AlertBody::try_from(&alert)?, None, alert.replayed).into_response())
}

/// List the alerts of a wallet
#[utoipa::path(
    get, path = "/wallet/{id}/alert", tag = "webhook",
    params(("id" = String, Path, description = "Id of the wallet", example = "1")),
    responses(
        (status = 200, description = "The alerts of the wallet, at most 20", body = [AlertBody]),
        Problems,
    ),
)]
async fn list_alerts(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path(id): Path<WalletId>,
) -> Result<Response> {
    let alerts = webhooks.list_alerts(id, &caller).await?;
    let bodies = alerts.iter().map(AlertBody::try_from).collect::<Result<Vec<_>>>()?;
    Ok(axum::Json(bodies).into_response())
}

/// Delete an alert
#[utoipa::path(
    delete, path = "/wallet/{id}/alert/{alert}", tag = "webhook",
    params(
        ("id" = String, Path, description = "Id of the wallet", example = "1"),
        ("alert" = String, Path, description = "Id of the alert", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: deletion is idempotent"),
    ),
    responses(
        (status = 204, description = "Deleted"),
        Problems,
    ),
)]
async fn delete_alert(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path((id, alert)): Path<(WalletId, AlertId)>,
) -> Result<StatusCode> {
    webhooks.delete_alert(id, alert, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

//! The routes for the delivery log of a webhook and for replays.

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::JsonBody;
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::{id, moment, parse_moment, string};
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::Problems;
use crate::ids::{DeliveryId, WebhookId};
use crate::webhook::delivery::DeliveryState;
use crate::webhook::{WebhookDelivery, Webhooks};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Webhooks: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(list_deliveries)).routes(routes!(replay_deliveries))
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
struct DeliveryBody {
    /// Id of the delivery. In every attempt, the `webhook-id` header is `msg_` followed by this id.
    #[schema(example = "31")]
    id: String,
    /// Wallet that the event is about; null if it is not about a wallet.
    #[schema(required, example = "1")]
    wallet: Option<String>,
    /// Transfer that caused the event; null if no transfer caused it.
    #[schema(required, example = "17")]
    transfer: Option<String>,
    #[schema(example = "transfer.deposit")]
    event: String,
    /// State of the delivery. A dead delivery was given up after a day of attempts.
    #[schema(value_type = DeliveryState)]
    state: &'static str,
    #[schema(example = 1)]
    attempts: i32,
    /// HTTP status of the receiver's last response.
    #[schema(required, example = 200)]
    status: Option<i16>,
    /// Reason why the last attempt failed.
    #[schema(required)]
    error: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
    #[schema(required, format = DateTime)]
    attempted_at: Option<String>,
}

impl TryFrom<WebhookDelivery> for DeliveryBody {
    type Error = Error;

    fn try_from(delivery: WebhookDelivery) -> Result<Self> {
        Ok(Self {
            id: delivery.id.to_string(),
            wallet: delivery.wallet.map(|id| id.to_string()),
            transfer: delivery.transfer.map(|id| id.to_string()),
            event: delivery.event,
            state: delivery.state.name(),
            attempts: delivery.attempts,
            status: delivery.status,
            error: delivery.error,
            created_at: moment(delivery.created_at)?,
            attempted_at: delivery.attempted_at.map(moment).transpose()?,
        })
    }
}

#[derive(Deserialize, IntoParams)]
struct ListDeliveriesQuery {
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the `Link` header of the previous page.
    after: Option<i64>,
}

/// List the deliveries of a webhook
///
/// The newest delivery comes first.
#[utoipa::path(
    get, path = "/wallet/webhook/{webhook}/deliveries", tag = "webhook",
    params(("webhook" = String, Path, description = "Id of the webhook", example = "1"), ListDeliveriesQuery),
    responses(
        (status = 200, description = "A page of deliveries; the `Link` header has the URL of the next page", body = [DeliveryBody]),
        Problems,
    ),
)]
async fn list_deliveries(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path(webhook): Path<WebhookId>,
    Query(query): Query<ListDeliveriesQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit)?;
    let before = query.after.unwrap_or(i64::MAX);
    let found = webhooks.deliveries(webhook, before, limit, &caller).await?;
    let next = last_of_full_page(&found, limit).map(|last| {
        format!("/wallet/webhook/{webhook}/deliveries?limit={limit}&after={}", last.id)
    });
    let bodies = found.into_iter().map(DeliveryBody::try_from).collect::<Result<Vec<_>>>()?;
    Ok(Page::new(bodies, next).into_response())
}

/// Deliveries to send again: the delivery with the id `delivery`, or the deliveries since the time `since`. With both
/// members, the delivery is sent only if it is not older than `since`.
#[derive(Deserialize, ToSchema)]
struct ReplayDeliveries<'a> {
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "31")]
    delivery: RawField<'a>,
    /// Time as RFC 3339. At most 10,000 deliveries since this time are sent again, oldest first.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00Z", format = DateTime)]
    since: RawField<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Replayed)]
struct ReplayedBody {
    /// Number of deliveries that are sent again.
    #[schema(example = 3)]
    deliveries: usize,
}

/// Replay deliveries of a webhook
#[utoipa::path(
    post, path = "/wallet/webhook/{webhook}/replay", tag = "webhook",
    params(
        ("webhook" = String, Path, description = "Id of the webhook", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not used: a repeated request sends the deliveries again"),
    ),
    request_body = ReplayDeliveries<'static>,
    responses(
        (status = 200, description = "The deliveries are enqueued", body = ReplayedBody),
        Problems,
    ),
)]
async fn replay_deliveries(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path(webhook): Path<WebhookId>,
    body: JsonBody,
) -> Result<Response> {
    let ReplayDeliveries { delivery, since } = body.read()?;
    let mut validator = Validator::default();
    let delivery = validator.optional("/delivery", &delivery, |raw| {
        id(raw).map(DeliveryId).ok_or_else(|| "must be the id of a delivery".to_owned())
    });
    let since = validator.optional("/since", &since, string);
    validator.finish(Some(()))?;
    let since = parse_moment("/since", since.as_deref())?;
    if delivery.is_none() && since.is_none() {
        return Err(Error::field("/delivery", "at least one of /delivery and /since is required"));
    }
    let deliveries = webhooks.replay(webhook, delivery, since, &caller).await?;
    Ok(axum::Json(ReplayedBody { deliveries }).into_response())
}

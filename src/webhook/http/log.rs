//! The log of a webhook, and telling once more.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::string;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::extract::{Check, JsonBody, Member, Path, Query};
use crate::http::problem::ProblemBody;
use crate::ledger::read;
use crate::wallet::http::body::{id, link_next, moment, page_limit, parse_moment};
use crate::webhook::sql::Delivery;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_deliveries)).routes(routes!(replay_deliveries))
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookDelivery)]
struct DeliveryBody {
    /// `webhook-id` is `msg_` and this, in every attempt.
    #[schema(example = "31")]
    id: String,
    #[schema(example = "1")]
    wallet: String,
    #[schema(example = "17")]
    transfer: String,
    #[schema(example = "transfer.deposit")]
    event: String,
    /// `pending`, `delivered`, or `dead` when it was given up after a day.
    #[schema(example = "delivered")]
    state: String,
    #[schema(example = 1)]
    attempts: i32,
    /// What the receiver answered last.
    #[schema(example = 200)]
    status: Option<i16>,
    /// Why the last attempt failed.
    error: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    created_at: String,
    attempted_at: Option<String>,
}

impl DeliveryBody {
    fn of(delivery: Delivery) -> Result<Self> {
        Ok(Self {
            id: delivery.id.to_string(),
            wallet: delivery.wallet.to_string(),
            transfer: delivery.seq.to_string(),
            event: delivery.event,
            state: delivery.state,
            attempts: delivery.attempts,
            status: delivery.status,
            error: delivery.error,
            created_at: moment(delivery.created_at)?,
            attempted_at: delivery.attempted_at.map(moment).transpose()?,
        })
    }
}

#[derive(Deserialize, IntoParams)]
struct LogQuery {
    /// Most deliveries of the answer: 1 to 1000, by default 100.
    limit: Option<i64>,
    /// Where the last page ended; take it from the header `Link`.
    after: Option<i64>,
}

/// What a webhook was told, newest first
#[utoipa::path(
    get, path = "/wallet/webhook/{webhook}/deliveries", tag = "webhook",
    params(("webhook" = String, Path, description = "The webhook", example = "1"), LogQuery),
    responses(
        (status = 200, description = "`Link` has the next page", body = [DeliveryBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_deliveries(
    State(app): State<App>,
    caller: Caller,
    Path(webhook): Path<i64>,
    Query(query): Query<LogQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit)?;
    let before = query.after.unwrap_or(read::END);
    let found = app.webhooks.deliveries(webhook, before, limit, &caller).await?;
    let last = found.last().filter(|_| i64::try_from(found.len()) == Ok(limit)).map(|one| one.id);
    let bodies = found.into_iter().map(DeliveryBody::of).collect::<Result<Vec<_>>>()?;
    let mut response = axum::Json(bodies).into_response();
    if let Some(last) = last {
        let path = format!("/wallet/webhook/{webhook}/deliveries?limit={limit}&after={last}");
        link_next(&mut response, &path);
    }
    Ok(response)
}

/// One delivery, or all since a moment.
#[derive(Deserialize, ToSchema)]
struct ReplayDeliveries<'a> {
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "31")]
    delivery: Member<'a>,
    /// As RFC 3339; at most 10,000 deliveries are repeated.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    since: Member<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Replayed)]
struct ReplayedBody {
    /// How many deliveries will happen again.
    #[schema(example = 3)]
    deliveries: usize,
}

/// Tell a webhook once more
#[utoipa::path(
    post, path = "/wallet/webhook/{webhook}/replay", tag = "webhook",
    params(
        ("webhook" = String, Path, description = "The webhook", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not used: a repeated replay replays"),
    ),
    request_body = ReplayDeliveries<'static>,
    responses(
        (status = 200, description = "They are on their way", body = ReplayedBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn replay_deliveries(
    State(app): State<App>,
    caller: Caller,
    Path(webhook): Path<i64>,
    body: JsonBody,
) -> Result<Response> {
    let ReplayDeliveries { delivery, since } = body.read()?;
    let mut check = Check::default();
    let delivery = check.optional("/delivery", &delivery, |raw| {
        id(raw).ok_or_else(|| "must be the id of a delivery".to_owned())
    });
    let since = check.optional("/since", &since, string);
    check.finish(Some(()))?;
    let since = parse_moment("/since", since)?;
    if delivery.is_none() && since.is_none() {
        return Err(Error::field("/delivery", "is required, or /since"));
    }
    let deliveries = app.webhooks.replay(webhook, delivery, since, &caller).await?;
    Ok(axum::Json(ReplayedBody { deliveries }).into_response())
}

//! The routes `/wallet/webhook` for webhooks, their deliveries, and balance alerts.

mod alert;
mod deliveries;
mod payload;

use axum::extract::{FromRef, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{EVENTS, Webhook, Webhooks, signature, target};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::{BoundedList, EmptyBody, JsonBody};
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::{moment, string};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::WebhookId;

pub use self::payload::{Payloads, webhooks};

pub fn routes<S>() -> OpenApiRouter<S>
where
    Webhooks: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(create_webhook, list_webhooks))
        .routes(routes!(get_webhook, delete_webhook))
        .routes(routes!(rotate_webhook))
        .merge(deliveries::routes())
        .merge(alert::routes())
}

#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
struct WebhookBody {
    #[schema(example = "1")]
    id: String,
    #[schema(example = "https://example.com/hook")]
    url: String,
    #[schema(example = json!(["transfer.deposit", "alert.crossed"]))]
    events: Vec<String>,
    /// The signing secret. It is present only in the response to a request that creates or rotates it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
}

impl TryFrom<Webhook> for WebhookBody {
    type Error = Error;

    fn try_from(webhook: Webhook) -> Result<Self> {
        let Webhook { id, url, events, secret, created_at, .. } = webhook;
        Ok(Self { id: id.to_string(), url, events, secret, created_at: moment(created_at)? })
    }
}

#[derive(Deserialize, ToSchema)]
struct CreateWebhook<'a> {
    /// URL of the receiver. Its host must have a public address. The server stores the URL in canonical form, without
    /// the fragment.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "https://example.com/hook")]
    url: RawField<'a>,
    /// Names of the events to send. `*` stands for all of them.
    #[serde(borrow, default)]
    #[schema(required, value_type = Vec<String>, example = json!(["*"]))]
    events: RawField<'a>,
    /// The signing secret: `whsec_` and 24 to 64 bytes in base64. If absent, the server generates a random secret.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: RawField<'a>,
}

fn events(raw: &str) -> Result<Vec<String>, String> {
    let events: BoundedList<String, { EVENTS.len() }> =
        serde_json::from_str(raw).map_err(|_| "must be a list of names".to_owned())?;
    let events = events.within().filter(|events| !events.is_empty());
    let events = events.ok_or_else(|| format!("must be 1 to {} names", EVENTS.len()))?;
    match events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
        None => Ok(events),
        Some(_) => Err(format!("must be among: {}", EVENTS.join(", "))),
    }
}

/// Create a webhook
///
/// Each event is sent as a POST request that follows the Standard Webhooks specification, with the headers
/// `webhook-id`, `webhook-timestamp` and `webhook-signature` (HMAC-SHA256). If the receiver does not respond with 2xx,
/// the server retries the request for up to a day. Events about the same wallet or user arrive in order.
#[utoipa::path(
    post, path = "/wallet/webhook", tag = "webhook",
    params(IdempotencyKey),
    request_body = CreateWebhook<'static>,
    responses(
        (status = 201, description = "The webhook", body = WebhookBody),
        Problems,
    ),
)]
async fn create_webhook(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Response> {
    let CreateWebhook { url, events: names, secret } = body.read()?;
    let allow_private = webhooks.allow_private;
    let mut validator = Validator::default();
    let url = validator.required("/url", &url, |raw| {
        target::parse(&string(raw)?, allow_private).map(String::from)
    });
    let names = validator.required("/events", &names, events);
    let secret = validator.optional("/secret", &secret, |raw| {
        let wrong = "must be whsec_ and 24 to 64 bytes in base64";
        let text = string(raw).ok().filter(|text| signature::is_valid_secret(text));
        text.ok_or_else(|| wrong.to_owned())
    });
    let (url, names) = validator.finish(url.zip(names))?;
    let webhook = webhooks.create(&url, &names, secret.as_deref(), &caller, &key).await?;
    let (id, replayed) = (webhook.id, webhook.replayed);
    let location = format!("/wallet/webhook/{id}");
    let body = WebhookBody::try_from(webhook)?;
    Ok(Replayable::created(body, location, replayed).into_response())
}

/// List webhooks
#[utoipa::path(
    get, path = "/wallet/webhook", tag = "webhook",
    responses(
        (status = 200, description = "The webhooks of the caller, at most 100", body = [WebhookBody]),
        Problems,
    ),
)]
async fn list_webhooks(State(webhooks): State<Webhooks>, caller: Caller) -> Result<Response> {
    let found = webhooks.list(&caller).await?.into_iter().map(WebhookBody::try_from);
    Ok(axum::Json(found.collect::<Result<Vec<_>>>()?).into_response())
}

/// Get a webhook
#[utoipa::path(
    get, path = "/wallet/webhook/{webhook}", tag = "webhook",
    params(("webhook" = String, Path, description = "Id of the webhook", example = "1")),
    responses(
        (status = 200, description = "The webhook", body = WebhookBody),
        Problems,
    ),
)]
async fn get_webhook(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path(id): Path<WebhookId>,
) -> Result<Response> {
    let webhook = webhooks.get(id, &caller).await?;
    Ok(axum::Json(WebhookBody::try_from(webhook)?).into_response())
}

/// Delete a webhook
#[utoipa::path(
    delete, path = "/wallet/webhook/{webhook}", tag = "webhook",
    params(
        ("webhook" = String, Path, description = "Id of the webhook", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: deletion is idempotent"),
    ),
    responses(
        (status = 204, description = "Deleted, together with its delivery log"),
        Problems,
    ),
)]
async fn delete_webhook(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    Path(id): Path<WebhookId>,
) -> Result<StatusCode> {
    webhooks.delete(id, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Rotate the secret of a webhook
///
/// For a day, deliveries are signed with both the new and the previous secret, so that the receiver can switch without
/// failures.
#[utoipa::path(
    post, path = "/wallet/webhook/{webhook}/rotate", tag = "webhook",
    params(
        ("webhook" = String, Path, description = "Id of the webhook", example = "1"),
        IdempotencyKey,
    ),
    responses(
        (status = 200, description = "The webhook with its new secret", body = WebhookBody),
        Problems,
    ),
)]
async fn rotate_webhook(
    State(webhooks): State<Webhooks>,
    caller: Caller,
    key: IdempotencyKey,
    Path(id): Path<WebhookId>,
    EmptyBody: EmptyBody,
) -> Result<Response> {
    let webhook = webhooks.rotate(id, &caller, &key).await?;
    let replayed = webhook.replayed;
    Ok(Replayable::ok(WebhookBody::try_from(webhook)?, replayed).into_response())
}

//! `/wallet/webhook`: who is told, and what they were told.

mod alert;
mod log;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{EVENTS, Webhook, sign, target};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::extract::{Check, JsonBody, Member, Path};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::wallet::http::body::{moment, replayable};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_webhook, list_webhooks))
        .routes(routes!(get_webhook, delete_webhook))
        .routes(routes!(rotate_webhook))
        .merge(log::routes())
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
    /// What signs it. Shown when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: Option<String>,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    created_at: String,
}

impl WebhookBody {
    fn of(webhook: Webhook) -> Result<Self> {
        let Webhook { id, url, events, secret, created_at, .. } = webhook;
        Ok(Self { id: id.to_string(), url, events, secret, created_at: moment(created_at)? })
    }
}

#[derive(Deserialize, ToSchema)]
struct CreateWebhook<'a> {
    /// Where it goes: a place that everybody can reach.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "https://example.com/hook")]
    url: Member<'a>,
    /// What it wants to hear; `*` is everything.
    #[serde(borrow, default)]
    #[schema(value_type = Vec<String>, example = json!(["*"]))]
    events: Member<'a>,
    /// `whsec_` and 24 to 64 bytes in base64; made when absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: Member<'a>,
}

fn string(raw: &str) -> Result<String, String> {
    serde_json::from_str::<String>(raw).map_err(|_| "must be a string".to_owned())
}

fn events(raw: &str) -> Result<Vec<String>, String> {
    let events: Vec<String> =
        serde_json::from_str(raw).map_err(|_| "must be a list of names".to_owned())?;
    if events.is_empty() || events.len() > EVENTS.len() {
        return Err(format!("must be 1 to {} names", EVENTS.len()));
    }
    match events.iter().find(|event| !EVENTS.contains(&event.as_str())) {
        None => Ok(events),
        Some(_) => Err(format!("must be of: {}", EVENTS.join(", "))),
    }
}

/// Have a server told what happens to wallets
///
/// Each event is a POST in the form of Standard Webhooks: `webhook-id`, `webhook-timestamp` and `webhook-signature`
/// (HMAC-SHA256). It is repeated for a day until it is answered 2xx; of one wallet in order.
#[utoipa::path(
    post, path = "/wallet/webhook", tag = "webhook",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = CreateWebhook<'static>,
    responses(
        (status = 201, description = "Made", body = WebhookBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_webhook(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    body: JsonBody,
) -> Result<Response> {
    let CreateWebhook { url, events: names, secret } = body.read()?;
    let allow_private = app.webhooks.allow_private;
    let mut check = Check::default();
    let url = check.required("/url", &url, |raw| {
        let text = string(raw)?;
        target::parse(&text, allow_private).map(|_| text)
    });
    let names = check.required("/events", &names, events);
    let secret = check.optional("/secret", &secret, |raw| {
        let wrong = "must be whsec_ and 24 to 64 bytes in base64";
        string(raw).ok().filter(|text| sign::is_secret(text)).ok_or_else(|| wrong.to_owned())
    });
    let (url, names) = check.finish(url.zip(names))?;
    let webhook = app.webhooks.create(&url, &names, secret.as_deref(), &caller, &key).await?;
    let (id, replayed) = (webhook.id, webhook.replayed);
    let mut response = replayable(StatusCode::CREATED, &WebhookBody::of(webhook)?, replayed);
    let location = HeaderValue::from_str(&format!("/wallet/webhook/{id}"));
    response
        .headers_mut()
        .insert(header::LOCATION, location.expect("digits are visible characters"));
    Ok(response)
}

/// List webhooks
#[utoipa::path(
    get, path = "/wallet/webhook", tag = "webhook",
    responses(
        (status = 200, description = "At most 100", body = [WebhookBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_webhooks(State(app): State<App>, caller: Caller) -> Result<Response> {
    let webhooks = app.webhooks.list(&caller).await?.into_iter().map(WebhookBody::of);
    Ok(axum::Json(webhooks.collect::<Result<Vec<_>>>()?).into_response())
}

/// Look at a webhook
#[utoipa::path(
    get, path = "/wallet/webhook/{webhook}", tag = "webhook",
    params(("webhook" = String, Path, description = "The webhook", example = "1")),
    responses(
        (status = 200, description = "The webhook", body = WebhookBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<Response> {
    let webhook = app.webhooks.get(id, &caller).await?;
    Ok(axum::Json(WebhookBody::of(webhook)?).into_response())
}

/// Tell a server nothing any more
#[utoipa::path(
    delete, path = "/wallet/webhook/{webhook}", tag = "webhook",
    params(
        ("webhook" = String, Path, description = "The webhook", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: it is gone once"),
    ),
    responses(
        (status = 204, description = "Gone, with its log"),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn delete_webhook(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<i64>,
) -> Result<StatusCode> {
    app.webhooks.delete(id, &caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a webhook another secret
///
/// Both sign for a day: a receiver that knows either of them believes.
#[utoipa::path(
    post, path = "/wallet/webhook/{webhook}/rotate", tag = "webhook",
    params(
        ("webhook" = String, Path, description = "The webhook", example = "1"),
        ("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key"),
    ),
    responses(
        (status = 200, description = "The webhook with its new secret", body = WebhookBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn rotate_webhook(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Path(id): Path<i64>,
) -> Result<Response> {
    let webhook = app.webhooks.rotate(id, &caller, &key).await?;
    let replayed = webhook.replayed;
    Ok(replayable(StatusCode::OK, &WebhookBody::of(webhook)?, replayed))
}

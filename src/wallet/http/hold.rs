//! `/wallet/hold`: set money aside, then capture or void it.

use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{asked, decimal, link_next, moment, number, page_limit, replayable, wallet_id};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::{Check, JsonBody, Member, Path, Query};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::ledger::read;
use crate::wallet::hold::{Change, Hold, LASTS_DEFAULT, LASTS_MAX};
use crate::wallet::{WalletId, amount_of};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_hold))
        .routes(routes!(get_hold))
        .routes(routes!(capture_hold))
        .routes(routes!(void_hold))
        .routes(routes!(list_holds))
}

/// Money that is set aside.
#[derive(Serialize, ToSchema)]
#[schema(as = Hold)]
struct HoldBody {
    #[schema(example = "21")]
    id: String,
    #[schema(example = "1")]
    wallet: String,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(value_type = f64, example = 30.00)]
    amount: Box<RawValue>,
    #[schema(value_type = f64, example = 20.00)]
    captured: Box<RawValue>,
    #[schema(value_type = f64, example = 10.00)]
    released: Box<RawValue>,
    /// What is still set aside.
    #[schema(value_type = f64, example = 0.00)]
    remaining: Box<RawValue>,
    /// `open`, `captured`, `voided` or `expired`.
    #[schema(example = "captured")]
    state: &'static str,
    #[schema(example = "2026-02-07T12:00:00Z")]
    expires_at: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    created_at: String,
    /// The transfer that this answer is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "22")]
    transfer: Option<String>,
}

impl HoldBody {
    fn of(hold: &Hold, with_transfer: bool) -> Result<Self> {
        let currency = hold.currency;
        Ok(Self {
            id: hold.id.to_string(),
            wallet: hold.wallet.to_string(),
            currency: currency.code().to_owned(),
            amount: number(hold.amount, currency)?,
            captured: number(hold.captured, currency)?,
            released: number(hold.released, currency)?,
            remaining: number(hold.remaining(), currency)?,
            state: hold.state.name(),
            expires_at: moment(hold.expires_at)?,
            created_at: moment(hold.created_at)?,
            transfer: with_transfer.then(|| hold.transfer.to_string()),
        })
    }
}

#[derive(Deserialize, ToSchema)]
struct CreateHold<'a> {
    /// The wallet.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "1")]
    id: Member<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "30.00")]
    amount: Member<'a>,
    /// Seconds until it ends by itself: by default a week, at most 90 days.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>, example = 3600)]
    expires_in: Member<'a>,
}

/// Set money aside
#[utoipa::path(
    post, path = "/wallet/hold", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = CreateHold<'static>,
    responses(
        (status = 201, description = "Set aside", body = HoldBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_hold(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Response> {
    let CreateHold { id, amount, expires_in } = body.read()?;
    let mut check = Check::default();
    let id = check.required("/id", &id, wallet_id);
    let amount = decimal(&mut check, "/amount", &amount, true);
    let lasts = check.optional("/expires_in", &expires_in, lasts);
    let (id, amount) = check.finish(id.zip(amount))?;
    let facts = app.wallets.facts(id).await?;
    caller.may_spend(&facts)?;
    let amount = amount_of(amount, facts.currency)?;
    let asked = asked(&caller, &key, &context);
    let lasts = lasts.unwrap_or(LASTS_DEFAULT);
    let hold = app.wallets.place_hold(id, &facts, amount, lasts, asked).await?;
    let mut response = replayable(StatusCode::CREATED, &HoldBody::of(&hold, false)?, hold.replayed);
    let location = HeaderValue::from_str(&format!("/wallet/hold/{}", hold.id));
    response
        .headers_mut()
        .insert(header::LOCATION, location.expect("digits are visible characters"));
    Ok(response)
}

fn lasts(raw: &str) -> Result<Duration, String> {
    let seconds = raw.parse::<u64>().ok().map(Duration::from_secs);
    let lasts = seconds.filter(|lasts| (Duration::from_secs(1)..=LASTS_MAX).contains(lasts));
    lasts.ok_or_else(|| format!("must be a whole number of seconds, 1 to {}", LASTS_MAX.as_secs()))
}

/// Look at a hold
#[utoipa::path(
    get, path = "/wallet/hold/{hold}", tag = "wallet",
    params(("hold" = String, Path, description = "The hold", example = "21")),
    responses(
        (status = 200, description = "The hold", body = HoldBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_hold(State(app): State<App>, caller: Caller, Path(id): Path<i64>) -> Result<Response> {
    let hold = app.wallets.hold_seen_by(&caller, id).await?;
    Ok(axum::Json(HoldBody::of(&hold, false)?).into_response())
}

#[derive(Deserialize, ToSchema)]
struct CaptureHold<'a> {
    /// What is taken of it; all that remains when absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "20.00")]
    amount: Member<'a>,
    /// The wallet it goes to; when absent it leaves the system, as a withdrawal does.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2")]
    to: Member<'a>,
    /// Whether the rest is released, which it is unless this is false.
    #[serde(rename = "final", default = "yes")]
    #[schema(example = true)]
    last: bool,
}

const fn yes() -> bool {
    true
}

/// Take the money that was set aside
#[utoipa::path(
    post, path = "/wallet/hold/{hold}/capture", tag = "wallet",
    params(
        ("hold" = String, Path, description = "The hold", example = "21"),
        ("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body"),
    ),
    request_body = CaptureHold<'static>,
    responses(
        (status = 200, description = "The hold after it", body = HoldBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn capture_hold(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<i64>,
    body: JsonBody,
) -> Result<Response> {
    let CaptureHold { amount, to, last } = body.read()?;
    let mut check = Check::default();
    let amount = decimal(&mut check, "/amount", &amount, false);
    let to = check.optional("/to", &to, wallet_id);
    check.finish(Some(()))?;
    if let Some(to) = to {
        app.wallets.facts(to).await?;
    }
    let change = Change::Capture { amount, to, last };
    let asked = asked(&caller, &key, &context);
    let hold = app.wallets.change_hold(id, change, Some(asked)).await?;
    Ok(replayable(StatusCode::OK, &HoldBody::of(&hold, true)?, hold.replayed))
}

/// Release the money that was set aside
#[utoipa::path(
    post, path = "/wallet/hold/{hold}/void", tag = "wallet",
    params(
        ("hold" = String, Path, description = "The hold", example = "21"),
        ("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key"),
    ),
    responses(
        (status = 200, description = "The hold after it", body = HoldBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn void_hold(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<i64>,
) -> Result<Response> {
    let asked = asked(&caller, &key, &context);
    let hold = app.wallets.change_hold(id, Change::Void, Some(asked)).await?;
    Ok(replayable(StatusCode::OK, &HoldBody::of(&hold, true)?, hold.replayed))
}

#[derive(Deserialize, IntoParams)]
struct HoldsQuery {
    /// Most holds of the answer: 1 to 1000, by default 100.
    limit: Option<i64>,
    /// Where the last page ended; take it from the header `Link`.
    after: Option<i64>,
}

/// The holds of a wallet, newest first
#[utoipa::path(
    get, path = "/wallet/{id}/holds", tag = "wallet",
    params(("id" = String, Path, description = "The wallet", example = "1"), HoldsQuery),
    responses(
        (status = 200, description = "`Link` has the next page", body = [HoldBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_holds(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<HoldsQuery>,
) -> Result<Response> {
    app.wallets.seen_by(&caller, id).await?;
    let limit = page_limit(query.limit)?;
    let holds = app.wallets.list_holds(id, query.after.unwrap_or(read::END), limit).await?;
    let bodies = holds.iter().map(|hold| HoldBody::of(hold, false));
    let mut response = axum::Json(bodies.collect::<Result<Vec<_>>>()?).into_response();
    if let Some(last) = holds.last().filter(|_| i64::try_from(holds.len()) == Ok(limit)) {
        link_next(&mut response, &format!("/wallet/{id}/holds?limit={limit}&after={}", last.id));
    }
    Ok(response)
}

//! `/wallet/hold`: place, capture and void holds.

use std::time::Duration;

use axum::extract::{FromRef, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{note, number, optional_decimal, request_meta, required_decimal, wallet_id};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::{EmptyBody, JsonBody, OptionalJsonBody};
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::moment;
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{HoldId, WalletId};
use crate::wallet::Wallets;
use crate::wallet::hold::{
    CaptureRest, Hold, HoldState, LIFETIME_DEFAULT, LIFETIME_MAX, Transition,
};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(create_hold))
        .routes(routes!(get_hold))
        .routes(routes!(capture_hold))
        .routes(routes!(void_hold))
        .routes(routes!(list_holds))
}

/// A hold, which reserves money in a wallet.
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
    amount: JsonDecimal,
    #[schema(value_type = f64, example = 20.00)]
    captured: JsonDecimal,
    #[schema(value_type = f64, example = 10.00)]
    released: JsonDecimal,
    /// The part of the amount that is still reserved.
    #[schema(value_type = f64, example = 0.00)]
    remaining: JsonDecimal,
    #[schema(value_type = HoldState)]
    state: &'static str,
    #[schema(example = "2026-02-07T12:00:00Z", format = DateTime)]
    expires_at: String,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "room 12")]
    memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({ "booking": 7 }))]
    metadata: Option<Box<RawValue>>,
    /// Id of the transfer that the capture or void made. Present only in the response to a capture or void.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "22")]
    transfer: Option<String>,
}

impl TryFrom<&Hold> for HoldBody {
    type Error = Error;

    fn try_from(hold: &Hold) -> Result<Self> {
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
            memo: hold.note.memo.clone(),
            metadata: hold.note.metadata.clone(),
            transfer: None,
        })
    }
}

/// Builds the response to a capture or void, with the id of the transfer that the capture or void made.
fn transitioned(hold: &Hold) -> Result<Replayable<HoldBody>> {
    let body = HoldBody { transfer: Some(hold.transfer.to_string()), ..HoldBody::try_from(hold)? };
    Ok(Replayable::ok(body, hold.replayed))
}

#[derive(Deserialize, ToSchema)]
struct CreateHold<'a> {
    /// Id of the wallet whose money is reserved.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "1")]
    id: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "30.00")]
    amount: RawField<'a>,
    /// Seconds until the hold expires: a week by default, at most 90 days.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u64>, example = 3600)]
    expires_in: RawField<'a>,
    /// Memo of the hold, at most 500 characters.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "room 12")]
    memo: RawField<'a>,
    /// Any JSON object of at most 1024 bytes. The server stores and returns it.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>, example = json!({ "booking": 7 }))]
    metadata: RawField<'a>,
}

/// Place a hold
///
/// Reserves a part of the balance until the hold is captured, is voided or expires.
#[utoipa::path(
    post, path = "/wallet/hold", tag = "wallet",
    params(IdempotencyKey),
    request_body = CreateHold<'static>,
    responses(
        (status = 201, description = "The hold", body = HoldBody),
        Problems,
    ),
)]
async fn create_hold(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<HoldBody>> {
    let CreateHold { id, amount, expires_in, memo, metadata } = body.read()?;
    let mut validator = Validator::default();
    let id = validator.required("/id", &id, wallet_id);
    let amount = required_decimal(&mut validator, "/amount", &amount);
    let lifetime = validator.optional("/expires_in", &expires_in, lifetime);
    let note = note(&mut validator, &memo, &metadata);
    let (id, amount) = validator.finish(id.zip(amount))?;
    let meta = request_meta(&caller, &key, &context);
    let terms = (lifetime.unwrap_or(LIFETIME_DEFAULT), note);
    let hold = wallets.place_hold(id, amount, terms, meta).await.map_err(super::at_id)?;
    let location = format!("/wallet/hold/{}", hold.id);
    Ok(Replayable::created(HoldBody::try_from(&hold)?, location, hold.replayed))
}

fn lifetime(raw: &str) -> Result<Duration, String> {
    let seconds = raw.parse::<u64>().ok().map(Duration::from_secs);
    let range = Duration::from_secs(1)..=LIFETIME_MAX;
    seconds.filter(|lifetime| range.contains(lifetime)).ok_or_else(|| {
        format!("must be a whole number of seconds, 1 to {}", LIFETIME_MAX.as_secs())
    })
}

/// Get a hold
#[utoipa::path(
    get, path = "/wallet/hold/{hold}", tag = "wallet",
    params(("hold" = String, Path, description = "Id of the hold", example = "21")),
    responses(
        (status = 200, description = "The hold", body = HoldBody),
        Problems,
    ),
)]
async fn get_hold(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<HoldId>,
) -> Result<Json<HoldBody>> {
    Ok(Json(HoldBody::try_from(&wallets.get_hold(&caller, id).await?)?))
}

#[derive(Deserialize, ToSchema)]
struct CaptureHold<'a> {
    /// Amount to capture; the whole remaining amount if absent.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "20.00")]
    amount: RawField<'a>,
    /// Id of the receiving wallet; if absent, the money leaves the system, as with a withdrawal.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2")]
    to: RawField<'a>,
    /// Whether the capture ends the hold and releases the rest of its money; true if absent. If false, the rest stays
    /// reserved.
    #[serde(rename = "final", default = "default_true")]
    #[schema(example = true)]
    is_final: bool,
}

const fn default_true() -> bool {
    true
}

/// Capture a hold
///
/// Captures the amount in the body, or the whole remaining amount if the request has no body. Without a receiver in the
/// body, the money leaves the system, as with a withdrawal.
#[utoipa::path(
    post, path = "/wallet/hold/{hold}/capture", tag = "wallet",
    params(
        ("hold" = String, Path, description = "Id of the hold", example = "21"),
        IdempotencyKey,
    ),
    request_body = Option<CaptureHold<'static>>,
    responses(
        (status = 200, description = "The updated hold", body = HoldBody),
        Problems,
    ),
)]
async fn capture_hold(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<HoldId>,
    body: OptionalJsonBody,
) -> Result<Replayable<HoldBody>> {
    let CaptureHold { amount, to, is_final } = body.read()?;
    let mut validator = Validator::default();
    let amount = optional_decimal(&mut validator, "/amount", &amount);
    let to = validator.optional("/to", &to, wallet_id);
    validator.finish(Some(()))?;
    let rest = if is_final { CaptureRest::Release } else { CaptureRest::Keep };
    let meta = request_meta(&caller, &key, &context);
    let transition = Transition::Capture { amount, to, rest };
    let transitioned_hold = wallets.transition_hold(id, transition, meta).await;
    // Only the receiver is a member of the body; the hold's own wallet is not.
    let pointer = |wallet| (to == Some(WalletId(wallet))).then(|| "/to".to_owned());
    transitioned(&transitioned_hold.map_err(|error| error.with_pointer(pointer))?)
}

/// Void a hold
#[utoipa::path(
    post, path = "/wallet/hold/{hold}/void", tag = "wallet",
    params(
        ("hold" = String, Path, description = "Id of the hold", example = "21"),
        IdempotencyKey,
    ),
    responses(
        (status = 200, description = "The updated hold", body = HoldBody),
        Problems,
    ),
)]
async fn void_hold(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    Path(id): Path<HoldId>,
    EmptyBody: EmptyBody,
) -> Result<Replayable<HoldBody>> {
    let meta = request_meta(&caller, &key, &context);
    transitioned(&wallets.transition_hold(id, Transition::Void, meta).await?)
}

#[derive(Deserialize, IntoParams)]
struct ListHoldsQuery {
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the `Link` header of the previous page.
    after: Option<i64>,
}

/// List the holds of a wallet
///
/// The newest hold comes first.
#[utoipa::path(
    get, path = "/wallet/{id}/holds", tag = "wallet",
    params(("id" = String, Path, description = "Id of the wallet", example = "1"), ListHoldsQuery),
    responses(
        (status = 200, description = "A page of holds; the `Link` header has the URL of the next page", body = [HoldBody]),
        Problems,
    ),
)]
async fn list_holds(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<ListHoldsQuery>,
) -> Result<Page<HoldBody>> {
    let limit = page_limit(query.limit)?;
    let holds = wallets.list_holds(&caller, id, query.after.unwrap_or(i64::MAX), limit).await?;
    let next = last_of_full_page(&holds, limit)
        .map(|last| format!("/wallet/{id}/holds?limit={limit}&after={}", last.id));
    Ok(Page::new(holds.iter().map(HoldBody::try_from).collect::<Result<_>>()?, next))
}

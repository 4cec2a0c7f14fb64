//! `/wallet`: open, look at, deposit, withdraw.

mod look;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{Asked, Wallet, WalletId};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::{Check, JsonBody, Member};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Minor;

/// Longest name of an owner, in characters.
const OWNER_MAX: usize = 200;

static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(look::routes())
        .routes(routes!(create_wallet))
        .routes(routes!(deposit))
        .routes(routes!(withdraw))
}

/// A wallet in an answer.
#[derive(Serialize, ToSchema)]
#[schema(as = Wallet)]
struct WalletBody<'a> {
    /// Exact, with the currency's decimals.
    #[schema(value_type = f64, example = 999.00)]
    balance: Box<RawValue>,
    #[schema(example = "EUR")]
    currency: &'a str,
    #[schema(example = "1")]
    id: String,
    #[schema(example = "test2")]
    owner: &'a str,
}

fn answer(status: StatusCode, wallet: &Wallet) -> Result<Response> {
    let body = WalletBody {
        balance: number(wallet.balance, wallet.facts.currency)?,
        currency: wallet.facts.currency.code(),
        id: wallet.id.to_string(),
        owner: &wallet.facts.owner,
    };
    let mut response = (status, axum::Json(body)).into_response();
    if wallet.replayed {
        response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// An exact decimal as a JSON number.
fn number(minor: Minor, currency: Currency) -> Result<Box<RawValue>> {
    let text = minor.exact(currency).to_string();
    RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()))
}

#[derive(Deserialize, ToSchema)]
struct CreateWallet<'a> {
    /// Whose it is: a label of 1 to 200 characters.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "test2")]
    owner: Member<'a>,
    /// A first deposit, in the same transaction.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "999.00")]
    initial_balance: Member<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "EUR")]
    currency: Member<'a>,
}

/// Open a wallet
#[utoipa::path(
    post, path = "/wallet", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = CreateWallet<'static>,
    responses(
        (status = 201, description = "Opened", body = WalletBody<'static>),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn create_wallet(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Response> {
    let CreateWallet { owner, initial_balance, currency } = body.read()?;
    let mut check = Check::default();
    let owner = check.required("/owner", &owner, owner_of);
    let currencies = app.wallets.currencies();
    let currency = check.required("/currency", &currency, |raw| {
        let code =
            serde_json::from_str::<String>(raw).map_err(|_| "must be a string".to_owned())?;
        currencies.find(&code).ok_or_else(|| "is not a currency known here".to_owned())
    });
    let initial = currency.and_then(|currency| {
        check.optional("/initial_balance", &initial_balance, |raw| {
            let text = Currencies::unquoted(raw)?;
            Minor::parse_balance(text, currency).map_err(|cause| cause.to_string())
        })
    });
    let (owner, currency) = check.finish(owner.zip(currency))?;
    let initial = initial.filter(|minor| *minor > Minor::ZERO);
    let asked = asked(&caller, &key, &context);
    let wallet = app.wallets.open(&owner, currency, initial, asked).await?;
    let mut response = answer(StatusCode::CREATED, &wallet)?;
    let location = HeaderValue::from_str(&format!("/wallet/{}", wallet.id));
    response
        .headers_mut()
        .insert(header::LOCATION, location.expect("digits are visible characters"));
    Ok(response)
}

fn owner_of(raw: &str) -> Result<String, String> {
    let owner = serde_json::from_str::<String>(raw).map_err(|_| "must be a string".to_owned())?;
    let fits = (1..=OWNER_MAX).contains(&owner.chars().count());
    // A NUL cannot be stored in text.
    if fits && !owner.contains('\0') {
        Ok(owner)
    } else {
        Err(format!("must have 1 to {OWNER_MAX} characters"))
    }
}

#[derive(Deserialize, ToSchema)]
struct MoveMoney<'a> {
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "1")]
    id: Member<'a>,
    /// A decimal as a number or a string, with at most the currency's decimals.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "100.00")]
    amount: Member<'a>,
}

impl<'a> MoveMoney<'a> {
    fn checked(&self) -> Result<(WalletId, &'a str)> {
        let mut check = Check::default();
        let id = check.required("/id", &self.id, wallet_id);
        let amount = self.amount.raw().map(Currencies::unquoted);
        let amount = match amount {
            Some(Ok(amount)) => Some(amount),
            Some(Err(detail)) => {
                check.refuse("/amount", detail);
                None
            }
            None => {
                check.refuse("/amount", "is required");
                None
            }
        };
        check.finish(id.zip(amount))
    }
}

fn wallet_id(raw: &str) -> Result<WalletId, String> {
    let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain).ok_or_else(|| "must be the id of a wallet".to_owned())
}

/// Put money into a wallet
#[utoipa::path(
    post, path = "/wallet/deposit", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = MoveMoney<'static>,
    responses(
        (status = 200, description = "The wallet with its new balance", body = WalletBody<'static>),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn deposit(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Response> {
    let (id, amount) = body.read::<MoveMoney<'_>>()?.checked()?;
    let asked = asked(&caller, &key, &context);
    answer(StatusCode::OK, &app.wallets.deposit(id, amount, asked).await?)
}

/// Take money out of a wallet
#[utoipa::path(
    post, path = "/wallet/withdraw", tag = "wallet",
    params(("Idempotency-Key" = Option<String>, Header, description = "Done once for the same key and body")),
    request_body = MoveMoney<'static>,
    responses(
        (status = 200, description = "The wallet with its new balance", body = WalletBody<'static>),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn withdraw(
    State(app): State<App>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Response> {
    let (id, amount) = body.read::<MoveMoney<'_>>()?.checked()?;
    let asked = asked(&caller, &key, &context);
    answer(StatusCode::OK, &app.wallets.withdraw(id, amount, asked).await?)
}

fn asked<'a>(caller: &'a Caller, key: &'a IdempotencyKey, context: &RequestContext) -> Asked<'a> {
    Asked { caller, key, trace: Uuid::from_bytes(context.trace().trace) }
}

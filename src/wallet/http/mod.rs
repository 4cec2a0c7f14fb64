//! `/wallet`: open, look at, deposit, withdraw.

mod batch;
pub(crate) mod body;
mod change;
mod history;
mod hold;
mod look;
mod probe;
mod refund;
mod statement;
mod transfer;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{asked, decimal, number, replayable, text, wallet_id};
use super::{Wallet, WalletId};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::{Check, JsonBody, Member};
use crate::http::idempotency::IdempotencyKey;
use crate::http::problem::ProblemBody;
use crate::ledger::currency::Currencies;
use crate::ledger::money::Minor;

/// Longest name of an owner, in characters.
const OWNER_MAX: usize = 200;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(look::routes())
        .merge(history::routes())
        .merge(statement::routes())
        .merge(transfer::routes())
        .merge(batch::routes())
        .merge(hold::routes())
        .merge(refund::routes())
        .merge(change::routes())
        .merge(probe::routes())
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
        balance: number(wallet.balance(), wallet.facts.currency)?,
        currency: wallet.facts.currency.code(),
        id: wallet.id.to_string(),
        owner: &wallet.facts.owner,
    };
    Ok(replayable(status, &body, wallet.replayed))
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
    let owner = check.required("/owner", &owner, |raw| text(raw, OWNER_MAX));
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
        let amount = decimal(&mut check, "/amount", &self.amount, true);
        check.finish(id.zip(amount))
    }
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

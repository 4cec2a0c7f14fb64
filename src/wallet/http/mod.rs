//! `/wallet`: open wallets, deposit and withdraw; the other routes are in the files below.

mod batch;
pub(crate) mod body;
mod canary;
mod history;
mod hold;
mod refund;
mod statement;
mod transfer;
mod update;
mod wallets;

use axum::Extension;
use axum::extract::{FromRef, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{number, request_meta, required_decimal, wallet_id};
use super::{Wallet, Wallets};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{JsonBody, RawField, Validator};
use crate::http::fields::{string, text};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency::IdempotencyKey;
use crate::ids::WalletId;
use crate::ledger::currency::Currencies;
use crate::ledger::money::Minor;

/// Longest owner label, in characters.
const OWNER_MAX: usize = 200;

pub fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .merge(wallets::routes())
        .merge(history::routes())
        .merge(statement::routes())
        .merge(transfer::routes())
        .merge(batch::routes())
        .merge(hold::routes())
        .merge(refund::routes())
        .merge(update::routes())
        .merge(canary::routes())
        .routes(routes!(create_wallet))
        .routes(routes!(deposit))
        .routes(routes!(withdraw))
}

/// A wallet after an operation.
#[derive(Serialize, ToSchema)]
#[schema(as = Wallet)]
struct WalletBody {
    /// Exact, with the currency's decimals.
    #[schema(value_type = f64, example = 999.00)]
    balance: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "1")]
    id: String,
    #[schema(example = "test2")]
    owner: String,
}

impl TryFrom<&Wallet> for WalletBody {
    type Error = Error;

    fn try_from(wallet: &Wallet) -> Result<Self> {
        let currency = wallet.record.currency;
        Ok(Self {
            balance: number(wallet.balance(), currency)?,
            currency: currency.code().to_owned(),
            id: wallet.id.to_string(),
            owner: wallet.record.owner.clone(),
        })
    }
}

#[derive(Deserialize, ToSchema)]
struct CreateWallet<'a> {
    /// A label of 1 to 200 characters.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "test2")]
    owner: RawField<'a>,
    /// An initial deposit, in the same transaction.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "999.00")]
    initial_balance: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "EUR")]
    currency: RawField<'a>,
}

/// Open a wallet
#[utoipa::path(
    post, path = "/wallet", tag = "wallet",
    params(IdempotencyKey),
    request_body = CreateWallet<'static>,
    responses(
        (status = 201, description = "The wallet", body = WalletBody),
        Problems,
    ),
)]
async fn create_wallet(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<WalletBody>> {
    let CreateWallet { owner, initial_balance, currency } = body.read()?;
    let mut validator = Validator::default();
    let owner = validator.required("/owner", &owner, |raw| text(raw, OWNER_MAX));
    let currencies = wallets.currencies();
    let currency =
        validator.required("/currency", &currency, |raw| currencies.supported(&string(raw)?));
    let initial = currency.and_then(|currency| {
        validator.optional("/initial_balance", &initial_balance, |raw| {
            let text = Currencies::amount_text(raw)?;
            Minor::parse_balance(text, currency).map_err(|cause| cause.to_string())
        })
    });
    let (owner, currency) = validator.finish(owner.zip(currency))?;
    let initial = initial.filter(|minor| *minor > Minor::ZERO);
    let meta = request_meta(&caller, &key, &context);
    let wallet = wallets.open(&owner, currency, initial, meta).await?;
    let location = format!("/wallet/{}", wallet.id);
    Ok(Replayable::created(WalletBody::try_from(&wallet)?, location, wallet.replayed))
}

#[derive(Deserialize, ToSchema)]
struct MoveMoney<'a> {
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "1")]
    id: RawField<'a>,
    /// A decimal, as a number or a string, with at most the decimals of the currency.
    #[serde(borrow, default)]
    #[schema(value_type = String, example = "100.00")]
    amount: RawField<'a>,
}

impl<'a> MoveMoney<'a> {
    fn validate(&self) -> Result<(WalletId, &'a str)> {
        let mut validator = Validator::default();
        let id = validator.required("/id", &self.id, wallet_id);
        let amount = required_decimal(&mut validator, "/amount", &self.amount);
        validator.finish(id.zip(amount))
    }
}

/// Points an error about a wallet to the member `id`.
pub(super) fn at_id(error: Error) -> Error {
    error.with_pointer(|_| Some("/id".to_owned()))
}

/// Deposit money
#[utoipa::path(
    post, path = "/wallet/deposit", tag = "wallet",
    params(IdempotencyKey),
    request_body = MoveMoney<'static>,
    responses(
        (status = 200, description = "The wallet with its new balance", body = WalletBody),
        Problems,
    ),
)]
async fn deposit(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<WalletBody>> {
    let (id, amount) = body.read::<MoveMoney<'_>>()?.validate()?;
    let meta = request_meta(&caller, &key, &context);
    let wallet = wallets.deposit(id, amount, meta).await.map_err(at_id)?;
    Ok(Replayable::ok(WalletBody::try_from(&wallet)?, wallet.replayed))
}

/// Withdraw money
#[utoipa::path(
    post, path = "/wallet/withdraw", tag = "wallet",
    params(IdempotencyKey),
    request_body = MoveMoney<'static>,
    responses(
        (status = 200, description = "The wallet with its new balance", body = WalletBody),
        Problems,
    ),
)]
async fn withdraw(
    State(wallets): State<Wallets>,
    caller: Caller,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Replayable<WalletBody>> {
    let (id, amount) = body.read::<MoveMoney<'_>>()?.validate()?;
    let meta = request_meta(&caller, &key, &context);
    let wallet = wallets.withdraw(id, amount, meta).await.map_err(at_id)?;
    Ok(Replayable::ok(WalletBody::try_from(&wallet)?, wallet.replayed))
}

//! Routes that open wallets, deposit and withdraw. The submodules contain the other routes under `/wallet`.

mod batch;
pub(crate) mod body;
mod canary;
mod history;
mod hold;
mod info;
mod refund;
mod statement;
mod transfer;
mod update;
mod wallets;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{FromRef, State};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::body::{note, number, request_meta, required_decimal, wallet_id};
use super::transfer::Note;
use super::{NewWallet, Wallet, WalletRecord, Wallets};
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::body::JsonBody;
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{RawField, Validator};
use crate::http::fields::{self, string, text};
use crate::http::json::JsonText;
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{TransferId, UserId, WalletId};
use crate::ledger::currency::{Currencies, Currency};
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
        .merge(info::routes())
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
    /// The exact balance, with as many decimal places as the currency has.
    #[schema(value_type = f64, example = 999.00)]
    balance: JsonDecimal,
    #[schema(value_type = String, example = "EUR")]
    currency: JsonText<Currency>,
    #[schema(value_type = String, example = "1")]
    id: JsonText<WalletId>,
    #[serde(serialize_with = "serialize_owner")]
    #[schema(value_type = String, example = "test2")]
    owner: Arc<WalletRecord>,
    /// Id of the deposit or withdrawal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "17")]
    transfer: Option<JsonText<TransferId>>,
}

impl TryFrom<Wallet> for WalletBody {
    type Error = Error;

    fn try_from(wallet: Wallet) -> Result<Self> {
        let currency = wallet.record.currency;
        Ok(Self {
            balance: number(wallet.balance(), currency)?,
            currency: JsonText(currency),
            id: JsonText(wallet.id),
            owner: wallet.record,
            transfer: wallet.transfer.map(JsonText),
        })
    }
}

/// Serializes the owner label of a wallet.
fn serialize_owner<S: Serializer>(record: &WalletRecord, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&record.owner)
}

#[derive(Deserialize, ToSchema)]
struct CreateWallet<'a> {
    /// Label of the owner, 1 to 200 characters.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "test2")]
    owner: RawField<'a>,
    /// Initial deposit, made in the same transaction that opens the wallet.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "999.00")]
    initial_balance: RawField<'a>,
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "EUR")]
    currency: RawField<'a>,
    /// Id of the user that the wallet will belong to; the signed-in caller if absent. Opening a wallet for another user
    /// requires the scope `wallet:write`.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "2")]
    user: RawField<'a>,
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
    let CreateWallet { owner, initial_balance, currency, user } = body.read()?;
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
    let user = validator.optional("/user", &user, |raw| {
        fields::id(raw).map(UserId).ok_or_else(|| "must be the id of a user".to_owned())
    });
    let (owner, currency) = validator.finish(owner.zip(currency))?;
    let initial = initial.filter(|minor| *minor > Minor::ZERO);
    let meta = request_meta(&caller, &key, &context);
    let wallet = wallets.open(NewWallet { owner: &owner, currency, initial, user }, meta).await?;
    let (location, replayed) = (format!("/wallet/{}", wallet.id), wallet.replayed);
    Ok(Replayable::created(WalletBody::try_from(wallet)?, location, replayed))
}

#[derive(Deserialize, ToSchema)]
struct MoveMoney<'a> {
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "1")]
    id: RawField<'a>,
    /// A decimal, as a number or a string, with at most as many decimal places as the currency has.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "100.00")]
    amount: RawField<'a>,
    /// Memo of the deposit or withdrawal, at most 500 characters.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "card payment")]
    memo: RawField<'a>,
    /// Any JSON object of at most 1024 bytes. The server stores and returns it.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>, example = json!({ "order": 7 }))]
    metadata: RawField<'a>,
}

impl<'a> MoveMoney<'a> {
    fn validate(&self) -> Result<(WalletId, &'a str, Note)> {
        let mut validator = Validator::default();
        let id = validator.required("/id", &self.id, wallet_id);
        let amount = required_decimal(&mut validator, "/amount", &self.amount);
        let note = note(&mut validator, &self.memo, &self.metadata);
        let (id, amount) = validator.finish(id.zip(amount))?;
        Ok((id, amount, note))
    }
}

/// Makes an error about a wallet point to the member `id` of the request body.
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
    let (id, amount, note) = body.read::<MoveMoney<'_>>()?.validate()?;
    let meta = request_meta(&caller, &key, &context);
    let wallet = wallets.deposit(id, amount, note, meta).await.map_err(at_id)?;
    let replayed = wallet.replayed;
    Ok(Replayable::ok(WalletBody::try_from(wallet)?, replayed))
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
    let (id, amount, note) = body.read::<MoveMoney<'_>>()?.validate()?;
    let meta = request_meta(&caller, &key, &context);
    let wallet = wallets.withdraw(id, amount, note, meta).await.map_err(at_id)?;
    let replayed = wallet.replayed;
    Ok(Replayable::ok(WalletBody::try_from(wallet)?, replayed))
}

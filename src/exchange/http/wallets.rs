//! Routes under `/exchange/wallet/{user_id}`, which open a user's wallets on the exchange, read their balances, and
//! deposit.

use axum::extract::{FromRef, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::StatusBody;
use crate::auth::{Authenticated, Authenticator, Scope};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::http::body::{EmptyBody, UntypedJsonBody};
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::UserId;
use crate::ledger::currency::Currencies;
use crate::ledger::money::Minor;
use crate::wallet::http::body::{number, request_meta};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Exchange: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(get_exchange_wallet, open_exchange_wallet, deposit_to_exchange_wallet))
        .routes(routes!(deposit_to_exchange_wallet_alias))
}

/// Balances of a user on the exchange.
#[derive(Serialize, ToSchema)]
#[schema(as = ExchangeWallet)]
struct WalletBody {
    #[schema(example = 2)]
    user_id: i64,
    #[schema(value_type = f64, example = 3.0)]
    crypto_amount: JsonDecimal,
    #[schema(value_type = f64, example = 600.00)]
    fiat_amount: JsonDecimal,
}

/// Get the balances of a user
///
/// Users can get their own balances; other callers need the scope `wallet:read`. For the user with the role `house`,
/// returns the balances of the hot wallets.
#[utoipa::path(
    get, path = "/exchange/wallet/{user_id}", tag = "exchange", security(("bearer" = [])),
    params(("user_id" = i64, Path, description = "The user", example = 2)),
    responses((status = 200, description = "The balances", body = WalletBody), Problems),
)]
async fn get_exchange_wallet(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
) -> Result<Json<WalletBody>> {
    let wallet = exchange.wallet(user, &caller).await?;
    Ok(Json(WalletBody {
        user_id: user.0,
        crypto_amount: number(wallet.crypto, wallet.pair.crypto)?,
        fiat_amount: number(wallet.fiat, wallet.pair.fiat)?,
    }))
}

/// Open the wallets of a user
///
/// Opens the user's two main wallets: one in the fiat currency and one in the cryptocurrency of the exchange. If one
/// of them exists, opens only the other. Fails if both exist.
#[utoipa::path(
    post, path = "/exchange/wallet/{user_id}", tag = "exchange", security(("bearer" = [])),
    params(
        ("user_id" = i64, Path, description = "The user", example = 2),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: each wallet is opened only once"),
    ),
    responses((status = 200, description = "Opened", body = StatusBody), Problems),
)]
async fn open_exchange_wallet(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    _body: EmptyBody,
) -> Result<Json<StatusBody>> {
    exchange.open_wallets(user, request_meta(&caller, &key, &context)).await?;
    Ok(Json(StatusBody::OK))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ExchangeDeposit)]
struct DepositBody<'a> {
    #[serde(borrow, default)]
    #[schema(required, value_type = f64, example = 600)]
    fiat_amount: RawField<'a>,
}

/// Deposit into a main wallet
///
/// Deposits money into the user's main wallet in the fiat currency of the exchange. A user has one main wallet in each
/// currency. An order takes money from the main wallet in the currency that the user pays, and adds money to the main
/// wallet in the currency that the user receives.
#[utoipa::path(
    patch, path = "/exchange/wallet/{user_id}", tag = "exchange", security(("bearer" = [])),
    params(("user_id" = i64, Path, description = "The user", example = 2), IdempotencyKey),
    request_body = DepositBody<'static>,
    responses((status = 200, description = "Deposited", body = StatusBody), Problems),
)]
async fn deposit_to_exchange_wallet(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: UntypedJsonBody,
) -> Result<Replayable<StatusBody>> {
    caller.require_user_or_scope(user, Scope::WalletWrite)?;
    let DepositBody { fiat_amount } = body.read()?;
    let mut validator = Validator::default();
    let fiat = exchange.pair().fiat;
    let amount = validator.required("/fiat_amount", &fiat_amount, |raw| {
        let text = Currencies::amount_text(raw)?;
        Minor::parse_amount(text, fiat).map_err(|cause| cause.to_string())
    });
    let amount = validator.finish(amount)?;
    let meta = request_meta(&caller, &key, &context);
    let posting = exchange.deposit(user, amount, meta).await?;
    Ok(Replayable::ok(StatusBody::OK, posting.replayed))
}

/// Deposit fiat into a main wallet
///
/// Equivalent to `PATCH /exchange/wallet/{user_id}`, for clients that use the longer path.
#[utoipa::path(
    patch, path = "/exchange/wallet/{user_id}/deposit", tag = "exchange", security(("bearer" = [])),
    params(("user_id" = i64, Path, description = "The user", example = 2), IdempotencyKey),
    request_body = DepositBody<'static>,
    responses((status = 200, description = "Deposited", body = StatusBody), Problems),
)]
async fn deposit_to_exchange_wallet_alias(
    state: State<Exchange>,
    caller: Authenticated,
    path: Path<UserId>,
    key: IdempotencyKey,
    context: Extension<RequestContext>,
    body: UntypedJsonBody,
) -> Result<Replayable<StatusBody>> {
    deposit_to_exchange_wallet(state, caller, path, key, context, body).await
}

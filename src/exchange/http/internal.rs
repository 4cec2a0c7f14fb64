//! Routes on the internal listener. Other services use them to read and change balances, and to trigger the steps of an
//! order.
//!
//! Each route requires the scope `admin`, even on the internal listener. A request that triggers a step moves no money
//! by itself; it only makes the saga worker retry the step immediately. As before every retry, the worker first asks
//! the external system whether an earlier call took effect.

use axum::extract::{FromRef, State};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::{Deserialize, Serialize};

use super::body::StatusBody;
use crate::auth::{Authenticated, Authenticator, Scope};
use crate::error::{Error, ExchangeRefusal, Result};
use crate::exchange::Exchange;
use crate::exchange::order::Order;
use crate::exchange::terms::Side;
use crate::http::body::{EmptyBody, JsonBody};
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, RawField, Validator};
use crate::http::fields::id;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{SagaId, UserId};
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Minor;
use crate::wallet::http::body::{number, request_meta};

pub fn internal<S>() -> Router<S>
where
    Exchange: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    let balances = get(get_balances).post(open_balances).patch(change_balances);
    Router::new()
        .route("/internal/balance/wallet/{user_id}", balances)
        .route("/internal/exchanger/{side}/{order_id}", post(call_exchanger))
        .route("/internal/bcgateway/withdraw/{user_id}", post(call_chain))
        .route("/internal/notification/send/{order_id}", post(call_notifier))
}

#[derive(Serialize)]
struct BalancesBody {
    user_id: i64,
    crypto_amount: JsonDecimal,
    fiat_amount: JsonDecimal,
}

async fn get_balances(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
) -> Result<Json<BalancesBody>> {
    caller.require_scope(Scope::Admin)?;
    let wallet = exchange.wallet(user, &caller).await?;
    Ok(Json(BalancesBody {
        user_id: user.0,
        crypto_amount: number(wallet.crypto, wallet.pair.crypto)?,
        fiat_amount: number(wallet.fiat, wallet.pair.fiat)?,
    }))
}

async fn open_balances(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    _body: EmptyBody,
) -> Result<Json<StatusBody>> {
    caller.require_scope(Scope::Admin)?;
    exchange.open_wallets(user, request_meta(&caller, &key, &context)).await?;
    Ok(Json(StatusBody::OK))
}

#[derive(Deserialize)]
struct DeltaBody<'a> {
    #[serde(borrow, default)]
    crypto_amount: RawField<'a>,
    #[serde(borrow, default)]
    fiat_amount: RawField<'a>,
}

/// Adds signed amounts to the fiat and crypto balances of a user, in a single transaction.
async fn change_balances(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: JsonBody,
) -> Result<Json<StatusBody>> {
    caller.require_scope(Scope::Admin)?;
    let DeltaBody { crypto_amount, fiat_amount } = body.read()?;
    let mut validator = Validator::default();
    let pair = exchange.pair();
    let mut delta = |pointer, field: &RawField<'_>, currency: Currency| {
        validator.optional(pointer, field, |raw| {
            let text = Currencies::amount_text(raw)?;
            Minor::parse_signed(text, currency).map_err(|cause| cause.to_string())
        })
    };
    let crypto = delta("/crypto_amount", &crypto_amount, pair.crypto).unwrap_or_default();
    let fiat = delta("/fiat_amount", &fiat_amount, pair.fiat).unwrap_or_default();
    if crypto == Minor::ZERO && fiat == Minor::ZERO {
        validator.refuse("", "needs fiat_amount or crypto_amount other than zero");
    }
    validator.finish(Some(()))?;
    let meta = request_meta(&caller, &key, &context);
    exchange.adjust(user, [(pair.fiat, fiat), (pair.crypto, crypto)], meta).await?;
    Ok(Json(StatusBody::OK))
}

#[derive(Deserialize)]
struct StepBody<'a> {
    #[serde(borrow, default)]
    acquirer_user_id: RawField<'a>,
    #[serde(borrow, default)]
    order_id: RawField<'a>,
    #[serde(borrow, default)]
    crypto_amount: RawField<'a>,
    #[serde(borrow, default)]
    compensate: RawField<'a>,
}

impl StepBody<'_> {
    /// Returns an error unless the fields of the body match the order.
    fn require_match(&self, order: &Order, crypto: Currency) -> Result<()> {
        let mut validator = Validator::default();
        let other = "does not match the order";
        let same_user = |raw: &str| match id(raw) {
            Some(user) if user == order.user.0 => Ok(()),
            _ => Err(other.to_owned()),
        };
        let same_order = |raw: &str| match id(raw) {
            Some(found) if found == order.id.0 => Ok(()),
            _ => Err(other.to_owned()),
        };
        let same_amount = |raw: &str| {
            let amount = Minor::parse_amount(Currencies::amount_text(raw)?, crypto);
            match amount.map_err(|cause| cause.to_string())? {
                amount if amount == order.terms.crypto => Ok(()),
                _ => Err(other.to_owned()),
            }
        };
        let boolean = |raw: &str| match raw {
            "true" | "false" => Ok(()),
            _ => Err("must be true or false".to_owned()),
        };
        validator.optional("/acquirer_user_id", &self.acquirer_user_id, same_user);
        validator.optional("/order_id", &self.order_id, same_order);
        validator.optional("/crypto_amount", &self.crypto_amount, same_amount);
        validator.optional("/compensate", &self.compensate, boolean);
        validator.finish(Some(()))
    }
}

async fn call_exchanger(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path((side, order)): Path<(String, SagaId)>,
    body: JsonBody,
) -> Result<Json<StatusBody>> {
    caller.require_scope(Scope::Admin)?;
    let side: Side = side.parse().map_err(|_| Error::NotFound("path"))?;
    let order = exchange.order(order, &caller).await?;
    body.read::<StepBody<'_>>()?.require_match(&order, exchange.pair().crypto)?;
    if order.terms.side != side {
        return Err(
            ExchangeRefusal::OrderFixed("it is not an order of this side (buy or sell)").into()
        );
    }
    exchange.wake(order.id, &["exchange"], &caller).await?;
    Ok(Json(StatusBody::OK))
}

async fn call_chain(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    body: JsonBody,
) -> Result<Json<StatusBody>> {
    caller.require_scope(Scope::Admin)?;
    let step = body.read::<StepBody<'_>>()?;
    let mut validator = Validator::default();
    let order = validator.required("/order_id", &step.order_id, |raw| {
        id(raw).map(SagaId).ok_or_else(|| "must be the id of an order".to_owned())
    });
    let order = exchange.order(validator.finish(order)?, &caller).await?;
    if order.user != user {
        return Err(Error::NotFound("order"));
    }
    step.require_match(&order, exchange.pair().crypto)?;
    exchange.wake(order.id, &["withdraw"], &caller).await?;
    Ok(Json(StatusBody::OK))
}

/// Makes the saga worker immediately notify the user that an order has ended. Returns an error if the order has not
/// ended or its notification is not due.
async fn call_notifier(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(order): Path<SagaId>,
    _body: EmptyBody,
) -> Result<Json<StatusBody>> {
    caller.require_scope(Scope::Admin)?;
    let order = exchange.order(order, &caller).await?;
    if !order.state.is_over() {
        return Err(ExchangeRefusal::OrderFixed("it has not ended").into());
    }
    exchange.wake(order.id, &[], &caller).await?;
    Ok(Json(StatusBody::OK))
}

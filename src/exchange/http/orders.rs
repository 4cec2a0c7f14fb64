//! Routes for quotes and for the orders of users: `/exchange/quote`, `/exchange/buy`, `/exchange/sell`,
//! `/exchange/order` and `/exchange/orders`.

use axum::extract::{FromRef, State};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::body::{OrderBody, decimal, order_amount};
use crate::auth::{Authenticated, Authenticator, Caller, Scope};
use crate::error::{Error, Result};
use crate::exchange::Exchange;
use crate::exchange::order::{OrderListFilter, OrderRequest};
use crate::exchange::quote::ExchangeQuote;
use crate::exchange::terms::{Pair, Side};
use crate::http::body::UntypedJsonBody;
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::{id, moment, string};
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::Problems;
use crate::http::replay::Replayable;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{SagaId, UserId};
use crate::saga::SagaState;
use crate::wallet::http::body::{number, request_meta};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Exchange: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(create_quote))
        .routes(routes!(buy_crypto))
        .routes(routes!(sell_crypto))
        .routes(routes!(get_order))
        .routes(routes!(list_orders_of_user))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewExchangeQuote)]
struct NewQuoteBody<'a> {
    /// `buy` or `sell`.
    #[serde(borrow, default)]
    #[schema(required, value_type = Side)]
    side: RawField<'a>,
    /// Fiat amount that a buyer pays (fee included) or a seller receives (fee deducted). Required unless
    /// `crypto_amount` is given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<f64>, example = 30)]
    fiat_amount: RawField<'a>,
    /// Amount of crypto to buy or sell. Required unless `fiat_amount` is given.
    #[serde(borrow, default)]
    #[schema(value_type = Option<f64>, example = json!(null))]
    crypto_amount: RawField<'a>,
}

/// Terms of an order, which are locked until the quote expires.
#[derive(Serialize, ToSchema)]
#[schema(as = ExchangeQuote)]
struct QuoteBody {
    #[schema(example = "6f1c6f0e-7c1f-4d60-9a52-1c6d7f0a9b3e")]
    quote_id: String,
    #[schema(example = "buy")]
    side: Side,
    /// Price of a unit of crypto in the fiat currency.
    #[schema(value_type = f64, example = 10)]
    price: JsonDecimal,
    #[schema(value_type = f64, example = 0.00)]
    fee: JsonDecimal,
    /// Fiat amount that a buyer pays (fee included) or a seller receives (fee deducted).
    #[schema(value_type = f64, example = 30.00)]
    fiat_amount: JsonDecimal,
    #[schema(value_type = f64, example = 3.0)]
    crypto_amount: JsonDecimal,
    #[schema(example = "2026-01-31T12:00:30.123456Z", format = DateTime)]
    expires_at: String,
}

impl QuoteBody {
    fn new(quote: &ExchangeQuote, pair: Pair) -> Result<Self> {
        let ExchangeQuote { id, terms, expires_at } = quote;
        Ok(Self {
            quote_id: id.to_string(),
            side: terms.side,
            price: decimal(terms.price)?,
            fee: number(terms.fee, pair.fiat)?,
            fiat_amount: number(terms.fiat, pair.fiat)?,
            crypto_amount: number(terms.crypto, pair.crypto)?,
            expires_at: moment(*expires_at)?,
        })
    }
}

/// Create a quote for an order
///
/// Locks the current price for the time that the operator sets with `--quote-lifetime`. Each quote is valid for at
/// most one order.
#[utoipa::path(
    post, path = "/exchange/quote", tag = "exchange", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Not needed: a quote moves no money")),
    request_body = NewQuoteBody<'static>,
    responses((status = 200, description = "The quote", body = QuoteBody), Problems),
)]
async fn create_quote(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    body: UntypedJsonBody,
) -> Result<Json<QuoteBody>> {
    caller.require_user()?;
    let NewQuoteBody { side, fiat_amount, crypto_amount } = body.read()?;
    let mut validator = Validator::default();
    let side = validator.required("/side", &side, |raw| string(raw)?.parse::<Side>());
    let pair = exchange.pair();
    let amount = order_amount(&mut validator, pair, &fiat_amount, &crypto_amount);
    if fiat_amount.raw().is_none() && crypto_amount.raw().is_none() {
        validator.refuse("", "must have fiat_amount or crypto_amount");
    }
    let (side, amount) = validator.finish(side.zip(amount))?;
    let quote = exchange.quote(side, amount, &caller).await?;
    Ok(Json(QuoteBody::new(&quote, pair)?))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = NewExchangeOrder)]
struct NewOrderBody<'a> {
    /// Fiat amount that a buyer pays (fee included) or a seller receives (fee deducted).
    #[serde(borrow, default)]
    #[schema(value_type = Option<f64>, example = 30)]
    fiat_amount: RawField<'a>,
    /// Amount of crypto to buy or sell.
    #[serde(borrow, default)]
    #[schema(value_type = Option<f64>, example = json!(null))]
    crypto_amount: RawField<'a>,
    /// Id of the quote to use. If the request also gives an amount, it must equal the quoted amount.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = json!(null))]
    quote_id: RawField<'a>,
}

/// An order that was placed.
#[derive(Serialize, ToSchema)]
#[schema(as = PlacedExchangeOrder)]
struct PlacedBody {
    #[schema(example = 1)]
    order_id: i64,
    #[schema(example = "OK")]
    status: &'static str,
}

/// Buy crypto
///
/// Holds the fiat amount; the order is then processed in the background. Requires an amount (`fiat_amount` or
/// `crypto_amount`, not both), a `quote_id`, or both.
#[utoipa::path(
    post, path = "/exchange/buy/{user_id}", tag = "exchange", security(("bearer" = [])),
    params(("user_id" = i64, Path, description = "The user", example = 2), IdempotencyKey),
    request_body = NewOrderBody<'static>,
    responses((status = 200, description = "Placed", body = PlacedBody), Problems),
)]
async fn buy_crypto(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: UntypedJsonBody,
) -> Result<Replayable<PlacedBody>> {
    place(&exchange, &caller, (Side::Buy, user), &key, &context, &body).await
}

/// Sell crypto
///
/// Holds the crypto amount; the order is then processed in the background. Requires an amount (`fiat_amount` or
/// `crypto_amount`, not both), a `quote_id`, or both.
#[utoipa::path(
    post, path = "/exchange/sell/{user_id}", tag = "exchange", security(("bearer" = [])),
    params(("user_id" = i64, Path, description = "The user", example = 2), IdempotencyKey),
    request_body = NewOrderBody<'static>,
    responses((status = 200, description = "Placed", body = PlacedBody), Problems),
)]
async fn sell_crypto(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    key: IdempotencyKey,
    Extension(context): Extension<RequestContext>,
    body: UntypedJsonBody,
) -> Result<Replayable<PlacedBody>> {
    place(&exchange, &caller, (Side::Sell, user), &key, &context, &body).await
}

async fn place(
    exchange: &Exchange,
    caller: &Caller,
    (side, user): (Side, UserId),
    key: &IdempotencyKey,
    context: &RequestContext,
    body: &UntypedJsonBody,
) -> Result<Replayable<PlacedBody>> {
    caller.require_user_or_scope(user, Scope::Admin)?;
    let NewOrderBody { fiat_amount, crypto_amount, quote_id } = body.read()?;
    let mut validator = Validator::default();
    let amount = order_amount(&mut validator, exchange.pair(), &fiat_amount, &crypto_amount);
    let quote = validator.optional("/quote_id", &quote_id, |raw| {
        string(raw)?.parse::<Uuid>().map_err(|_| "must be the id of a quote".to_owned())
    });
    if fiat_amount.raw().is_none() && crypto_amount.raw().is_none() && quote_id.raw().is_none() {
        validator.refuse("", "must have fiat_amount, crypto_amount or quote_id");
    }
    validator.finish(Some(()))?;
    let request = OrderRequest { side, user, amount, quote };
    let placed = exchange.place_order(&request, request_meta(caller, key, context)).await?;
    let body = PlacedBody { order_id: placed.id.0, status: "OK" };
    Ok(Replayable::ok(body, placed.replayed))
}

/// Get an order
///
/// Returns an order with its steps. Users can get their own orders; other callers need the scope `admin`.
#[utoipa::path(
    get, path = "/exchange/order/{order_id}", tag = "exchange", security(("bearer" = [])),
    params(("order_id" = i64, Path, description = "The order", example = 1)),
    responses((status = 200, description = "The order", body = OrderBody), Problems),
)]
async fn get_order(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(order): Path<SagaId>,
) -> Result<Json<OrderBody>> {
    let order = exchange.order(order, &caller).await?;
    Ok(Json(OrderBody::new(order, exchange.pair())?))
}

#[derive(Deserialize, IntoParams)]
pub(super) struct OrderListQuery {
    /// Only orders in this state.
    #[param(example = "completed")]
    pub(super) state: Option<String>,
    /// Maximum number of orders in the response.
    #[param(example = 100)]
    pub(super) limit: Option<i64>,
    /// Id of the last order of the previous page.
    #[param(example = json!(null))]
    pub(super) after: Option<String>,
}

impl OrderListQuery {
    pub(super) fn filter(&self) -> Result<OrderListFilter> {
        let state = self.state.as_deref().map(|name| {
            let found = SagaState::ALL.into_iter().find(|state| state.name() == name);
            found.ok_or_else(|| Error::field("?state", "must be a state of orders"))
        });
        let before = self.after.as_deref().map(|after| {
            id(after).ok_or_else(|| Error::field("?after", "must be the id of an order"))
        });
        Ok(OrderListFilter {
            state: state.transpose()?,
            before: before.transpose()?.unwrap_or(i64::MAX),
            limit: page_limit(self.limit)?,
        })
    }

    /// Returns the query string of the next page.
    pub(super) fn next(&self, after: i64, limit: i64) -> String {
        let state = self.state.as_deref().map(|state| format!("&state={state}"));
        format!("?after={after}&limit={limit}{}", state.unwrap_or_default())
    }
}

/// List the orders of a user
///
/// Returns orders with their steps, newest first. Users can list their own orders; other callers need the scope
/// `admin`.
#[utoipa::path(
    get, path = "/exchange/orders/{user_id}", tag = "exchange", security(("bearer" = [])),
    params(("user_id" = i64, Path, description = "The user", example = 2), OrderListQuery),
    responses((status = 200, description = "The orders", body = [OrderBody]), Problems),
)]
async fn list_orders_of_user(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path(user): Path<UserId>,
    Query(query): Query<OrderListQuery>,
) -> Result<Page<OrderBody>> {
    let filter = query.filter()?;
    let orders = exchange.orders_of(user, &filter, &caller).await?;
    let last = last_of_full_page(&orders, filter.limit).map(|order| order.id.0);
    let next =
        last.map(|last| format!("/exchange/orders/{user}{}", query.next(last, filter.limit)));
    let bodies = orders.into_iter().map(|order| OrderBody::new(order, exchange.pair()));
    Ok(Page::new(bodies.collect::<Result<_>>()?, next))
}

//! Routes for operators: `/api/orders` lists and controls the orders of all users, and `/api/hot-wallets` shows the
//! balances of the hot wallets.

use axum::Json;
use axum::extract::{FromRef, State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{OrderBody, StatusBody};
use super::orders::OrderListQuery;
use crate::auth::{Authenticated, Authenticator, Scope, TrustedProxies};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::exchange::hot_wallet::HotWallets;
use crate::exchange::operator::OperatorCommand;
use crate::exchange::terms::Pair;
use crate::http::body::JsonBody;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, Query, RawField, Validator};
use crate::http::fields::{string, text};
use crate::http::origin::Origin;
use crate::http::pagination::{Page, last_of_full_page};
use crate::http::problem::Problems;
use crate::ids::{SagaId, UserId};
use crate::saga::SagaState;
use crate::saga::operator::SagaCommand;
use crate::wallet::http::body::number;

/// Maximum length of an operator's reason for a command, in characters.
const REASON_MAX: usize = 500;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Exchange: FromRef<S>,
    Authenticator: FromRef<S>,
    TrustedProxies: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(list_orders))
        .routes(routes!(command_orders))
        .routes(routes!(command_order))
        .routes(routes!(get_hot_wallets))
}

#[derive(Deserialize, IntoParams)]
struct AllOrdersQuery {
    /// Only orders of this user.
    #[param(example = 2)]
    user: Option<i64>,
    /// Only orders in this state.
    #[param(example = "stuck")]
    state: Option<String>,
    /// Maximum number of orders in the response.
    #[param(example = 100)]
    limit: Option<i64>,
    /// Id of the last order of the previous page.
    #[param(example = json!(null))]
    after: Option<String>,
}

/// List the orders of all users
///
/// Returns orders with their steps, newest first. Requires the scope `admin`.
#[utoipa::path(
    get, path = "/api/orders", tag = "exchange", security(("bearer" = [])),
    params(AllOrdersQuery),
    responses((status = 200, description = "The orders", body = [OrderBody]), Problems),
)]
async fn list_orders(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Query(AllOrdersQuery { user, state, limit, after }): Query<AllOrdersQuery>,
) -> Result<Page<OrderBody>> {
    let list = OrderListQuery { state, limit, after };
    let filter = list.filter()?;
    let orders = exchange.orders(user.map(UserId), &filter, &caller).await?;
    let last = last_of_full_page(&orders, filter.limit).map(|order| order.id.0);
    let user = user.map(|user| format!("&user={user}")).unwrap_or_default();
    let next = last.map(|last| format!("/api/orders{}{user}", list.next(last, filter.limit)));
    let bodies = orders.into_iter().map(|order| OrderBody::new(order, exchange.pair()));
    Ok(Page::new(bodies.collect::<Result<_>>()?, next))
}

/// Name of an operator's command to an order.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[schema(as = OrderCommandName)]
#[serde(rename_all = "snake_case")]
enum CommandName {
    Approve,
    Retry,
    Skip,
    Abort,
    Resolve,
}

/// Outcome of a call to the external exchange or the blockchain, as the operator determined it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = ResolvedOutcome)]
#[serde(rename_all = "kebab-case")]
enum ResolvedOutcome {
    Done,
    NotDone,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = OrderCommand)]
struct CommandBody<'a> {
    /// Reason for the command, which the audit log records.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "confirmed by the exchange")]
    reason: RawField<'a>,
    /// Outcome to set for the call whose outcome is unknown. Required for `resolve`; not allowed for other commands.
    #[serde(borrow, default)]
    #[schema(value_type = Option<ResolvedOutcome>)]
    outcome: RawField<'a>,
}

impl CommandBody<'_> {
    /// Parses the body of the command `name`. Returns the command and its reason.
    fn validate(&self, name: CommandName) -> Result<(SagaCommand, String)> {
        let mut validator = Validator::default();
        let reason = validator.required("/reason", &self.reason, |raw| text(raw, REASON_MAX));
        let outcome = validator.optional("/outcome", &self.outcome, |raw| {
            serde_json::from_str::<ResolvedOutcome>(raw)
                .map_err(|_| "must be done or not-done".to_owned())
        });
        let command = match (name, outcome) {
            (CommandName::Resolve, Some(outcome)) => {
                Some(SagaCommand::Resolve { is_done: outcome == ResolvedOutcome::Done })
            }
            (CommandName::Resolve, None) => {
                validator.refuse("/outcome", "is required");
                None
            }
            (_, Some(_)) => {
                validator.refuse("/outcome", "is for resolve only");
                None
            }
            (CommandName::Approve, None) => Some(SagaCommand::Approve),
            (CommandName::Retry, None) => Some(SagaCommand::Retry),
            (CommandName::Skip, None) => Some(SagaCommand::Skip),
            (CommandName::Abort, None) => Some(SagaCommand::Abort),
        };
        validator.finish(command.zip(reason))
    }
}

/// Send a command to an order
///
/// Requires the scope `admin`. `approve` starts an order that is waiting for approval. `retry` tries the current step,
/// or its undo, again. If an order is stuck because a step cannot be undone, undo the step by hand, and then use `skip`
/// to skip the undo. `abort` gives up an order and undoes its steps. If the outcome of a call to the external exchange
/// or to the blockchain is unknown, `resolve` records whether the call took effect.
#[utoipa::path(
    post, path = "/api/orders/{order_id}/{command}", tag = "exchange", security(("bearer" = [])),
    params(
        ("order_id" = i64, Path, description = "The order", example = 1),
        ("command" = CommandName, Path, description = "The command"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not needed: a command that no longer applies is refused"),
    ),
    request_body = CommandBody<'static>,
    responses((status = 200, description = "The command was applied", body = StatusBody), Problems),
)]
async fn command_order(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    Path((order, name)): Path<(SagaId, CommandName)>,
    origin: Origin,
    body: JsonBody,
) -> Result<Json<StatusBody>> {
    caller.require_scope(Scope::Admin)?;
    let (command, reason) = body.read::<CommandBody<'_>>()?.validate(name)?;
    let command =
        OperatorCommand { command, reason: &reason, caller: &caller, origin: Some(origin) };
    exchange.command(order, &command).await?;
    Ok(Json(StatusBody::OK))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = BulkOrderCommand)]
struct BulkCommandBody<'a> {
    /// State of the orders that receive the command.
    #[serde(borrow, default)]
    #[schema(required, value_type = SagaState)]
    state: RawField<'a>,
    /// Command to send. `resolve` is not allowed, because each order can have a different outcome.
    #[serde(borrow, default)]
    #[schema(required, value_type = CommandName)]
    command: RawField<'a>,
    /// Reason for the command, which the audit log records.
    #[serde(borrow, default)]
    #[schema(required, value_type = String, example = "the exchange is back")]
    reason: RawField<'a>,
}

/// Ids of the orders to which a command was applied.
#[derive(Serialize, ToSchema)]
#[schema(as = CommandedOrders)]
pub(in crate::exchange) struct CommandedBody {
    #[schema(example = json!([1, 2]))]
    orders: Vec<i64>,
}

impl From<Vec<SagaId>> for CommandedBody {
    fn from(taken: Vec<SagaId>) -> Self {
        Self { orders: taken.into_iter().map(|order| order.0).collect() }
    }
}

/// Send a command to many orders
///
/// Requires the scope `admin`. Applies a command, such as `retry`, to at most 1000 open orders in the given state.
/// Skips orders to which the command cannot be applied.
#[utoipa::path(
    post, path = "/api/orders/commands", tag = "exchange", security(("bearer" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Not needed: a command that no longer applies is refused")),
    request_body = BulkCommandBody<'static>,
    responses((status = 200, description = "Orders to which the command was applied", body = CommandedBody), Problems),
)]
async fn command_orders(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
    origin: Origin,
    body: JsonBody,
) -> Result<Json<CommandedBody>> {
    caller.require_scope(Scope::Admin)?;
    let BulkCommandBody { state, command, reason } = body.read()?;
    let mut validator = Validator::default();
    let state = validator.required("/state", &state, |raw| {
        let name = string(raw)?;
        let found = SagaState::ALL.into_iter().find(|state| state.name() == name);
        found
            .filter(|state| !state.is_over())
            .ok_or_else(|| "must be a state of open orders".to_owned())
    });
    let command = validator.required("/command", &command, |raw| match &*string(raw)? {
        "approve" => Ok(SagaCommand::Approve),
        "retry" => Ok(SagaCommand::Retry),
        "skip" => Ok(SagaCommand::Skip),
        "abort" => Ok(SagaCommand::Abort),
        _ => Err("must be approve, retry, skip or abort".to_owned()),
    });
    let reason = validator.required("/reason", &reason, |raw| text(raw, REASON_MAX));
    let (state, (command, reason)) = validator.finish(state.zip(command.zip(reason)))?;
    let command =
        OperatorCommand { command, reason: &reason, caller: &caller, origin: Some(origin) };
    let taken = exchange.command_all(state, &command).await?;
    Ok(Json(taken.into()))
}

/// Balances of the hot wallets.
#[derive(Serialize, ToSchema)]
#[schema(as = HotWallets)]
pub(in crate::exchange) struct HotWalletsBody {
    #[schema(value_type = f64, example = 1000.00)]
    fiat_amount: JsonDecimal,
    #[schema(value_type = f64, example = 12.5)]
    crypto_amount: JsonDecimal,
    /// Currency of the fiat amount.
    #[schema(example = "EUR")]
    currency: String,
}

impl HotWalletsBody {
    pub(in crate::exchange) fn new(hot: HotWallets, pair: Pair) -> Result<Self> {
        Ok(Self {
            fiat_amount: number(hot.fiat, pair.fiat)?,
            crypto_amount: number(hot.crypto, pair.crypto)?,
            currency: pair.fiat.code().to_owned(),
        })
    }
}

/// Get the hot wallet balances
///
/// Returns the balances of the exchange's own fiat and crypto accounts, from which it pays for orders. Requires the
/// scope `wallet:read`.
#[utoipa::path(
    get, path = "/api/hot-wallets", tag = "exchange", security(("bearer" = [])),
    responses((status = 200, description = "The balances", body = HotWalletsBody), Problems),
)]
async fn get_hot_wallets(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
) -> Result<Json<HotWalletsBody>> {
    let hot = exchange.hot_wallets(&caller).await?;
    Ok(Json(HotWalletsBody::new(hot, exchange.pair())?))
}

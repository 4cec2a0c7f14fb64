//! Route `/exchange/info`, which returns the currencies, the fee and the limits of the exchange.

use axum::Json;
use axum::extract::{FromRef, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticated, Authenticator, Scope};
use crate::error::Result;
use crate::exchange::Exchange;
use crate::http::decimal::JsonDecimal;
use crate::http::problem::Problems;
use crate::ledger::money::Minor;
use crate::wallet::http::body::number;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Exchange: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(get_exchange_info))
}

/// Currencies, fee and limits of the exchange. Limits are in the fiat currency; null means no limit.
#[derive(Serialize, ToSchema)]
#[schema(as = ExchangeInfo)]
struct InfoBody {
    #[schema(example = "EUR")]
    fiat_currency: String,
    #[schema(example = "BTC")]
    crypto_currency: String,
    /// Fee, as a percentage of the traded amount.
    #[schema(value_type = f64, example = 0)]
    fee_percent: JsonDecimal,
    /// Smallest allowed amount of an order.
    #[schema(required, value_type = Option<f64>, example = json!(null))]
    min: Option<JsonDecimal>,
    /// Largest allowed amount of an order.
    #[schema(required, value_type = Option<f64>, example = json!(null))]
    max: Option<JsonDecimal>,
    /// Amount above which an order waits for an operator's approval.
    #[schema(required, value_type = Option<f64>, example = json!(null))]
    approval: Option<JsonDecimal>,
    /// Whether the caller may deposit fiat money.
    #[schema(example = true)]
    may_deposit: bool,
}

/// Get currencies, fee and limits
#[utoipa::path(
    get, path = "/exchange/info", tag = "about", security(("bearer" = [])),
    responses((status = 200, description = "Currencies, fee and limits of the exchange", body = InfoBody), Problems),
)]
async fn get_exchange_info(
    State(exchange): State<Exchange>,
    Authenticated(caller): Authenticated,
) -> Result<Json<InfoBody>> {
    let pair = exchange.pair();
    let limits = &exchange.limits;
    let fee = JsonDecimal::new(exchange.settings.exchange_fee.percent());
    let amount = |limit: Option<Minor>| limit.map(|limit| number(limit, pair.fiat)).transpose();
    let is_self_service = caller.policy().self_service_funding && caller.user_id().is_some();
    Ok(Json(InfoBody {
        fiat_currency: pair.fiat.code().to_owned(),
        crypto_currency: pair.crypto.code().to_owned(),
        fee_percent: fee?,
        min: amount(limits.min)?,
        max: amount(limits.max)?,
        approval: amount(limits.approval)?,
        may_deposit: is_self_service || caller.has_scope(Scope::WalletWrite),
    }))
}

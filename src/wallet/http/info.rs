//! `/wallet/info`: the supported currencies, and the address of Grafana, which shows traces.

use axum::Json;
use axum::extract::{FromRef, State};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticator, Caller};
use crate::error::Result;
use crate::http::problem::Problems;
use crate::wallet::Wallets;

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(get_wallet_info))
}

/// A supported currency.
#[derive(Serialize, ToSchema)]
#[schema(as = SupportedCurrency)]
struct CurrencyBody {
    #[schema(example = "EUR")]
    code: String,
    /// Number of decimal places of amounts in this currency.
    #[schema(example = 2)]
    decimals: u8,
}

/// The currencies that wallets can have, and the address of Grafana, which shows traces.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletInfo)]
struct WalletInfoBody {
    /// Currency that applies if a request names none.
    #[schema(example = "EUR")]
    default_currency: String,
    /// The supported currencies, sorted by their codes.
    currencies: Vec<CurrencyBody>,
    /// Address of Grafana, which shows traces: a URL, or a path on this host; null if no Grafana is configured.
    #[schema(required, example = "/grafana")]
    grafana_url: Option<String>,
}

/// Get the supported currencies
///
/// Requires the permission to list wallets.
#[utoipa::path(
    get, path = "/wallet/info", tag = "about",
    responses((status = 200, description = "The currencies", body = WalletInfoBody), Problems),
)]
async fn get_wallet_info(
    State(wallets): State<Wallets>,
    caller: Caller,
) -> Result<Json<WalletInfoBody>> {
    caller.require_visibility()?;
    let currencies = wallets.currencies().all().into_iter().map(|currency| CurrencyBody {
        code: currency.code().to_owned(),
        decimals: currency.decimals(),
    });
    Ok(Json(WalletInfoBody {
        default_currency: wallets.default_currency().code().to_owned(),
        currencies: currencies.collect(),
        grafana_url: wallets.grafana_url().map(ToOwned::to_owned),
    }))
}

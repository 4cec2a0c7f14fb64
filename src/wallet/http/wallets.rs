//! `GET` routes under `/wallet`: list wallets, get a wallet, and get its current or past balance.

use axum::Json;
use axum::extract::{FromRef, State};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::number;
use crate::auth::{Authenticator, Caller};
use crate::error::{Error, Result};
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, Query};
use crate::http::fields::{moment, parse_moment};
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::{ArchiveProblem, Problems};
use crate::ids::WalletId;
use crate::ledger::account::AccountState;
use crate::wallet::Wallets;
use crate::wallet::read::{WalletBalance, WalletDetail, WalletFilter};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new()
        .routes(routes!(list_wallets))
        .routes(routes!(get_wallet))
        .routes(routes!(get_balance))
}

/// A wallet with its current balance, or with its balance at the requested time.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletListed)]
struct WalletBalanceBody {
    #[schema(value_type = f64, example = 999.00)]
    balance: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "1")]
    id: String,
    #[schema(example = "test2")]
    owner: String,
    /// Id of the last transfer that the balance includes, if a past balance was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "17")]
    as_of: Option<String>,
    /// Time of the balance, if a past balance was requested. The time is earlier than requested if the server may still
    /// commit transfers that are dated before the requested time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-31T12:00:00Z", format = DateTime)]
    as_of_at: Option<String>,
}

impl TryFrom<&WalletBalance> for WalletBalanceBody {
    type Error = Error;

    fn try_from(wallet: &WalletBalance) -> Result<Self> {
        let currency = wallet.record.currency;
        Ok(Self {
            balance: number(wallet.total()?, currency)?,
            currency: currency.code().to_owned(),
            id: wallet.id.to_string(),
            owner: wallet.record.owner.clone(),
            as_of: wallet.as_of.map(|as_of| as_of.seq.to_string()),
            as_of_at: wallet.as_of.map(|as_of| moment(as_of.at)).transpose()?,
        })
    }
}

/// A wallet with all its details.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletDetail)]
pub(super) struct WalletDetailBody {
    #[schema(value_type = f64, example = 999.00)]
    balance: JsonDecimal,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "1")]
    id: String,
    #[schema(example = "test2")]
    owner: String,
    /// The part of the balance that can be spent.
    #[schema(value_type = f64, example = 899.00)]
    available: JsonDecimal,
    /// The part of the balance that is reserved by holds.
    #[schema(value_type = f64, example = 100.00)]
    held: JsonDecimal,
    /// State of the wallet. Money can enter a frozen wallet, but cannot leave it.
    #[schema(value_type = AccountState)]
    state: &'static str,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    created_at: String,
    /// Time when the wallet was closed; null if it is not closed.
    #[schema(required, format = DateTime)]
    closed_at: Option<String>,
    #[schema(required, example = "savings")]
    label: Option<String>,
    #[schema(required, value_type = Option<Object>, example = json!({ "tier": "gold" }))]
    metadata: Option<Box<RawValue>>,
}

impl TryFrom<(WalletBalance, WalletDetail)> for WalletDetailBody {
    type Error = Error;

    fn try_from((wallet, detail): (WalletBalance, WalletDetail)) -> Result<Self> {
        let currency = wallet.record.currency;
        let metadata = detail.metadata.map(RawValue::from_string).transpose();
        let WalletBalanceBody { balance, currency: code, id, owner, .. } =
            WalletBalanceBody::try_from(&wallet)?;
        Ok(Self {
            balance,
            currency: code,
            id,
            owner,
            available: number(wallet.available, currency)?,
            held: number(wallet.held, currency)?,
            state: detail.state.name(),
            created_at: moment(detail.created_at)?,
            closed_at: detail.closed_at.map(moment).transpose()?,
            label: detail.label,
            metadata: metadata.map_err(|cause| Error::Internal(cause.into()))?,
        })
    }
}

#[derive(Deserialize, IntoParams)]
struct ListWalletsQuery {
    /// Only wallets with this owner.
    owner: Option<String>,
    /// Only wallets in this currency.
    currency: Option<String>,
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the `Link` header of the previous page.
    after: Option<i64>,
    /// Include closed wallets.
    closed: Option<bool>,
}

/// List wallets
#[utoipa::path(
    get, path = "/wallet", tag = "wallet", params(ListWalletsQuery),
    responses(
        (status = 200, description = "Wallets, sorted by id; the `Link` header has the URL of the next page", body = [WalletBalanceBody]),
        Problems,
    ),
)]
async fn list_wallets(
    State(wallets): State<Wallets>,
    caller: Caller,
    Query(query): Query<ListWalletsQuery>,
) -> Result<Page<WalletBalanceBody>> {
    let ListWalletsQuery { owner, currency, limit, after, closed } = query;
    let limit = page_limit(limit)?;
    let (owner, currency) = (owner.as_deref(), currency.as_deref());
    let include_closed = closed.unwrap_or(false);
    let after = after.unwrap_or(0);
    let filter = WalletFilter { owner, currency, include_closed, after, limit };
    let found = wallets.list(&caller, filter).await?;
    let next = last_of_full_page(&found, limit).map(|last| {
        let mut next = format!("/wallet?limit={limit}&after={}", last.id);
        for (name, value) in [("owner", owner), ("currency", currency)] {
            if let Some(value) = value {
                next.extend(["&", name, "="]);
                next.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        next + if include_closed { "&closed=true" } else { "" }
    });
    Ok(Page::new(found.iter().map(WalletBalanceBody::try_from).collect::<Result<_>>()?, next))
}

/// Get a wallet
#[utoipa::path(
    get, path = "/wallet/{id}", tag = "wallet",
    params(("id" = String, Path, description = "Id of the wallet", example = "1")),
    responses(
        (status = 200, description = "The wallet", body = WalletDetailBody),
        Problems,
    ),
)]
async fn get_wallet(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<WalletId>,
) -> Result<Json<WalletDetailBody>> {
    Ok(Json(wallets.detail(&caller, id).await?.try_into()?))
}

#[derive(Deserialize, IntoParams)]
struct BalanceQuery {
    /// A time in the past, as RFC 3339. The member `as_of` of the response is the id of the last transfer up to that
    /// time.
    #[param(example = "2026-01-31T12:00:00Z")]
    at: Option<String>,
}

/// Get a balance
///
/// Returns the current balance of a wallet, or its balance at a time in the past.
#[utoipa::path(
    get, path = "/wallet/balance/{id}", tag = "wallet",
    params(("id" = String, Path, description = "Id of the wallet", example = "1"), BalanceQuery),
    responses(
        (status = 200, description = "The wallet", body = WalletBalanceBody),
        Problems,
        ArchiveProblem,
    ),
)]
async fn get_balance(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<BalanceQuery>,
) -> Result<Json<WalletBalanceBody>> {
    let moment = parse_moment("?at", query.at.as_deref())?;
    let wallet = wallets.balance(&caller, id, moment).await?;
    Ok(Json(WalletBalanceBody::try_from(&wallet)?))
}

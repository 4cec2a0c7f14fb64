//! Looking at wallets: one or many, now or as they were.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{link_next, moment, number, page_limit, parse_moment, percent};
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::problem::ProblemBody;
use crate::wallet::WalletId;
use crate::wallet::read::{Detail, Holdings, Wanted};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_wallets))
        .routes(routes!(get_wallet))
        .routes(routes!(get_balance))
}

/// A wallet in a list, or at a moment.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletListed)]
struct BriefBody {
    #[schema(value_type = f64, example = 999.00)]
    balance: Box<RawValue>,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "1")]
    id: String,
    #[schema(example = "test2")]
    owner: String,
    /// The last transfer that the balance takes into account, when a moment was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "17")]
    as_of: Option<String>,
}

impl BriefBody {
    fn of(wallet: &Holdings) -> Result<Self> {
        let currency = wallet.facts.currency;
        Ok(Self {
            balance: number(wallet.balance()?, currency)?,
            currency: currency.code().to_owned(),
            id: wallet.id.to_string(),
            owner: wallet.facts.owner.clone(),
            as_of: wallet.as_of.map(|seq| seq.to_string()),
        })
    }
}

/// A wallet, looked at by itself.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletDetail)]
pub(super) struct DetailBody {
    #[schema(value_type = f64, example = 999.00)]
    balance: Box<RawValue>,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "1")]
    id: String,
    #[schema(example = "test2")]
    owner: String,
    /// What can be spent: the balance without what is held.
    #[schema(value_type = f64, example = 899.00)]
    available: Box<RawValue>,
    /// What is set aside by holds.
    #[schema(value_type = f64, example = 100.00)]
    held: Box<RawValue>,
    /// `open`, `frozen` (money only comes in) or `closed`.
    #[schema(example = "open")]
    state: &'static str,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    created_at: String,
    /// Null while it is not closed.
    closed_at: Option<String>,
    #[schema(example = "savings")]
    label: Option<String>,
    #[schema(value_type = Option<Object>, example = json!({ "tier": "gold" }))]
    metadata: Option<Box<RawValue>>,
}

impl DetailBody {
    fn of(wallet: &Holdings, detail: Detail) -> Result<Self> {
        let currency = wallet.facts.currency;
        let metadata = detail.metadata.map(RawValue::from_string).transpose();
        let BriefBody { balance, currency: code, id, owner, .. } = BriefBody::of(wallet)?;
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
struct ListQuery {
    /// Only wallets of this owner.
    owner: Option<String>,
    /// Only wallets in this currency.
    currency: Option<String>,
    /// Most wallets of the answer: 1 to 1000, by default 100.
    limit: Option<i64>,
    /// Where the last page ended; take it from the header `Link`.
    after: Option<WalletId>,
    /// Also those that are closed.
    closed: Option<bool>,
}

/// List wallets
#[utoipa::path(
    get, path = "/wallet", tag = "wallet", params(ListQuery),
    responses(
        (status = 200, description = "In the order of their ids; `Link` has the next page", body = [BriefBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_wallets(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let ListQuery { owner, currency, limit, after, closed } = query;
    let closed_too = closed.unwrap_or(false);
    let limit = page_limit(limit)?;
    let (owner, currency) = (owner.as_deref(), currency.as_deref());
    let after = after.unwrap_or(0);
    let wanted = Wanted { owner, currency, closed_too, after, limit };
    let wallets = app.wallets.list(wanted, caller.sight()?).await?;
    let bodies = wallets.iter().map(BriefBody::of).collect::<Result<Vec<_>>>()?;
    let mut response = axum::Json(bodies).into_response();
    if let Some(last) = wallets.last().filter(|_| i64::try_from(wallets.len()) == Ok(limit)) {
        let mut next = format!("/wallet?limit={limit}&after={}", last.id);
        for (name, value) in [("owner", owner), ("currency", currency)] {
            if let Some(value) = value {
                next.extend([format!("&{name}="), percent(value)]);
            }
        }
        if closed_too {
            next.push_str("&closed=true");
        }
        link_next(&mut response, &next);
    }
    Ok(response)
}

/// Look at a wallet
#[utoipa::path(
    get, path = "/wallet/{id}", tag = "wallet",
    params(("id" = String, Path, description = "The wallet", example = "1")),
    responses(
        (status = 200, description = "The wallet", body = DetailBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_wallet(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<WalletId>,
) -> Result<Response> {
    app.wallets.seen_by(&caller, id).await?;
    detail(&app, id).await
}

pub(super) async fn detail(app: &App, id: WalletId) -> Result<Response> {
    let wallet = app.wallets.get(id, None).await?;
    let detail = app.wallets.detail(id).await?;
    Ok(axum::Json(DetailBody::of(&wallet, detail)?).into_response())
}

#[derive(Deserialize, IntoParams)]
struct BalanceQuery {
    /// A moment in the past, as RFC 3339; the answer's `as_of` says which transfer was the last then.
    #[param(example = "2026-01-31T12:00:00Z")]
    at: Option<String>,
}

/// The balance of a wallet, now or at a moment
#[utoipa::path(
    get, path = "/wallet/balance/{id}", tag = "wallet",
    params(("id" = String, Path, description = "The wallet", example = "1"), BalanceQuery),
    responses(
        (status = 200, description = "The wallet", body = BriefBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_balance(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<BalanceQuery>,
) -> Result<Response> {
    app.wallets.seen_by(&caller, id).await?;
    let wallet = app.wallets.get(id, parse_moment("?at", query.at)?).await?;
    Ok(axum::Json(BriefBody::of(&wallet)?).into_response())
}

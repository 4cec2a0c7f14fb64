//! Looking: one wallet, many, as they were, and what happened to them.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::number;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::problem::ProblemBody;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::{self, Entry};
use crate::wallet::WalletId;
use crate::wallet::read::Holdings;

/// Entries of a page when nobody says how many.
const PAGE_DEFAULT: i64 = 100;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_wallets))
        .routes(routes!(get_wallet))
        .routes(routes!(get_balance))
        .routes(routes!(get_history))
}

/// A wallet in an answer that looks at it.
#[derive(Serialize, ToSchema)]
#[schema(as = WalletDetail)]
struct DetailBody {
    #[schema(value_type = f64, example = 999.00)]
    balance: Box<RawValue>,
    #[schema(example = "EUR")]
    currency: String,
    #[schema(example = "1")]
    id: String,
    #[schema(example = "test2")]
    owner: String,
    /// What can be spent: the balance without what is held.
    #[schema(value_type = f64, example = 999.00)]
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<Box<RawValue>>,
    #[schema(value_type = f64, example = 0.00)]
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<Box<RawValue>>,
    /// The last transfer that the balance takes into account, when a moment was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "17")]
    as_of: Option<String>,
}

impl DetailBody {
    fn of(wallet: &Holdings, detailed: bool) -> Result<Self> {
        let currency = wallet.facts.currency;
        let detail = |minor| detailed.then(|| number(minor, currency)).transpose();
        Ok(Self {
            balance: number(wallet.balance()?, currency)?,
            currency: currency.code().to_owned(),
            id: wallet.id.to_string(),
            owner: wallet.facts.owner.clone(),
            available: detail(wallet.available)?,
            held: detail(wallet.held)?,
            as_of: wallet.as_of.map(|seq| seq.to_string()),
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
}

/// List wallets
#[utoipa::path(
    get, path = "/wallet", tag = "wallet", params(ListQuery),
    responses(
        (status = 200, description = "In the order of their ids; `Link` has the next page", body = [DetailBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn list_wallets(
    State(app): State<App>,
    _: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let ListQuery { owner, currency, limit, after } = query;
    let limit = page_limit(limit)?;
    let (owner, currency) = (owner.as_deref(), currency.as_deref());
    let wallets = app.wallets.list(owner, currency, after.unwrap_or(0), limit).await?;
    let bodies =
        wallets.iter().map(|wallet| DetailBody::of(wallet, false)).collect::<Result<Vec<_>>>()?;
    let mut response = axum::Json(bodies).into_response();
    if let Some(last) = wallets.last().filter(|_| i64::try_from(wallets.len()) == Ok(limit)) {
        let mut next = format!("/wallet?limit={limit}&after={}", last.id);
        for (name, value) in [("owner", owner), ("currency", currency)] {
            if let Some(value) = value {
                next.extend([format!("&{name}="), percent(value)]);
            }
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
    _: Caller,
    Path(id): Path<WalletId>,
) -> Result<Response> {
    let wallet = app.wallets.get(id, None).await?;
    Ok(axum::Json(DetailBody::of(&wallet, true)?).into_response())
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
        (status = 200, description = "The wallet", body = DetailBody),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_balance(
    State(app): State<App>,
    _: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<BalanceQuery>,
) -> Result<Response> {
    let moment = query.at.map(|at| OffsetDateTime::parse(&at, &Rfc3339)).transpose();
    let moment = moment
        .map_err(|_| Error::field("?at", "must be RFC 3339, such as 2026-01-31T12:00:00Z"))?;
    let wallet = app.wallets.get(id, moment).await?;
    Ok(axum::Json(DetailBody::of(&wallet, false)?).into_response())
}

/// One line of a wallet's history.
#[derive(Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
struct EntryBody {
    /// The transfer.
    #[schema(example = "17")]
    id: String,
    #[schema(example = "deposit")]
    kind: &'static str,
    #[schema(example = "2026-01-31T12:00:00Z")]
    at: String,
    /// `in`, `out`, or `none` where only the state changed.
    #[schema(example = "in")]
    direction: &'static str,
    /// The other wallet; nothing for the world outside.
    #[schema(example = "2")]
    counterparty: Option<String>,
    #[schema(value_type = f64, example = 100.00)]
    amount: Box<RawValue>,
    /// What could be spent after it.
    #[schema(value_type = f64, example = 1099.00)]
    available: Box<RawValue>,
    /// Finds the request that made it in logs and traces.
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: Option<String>,
}

impl EntryBody {
    fn of(entry: &Entry, currency: Currency) -> Result<Self> {
        let (direction, amount) = match entry.change.0 {
            0 => ("none", entry.change),
            change if change > 0 => ("in", entry.change),
            change => ("out", Minor(change.saturating_neg())),
        };
        Ok(Self {
            id: entry.transfer.to_string(),
            kind: entry.kind.name(),
            at: entry.at.format(&Rfc3339).map_err(|cause| Error::Internal(cause.into()))?,
            direction,
            counterparty: (entry.counterparty.0 > 0 && direction != "none")
                .then(|| entry.counterparty.to_string()),
            amount: number(amount, currency)?,
            available: number(entry.balance, currency)?,
            trace_id: entry.trace_id.map(|id| id.simple().to_string()),
        })
    }
}

#[derive(Deserialize, IntoParams)]
struct HistoryQuery {
    /// Most entries of the answer: 1 to 1000, by default 100.
    limit: Option<i64>,
    /// Where the last page ended; take it from the header `Link`.
    after: Option<i64>,
}

/// What happened to a wallet, newest first
#[utoipa::path(
    get, path = "/wallet/{id}/history", tag = "wallet",
    params(("id" = String, Path, description = "The wallet", example = "1"), HistoryQuery),
    responses(
        (status = 200, description = "`Link` has the next page", body = [EntryBody]),
        (status = "4XX", description = "Not done", body = ProblemBody<'static>, content_type = "application/problem+json"),
    ),
)]
async fn get_history(
    State(app): State<App>,
    _: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response> {
    let limit = page_limit(query.limit)?;
    let (facts, entries) = app.wallets.history(id, query.after.unwrap_or(read::END), limit).await?;
    let bodies = entries.iter().map(|entry| EntryBody::of(entry, facts.currency));
    let mut response = axum::Json(bodies.collect::<Result<Vec<_>>>()?).into_response();
    if let Some(last) = entries.last().filter(|_| i64::try_from(entries.len()) == Ok(limit)) {
        link_next(&mut response, &format!("/wallet/{id}/history?limit={limit}&after={}", last.seq));
    }
    Ok(response)
}

fn page_limit(limit: Option<i64>) -> Result<i64> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=read::PAGE_MAX => Ok(limit),
        _ => Err(Error::field("?limit", "must be from 1 to 1000")),
    }
}

fn link_next(response: &mut Response, path: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("<{path}>; rel=\"next\"")) {
        response.headers_mut().insert(header::LINK, value);
    }
}

/// For a query: everything but letters and digits as `%XX`.
fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

//! `/wallet/{id}/history`: what happened to a wallet.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::{link_next, moment, number, page_limit, parse_moment, percent};
use crate::app::App;
use crate::error::Result;
use crate::http::auth::Caller;
use crate::http::extract::{Path, Query};
use crate::http::problem::ProblemBody;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::{self, Entry, Span};
use crate::ledger::transfer::Kind;
use crate::wallet::WalletId;
use crate::wallet::transfer::{Note, wallet_of};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_history))
}

/// One line of a wallet's history.
#[derive(Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
pub(super) struct EntryBody {
    /// Of the transfer.
    #[schema(example = "17")]
    pub(super) id: String,
    #[schema(example = "transfer")]
    pub(super) kind: &'static str,
    #[schema(example = "2026-01-31T12:00:00.123456Z")]
    pub(super) at: String,
    /// `in` or `out`; `held` or `released` where the balance stays; `none` where only the state changed.
    #[schema(example = "in")]
    pub(super) direction: &'static str,
    /// The other wallet; null for the world outside.
    #[schema(example = "2")]
    pub(super) counterparty: Option<String>,
    #[schema(value_type = f64, example = 100.00)]
    pub(super) amount: Box<RawValue>,
    /// What the owner had after it, held or not.
    #[schema(value_type = f64, example = 1099.00)]
    pub(super) balance: Box<RawValue>,
    /// What could be spent after it.
    #[schema(value_type = f64, example = 1099.00)]
    pub(super) available: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "for the coffee")]
    pub(super) memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({ "order": 7 }))]
    metadata: Option<Box<RawValue>>,
    /// The transfer that it completes or undoes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "12")]
    linked: Option<String>,
    /// Finds the request that made it in logs and traces.
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    pub(super) trace_id: Option<String>,
}

impl EntryBody {
    pub(super) fn of(entry: &Entry, wallet: WalletId, currency: Currency) -> Result<Self> {
        let account = AccountId(wallet);
        let (direction, other) = match entry.kind {
            kind if !kind.moves_money() => ("none", account),
            Kind::Hold => ("held", account),
            _ if entry.credit == account && entry.debit.held_for() == Some(account) => {
                ("released", account)
            }
            _ if entry.credit == account => ("in", entry.debit),
            _ => ("out", entry.credit),
        };
        let balance = entry.available.checked_add(entry.held).unwrap_or(Minor::ZERO);
        let Note { memo, metadata } = Note::read(entry.metadata.as_deref());
        Ok(Self {
            id: entry.transfer.to_string(),
            kind: entry.kind.name(),
            at: moment(entry.at)?,
            direction,
            counterparty: wallet_of(other)
                .filter(|other| *other != wallet)
                .map(|other| other.to_string()),
            amount: number(entry.amount, currency)?,
            balance: number(balance, currency)?,
            available: number(entry.available, currency)?,
            memo,
            metadata,
            linked: entry.linked.map(|id| id.to_string()),
            trace_id: entry.trace_id.map(|id| id.simple().to_string()),
        })
    }
}

#[derive(Deserialize, IntoParams)]
struct HistoryQuery {
    /// Not before this moment, as RFC 3339.
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// Before this moment, as RFC 3339.
    #[param(example = "2026-02-01T00:00:00Z")]
    to: Option<String>,
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
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response> {
    let HistoryQuery { from: from_text, to: to_text, limit, after } = query;
    let limit = page_limit(limit)?;
    let from = parse_moment("?from", from_text.clone())?;
    let to = parse_moment("?to", to_text.clone())?;
    let facts = app.wallets.seen_by(&caller, id).await?;
    let (from, before) = match (from, to) {
        (None, None) => (0, read::END),
        (from, to) => app.wallets.between(from, to).await?,
    };
    let before = after.map_or(before, |after| after.min(before));
    let span = Span { from, before, oldest_first: false, limit };
    let entries = app.wallets.history(id, span).await?;
    let bodies = entries.iter().map(|entry| EntryBody::of(entry, id, facts.currency));
    let mut response = axum::Json(bodies.collect::<Result<Vec<_>>>()?).into_response();
    if let Some(last) = entries.last().filter(|_| i64::try_from(entries.len()) == Ok(limit)) {
        let mut next = format!("/wallet/{id}/history?limit={limit}&after={}", last.seq);
        for (name, value) in [("from", from_text), ("to", to_text)] {
            if let Some(value) = value {
                next.extend([format!("&{name}="), percent(&value)]);
            }
        }
        link_next(&mut response, &next);
    }
    Ok(response)
}

//! `/wallet/{id}/history`: the transfers of a wallet.

use axum::extract::{FromRef, State};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::body::number;
use crate::auth::{Authenticator, Caller};
use crate::error::Result;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{Path, Query};
use crate::http::fields::{moment, parse_moment};
use crate::http::pagination::{Page, last_of_full_page, page_limit};
use crate::http::problem::{ArchiveProblem, Problems};
use crate::ids::WalletId;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::{HistoryEntry, HistoryPage};
use crate::ledger::transfer::TransferKind;
use crate::wallet::Wallets;
use crate::wallet::history::HistoryQuery;
use crate::wallet::transfer::{Note, wallet_of};

pub(super) fn routes<S>() -> OpenApiRouter<S>
where
    Wallets: FromRef<S>,
    Authenticator: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    OpenApiRouter::new().routes(routes!(list_history))
}

/// Direction in which the money moved, from the wallet's point of view.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = HistoryDirection)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    In,
    Out,
    /// A hold reserved the money; the balance stays the same.
    Held,
    /// A hold released the money; the balance stays the same.
    Released,
    /// Only the state of the wallet changed.
    None,
}

impl Direction {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Held => "held",
            Self::Released => "released",
            Self::None => "none",
        }
    }
}

/// An entry of a wallet's history.
#[derive(Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
pub(super) struct HistoryEntryBody {
    /// Id of the transfer.
    #[schema(example = "17")]
    pub(super) id: String,
    #[schema(value_type = TransferKind)]
    pub(super) kind: &'static str,
    #[schema(example = "2026-01-31T12:00:00.123456Z", format = DateTime)]
    pub(super) at: String,
    /// Direction in which the money moved. `held` and `released` do not change the balance; `none` means that only the
    /// state of the wallet changed.
    pub(super) direction: Direction,
    /// Id of the other wallet of the transfer; null if there is none, for example for a deposit.
    #[schema(required, example = "2")]
    pub(super) counterparty: Option<String>,
    #[schema(value_type = f64, example = 100.00)]
    pub(super) amount: JsonDecimal,
    /// Balance of the wallet after the transfer.
    #[schema(value_type = f64, example = 1099.00)]
    pub(super) balance: JsonDecimal,
    /// Part of the balance that could be spent after the transfer.
    #[schema(value_type = f64, example = 1099.00)]
    pub(super) available: JsonDecimal,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "for the coffee")]
    pub(super) memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>, example = json!({ "order": 7 }))]
    metadata: Option<Box<RawValue>>,
    /// Id of the earlier transfer, such as a hold, that this transfer completes or refunds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "12")]
    linked: Option<String>,
    /// Trace id of the request that made the transfer, for finding the request in logs and traces.
    #[schema(required, example = "0af7651916cd43dd8448eb211c80319c")]
    pub(super) trace_id: Option<String>,
}

impl HistoryEntryBody {
    pub(super) fn new(entry: &HistoryEntry, wallet: WalletId, currency: Currency) -> Result<Self> {
        let account = AccountId::from(wallet);
        let (direction, other) = match entry.kind {
            kind if !kind.moves_money() => (Direction::None, account),
            TransferKind::Hold => (Direction::Held, account),
            _ if entry.credit == account && entry.debit.held_for() == Some(account) => {
                (Direction::Released, account)
            }
            _ if entry.credit == account => (Direction::In, entry.debit),
            _ => (Direction::Out, entry.credit),
        };
        let balance = entry.available.checked_add(entry.held).unwrap_or(Minor::ZERO);
        let Note { memo, metadata } = Note::from_stored(entry.metadata.as_deref());
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
struct ListHistoryQuery {
    /// Only entries at or after this moment, as RFC 3339.
    #[param(example = "2026-01-01T00:00:00Z")]
    from: Option<String>,
    /// Only entries before this moment, as RFC 3339.
    #[param(example = "2026-02-01T00:00:00Z")]
    to: Option<String>,
    /// Page size, 1 to 1000; 100 by default.
    limit: Option<i64>,
    /// Cursor after which the page begins. Take it from the `Link` header of the previous page.
    after: Option<i64>,
}

/// List the history of a wallet
///
/// The newest entry comes first.
#[utoipa::path(
    get, path = "/wallet/{id}/history", tag = "wallet",
    params(("id" = String, Path, description = "Id of the wallet", example = "1"), ListHistoryQuery),
    responses(
        (status = 200, description = "A page of entries; the `Link` header has the URL of the next page", body = [HistoryEntryBody]),
        Problems,
        ArchiveProblem,
    ),
)]
async fn list_history(
    State(wallets): State<Wallets>,
    caller: Caller,
    Path(id): Path<WalletId>,
    Query(query): Query<ListHistoryQuery>,
) -> Result<Page<HistoryEntryBody>> {
    let ListHistoryQuery { from, to, limit, after } = query;
    let limit = page_limit(limit)?;
    let range = HistoryQuery {
        from: parse_moment("?from", from.as_deref())?,
        to: parse_moment("?to", to.as_deref())?,
        before_seq: after,
        limit,
    };
    let (record, page) = wallets.history(&caller, id, range).await?;
    let HistoryPage { entries, archived_before } = page;
    // If older transfers are archived, the response links to a next page, which the server will refuse. So the client
    // notices that the history is incomplete.
    let last = last_of_full_page(&entries, limit).map(|last| last.seq).or(archived_before);
    let next = last.map(|last| {
        let mut next = format!("/wallet/{id}/history?limit={limit}&after={last}");
        for (name, value) in [("from", &from), ("to", &to)] {
            if let Some(value) = value {
                next.extend(["&", name, "="]);
                next.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        next
    });
    let bodies = entries.iter().map(|entry| HistoryEntryBody::new(entry, id, record.currency));
    Ok(Page::new(bodies.collect::<Result<_>>()?, next))
}

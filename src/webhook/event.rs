//! Events that are sent to webhooks: an event for each wallet that a transfer involves, and events that modules
//! publish.

use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use super::alert::AlertDirection;
use crate::error::{Error, Result};
use crate::ids::WalletId;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::BookRow;
use crate::ledger::transfer::TransferKind;
use crate::realtime::Message;
use crate::wallet::transfer::{Note, wallet_of};

/// Name of the event that reports that a balance has crossed the threshold of an alert.
pub(super) const ALERT_CROSSED: &str = "alert.crossed";

/// Every event that a webhook can subscribe to. `*` stands for all of them.
pub const EVENTS: &[&str] = &[
    "*",
    ALERT_CROSSED,
    "entitlement.granted",
    "entitlement.revoked",
    "game.added",
    "game.deleted",
    "game.updated",
    "order.compensating",
    "order.completed",
    "order.failed",
    "order.pending",
    "order.processing",
    "order.stuck",
    "order.unknown",
    "transfer.capture",
    "transfer.deposit",
    "transfer.exchange",
    "transfer.expiry",
    "transfer.fee",
    "transfer.hold",
    "transfer.payout",
    "transfer.purchase",
    "transfer.refund",
    "transfer.transfer",
    "transfer.void",
    "transfer.withdrawal",
    "wallet.closed",
    "wallet.frozen",
    "wallet.opened",
    "wallet.unfrozen",
];

/// Returns the name under which webhooks receive a published event, or `None` if webhooks do not receive it.
pub(super) fn published_name(kind: &str) -> Option<&'static str> {
    let is_published =
        ["entitlement.", "game.", "order."].iter().any(|prefix| kind.starts_with(prefix));
    EVENTS.iter().copied().find(|name| is_published && *name == kind)
}

/// Returns the name of the event that a transfer of this kind causes. `*` means that only webhooks that subscribe to
/// all events receive it.
pub(super) fn event_name(kind: TransferKind) -> &'static str {
    match kind {
        TransferKind::Open => "wallet.opened",
        TransferKind::Close => "wallet.closed",
        TransferKind::Freeze => "wallet.frozen",
        TransferKind::Unfreeze => "wallet.unfrozen",
        // A tax transfer moves money only between system accounts, so it involves no wallet.
        TransferKind::Tax => "*",
        kind => EVENTS
            .iter()
            .find(|name| name.strip_prefix("transfer.") == Some(kind.name()))
            .unwrap_or(&"*"),
    }
}

#[derive(Serialize)]
struct EventBody<'a, D> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: String,
    data: D,
}

/// A transfer, from the point of view of a wallet that it involves.
#[derive(Serialize, ToSchema)]
pub(super) struct WalletEventData<'a> {
    #[schema(example = "1")]
    wallet: String,
    #[schema(example = "EUR")]
    currency: &'a str,
    #[schema(example = "17")]
    transfer: String,
    #[schema(value_type = TransferKind)]
    kind: &'a str,
    /// The paying wallet; null if the money comes from outside the system.
    #[schema(required)]
    from: Option<String>,
    /// The receiving wallet; null if the money leaves the system.
    #[schema(required, example = "1")]
    to: Option<String>,
    #[schema(value_type = f64, example = 100.00)]
    amount: Box<RawValue>,
    /// Available balance after the transfer, if the transfer changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 1099.00)]
    available: Option<Box<RawValue>>,
    /// Id of the earlier transfer that this transfer completes or refunds.
    #[serde(skip_serializing_if = "Option::is_none")]
    linked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "for the coffee")]
    memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    #[schema(required, example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: Option<String>,
    /// The alert whose threshold was crossed. It is present only in the event `alert.crossed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<CrossedAlert>,
}

/// A balance alert whose threshold was crossed.
#[derive(Serialize, ToSchema)]
pub(super) struct CrossedAlert {
    #[schema(example = "3")]
    pub(super) id: String,
    #[schema(value_type = AlertDirection)]
    pub(super) direction: &'static str,
    /// The threshold of the alert.
    #[schema(value_type = f64, example = 10.00)]
    pub(super) line: Box<RawValue>,
}

pub(super) fn number(minor: Minor, currency: Currency) -> Result<Box<RawValue>> {
    let text = minor.exact(currency).to_string();
    RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()))
}

fn to_json(kind: &str, at: OffsetDateTime, data: impl Serialize) -> Result<String> {
    let timestamp = at.format(&Rfc3339).map_err(|cause| Error::Internal(cause.into()))?;
    let body = serde_json::to_string(&EventBody { kind, timestamp, data });
    body.map_err(|cause| Error::Internal(cause.into()))
}

/// Returns the JSON body that webhooks receive for a published event.
pub(super) fn message_body(event: &str, message: &Message) -> Result<String> {
    to_json(event, message.at, &message.data)
}

/// Returns the JSON body that webhooks receive for an event about a wallet.
pub(super) fn event_body(
    event: &str,
    row: &BookRow,
    wallet: WalletId,
    currency: Currency,
    alert: Option<CrossedAlert>,
) -> Result<String> {
    let Note { memo, metadata } = Note::from_stored(row.metadata.as_deref());
    let available = match wallet {
        WalletId(id) if id == row.credit => Some(row.credit_balance),
        WalletId(id) if id == row.debit => Some(row.debit_balance),
        _ => None,
    };
    let side = |id| wallet_of(AccountId(id)).map(|wallet| wallet.to_string());
    let data = WalletEventData {
        wallet: wallet.to_string(),
        currency: currency.code(),
        transfer: row.transfer_id().to_string(),
        kind: TransferKind::from_code(row.kind).map_or("unknown", TransferKind::name),
        from: side(row.debit),
        to: side(row.credit),
        amount: number(Minor(row.amount), currency)?,
        available: available.map(|minor| number(Minor(minor), currency)).transpose()?,
        linked: row.linked.map(|id| id.to_string()),
        memo,
        metadata,
        trace_id: row.trace_id.map(|id| id.simple().to_string()),
        alert,
    };
    to_json(event, row.at, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_that_touches_wallets_has_an_event() {
        for kind in TransferKind::ALL {
            let is_internal = matches!(kind, TransferKind::Probe | TransferKind::Tax);
            assert_eq!(event_name(kind) == "*", is_internal, "{kind:?}");
        }
    }
}

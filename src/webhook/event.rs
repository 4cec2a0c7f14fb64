//! What webhooks tell: one event for each wallet that a transfer concerns.

use serde::Serialize;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};
use crate::ids::WalletId;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::Line;
use crate::ledger::transfer::TransferKind;
use crate::wallet::transfer::{Note, wallet_of};

/// Every event there is, and `*` for all of them.
pub const EVENTS: &[&str] = &[
    "*",
    "alert.crossed",
    "transfer.adjustment",
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

/// The event that a kind of transfer is.
pub(super) fn name_of(kind: TransferKind) -> &'static str {
    match kind {
        TransferKind::Open => "wallet.opened",
        TransferKind::Close => "wallet.closed",
        TransferKind::Freeze => "wallet.frozen",
        TransferKind::Unfreeze => "wallet.unfrozen",
        moves => EVENTS
            .iter()
            .find(|name| name.strip_prefix("transfer.") == Some(moves.name()))
            .unwrap_or(&"*"),
    }
}

/// The wallets that a transfer concerns, each once.
pub(super) fn wallets_of(line: &Line) -> Vec<WalletId> {
    let mut wallets: Vec<WalletId> =
        [line.debit, line.credit].into_iter().filter_map(|id| wallet_of(AccountId(id))).collect();
    wallets.dedup();
    wallets
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    wallet: String,
    currency: &'a str,
    transfer: String,
    kind: &'a str,
    from: Option<String>,
    to: Option<String>,
    amount: Box<RawValue>,
    /// What can be spent after it, where the transfer itself tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linked: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memo: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Box<RawValue>>,
    trace_id: Option<String>,
    /// The line that was crossed, when that is what it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<Crossed>,
}

/// The line that was crossed.
#[derive(Serialize)]
pub(super) struct Crossed {
    pub(super) id: String,
    pub(super) direction: String,
    pub(super) line: Box<RawValue>,
}

pub(super) fn number(minor: Minor, currency: Currency) -> Result<Box<RawValue>> {
    let text = minor.exact(currency).to_string();
    RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()))
}

/// The text that is sent and signed.
pub(super) fn body(
    event: &str,
    line: &Line,
    wallet: WalletId,
    currency: Currency,
    alert: Option<Crossed>,
) -> Result<String> {
    let Note { memo, metadata } = Note::from_stored(line.metadata.as_deref());
    let available = match wallet {
        WalletId(id) if id == line.credit => Some(line.credit_balance),
        WalletId(id) if id == line.debit => Some(line.debit_balance),
        _ => None,
    };
    let side = |id| wallet_of(AccountId(id)).map(|wallet| wallet.to_string());
    let body = Body {
        kind: event,
        timestamp: line.at.format(&Rfc3339).map_err(|cause| Error::Internal(cause.into()))?,
        data: Data {
            wallet: wallet.to_string(),
            currency: currency.code(),
            transfer: line.transfer().to_string(),
            kind: TransferKind::from_code(line.kind).map_or("unknown", TransferKind::name),
            from: side(line.debit),
            to: side(line.credit),
            amount: number(Minor(line.amount), currency)?,
            available: available.map(|minor| number(Minor(minor), currency)).transpose()?,
            linked: line.linked.map(|id| id.to_string()),
            memo,
            metadata,
            trace_id: line.trace_id.map(|id| id.simple().to_string()),
            alert,
        },
    };
    serde_json::to_string(&body).map_err(|cause| Error::Internal(cause.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_transfer_has_its_event() {
        for kind in TransferKind::ALL {
            let expected = kind == TransferKind::Probe;
            assert_eq!(name_of(kind) == "*", expected, "{kind:?}");
        }
    }
}

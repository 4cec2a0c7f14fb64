//! JSON members that requests and responses about wallets have in common: amounts, wallet ids, memos and metadata.

use crate::auth::Caller;
use crate::error::Result;
use crate::http::context::RequestContext;
use crate::http::decimal::JsonDecimal;
use crate::http::extract::{RawField, Validator};
use crate::http::fields;
use crate::idempotency_key::IdempotencyKey;
use crate::ids::WalletId;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Minor;
use crate::wallet::RequestMeta;
use crate::wallet::transfer::Note;

/// Longest memo of a transfer, in characters.
const MEMO_MAX: usize = 500;

/// Collects the caller, the idempotency key and the trace id of a request, which every operation needs.
pub(crate) fn request_meta<'a>(
    caller: &'a Caller,
    key: &'a IdempotencyKey,
    context: &RequestContext,
) -> RequestMeta<'a> {
    RequestMeta { caller, key, trace: context.stored_trace() }
}

/// Formats an amount or a balance for a response.
pub(crate) fn number(minor: Minor, currency: Currency) -> Result<JsonDecimal> {
    JsonDecimal::new(minor.exact(currency))
}

/// Parses the id of a wallet.
pub(super) fn wallet_id(raw: &str) -> Result<WalletId, String> {
    fields::id(raw).map(WalletId).ok_or_else(|| "must be the id of a wallet".to_owned())
}

/// Validates a required decimal and returns its text, which is parsed as an amount once the currency is known.
pub(crate) fn required_decimal<'a>(
    validator: &mut Validator,
    pointer: &str,
    field: &RawField<'a>,
) -> Option<&'a str> {
    if field.raw().is_none() {
        validator.refuse(pointer, "is required");
    }
    optional_decimal(validator, pointer, field)
}

/// Validates an optional decimal and returns its text.
pub(crate) fn optional_decimal<'a>(
    validator: &mut Validator,
    pointer: &str,
    field: &RawField<'a>,
) -> Option<&'a str> {
    let text = field.raw().map(Currencies::amount_text)?;
    text.map_err(|detail| validator.refuse(pointer, detail)).ok()
}

/// Reads the memo and the metadata of a transfer.
pub(super) fn note(
    validator: &mut Validator,
    memo: &RawField<'_>,
    metadata: &RawField<'_>,
) -> Note {
    Note {
        memo: validator.optional("/memo", memo, |raw| fields::text(raw, MEMO_MAX)),
        metadata: validator.optional("/metadata", metadata, fields::metadata),
    }
}

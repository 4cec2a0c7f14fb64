//! Members of wallet requests and answers: amounts, ids of wallets, notes.

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

/// Caller, idempotency key and trace of a request, for the operation.
pub(crate) fn request_meta<'a>(
    caller: &'a Caller,
    key: &'a IdempotencyKey,
    context: &RequestContext,
) -> RequestMeta<'a> {
    RequestMeta { caller, key, trace: context.stored_trace() }
}

/// An amount or a balance in an answer.
pub(crate) fn number(minor: Minor, currency: Currency) -> Result<JsonDecimal> {
    JsonDecimal::new(minor.exact(currency).to_string())
}

/// Parses the id of a wallet.
pub(super) fn wallet_id(raw: &str) -> Result<WalletId, String> {
    fields::id(raw).map(WalletId).ok_or_else(|| "must be the id of a wallet".to_owned())
}

/// Text of a decimal that must be present. It becomes an amount once its currency is known.
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

/// Text of a decimal that may be absent.
pub(crate) fn optional_decimal<'a>(
    validator: &mut Validator,
    pointer: &str,
    field: &RawField<'a>,
) -> Option<&'a str> {
    let text = field.raw().map(Currencies::amount_text)?;
    text.map_err(|detail| validator.refuse(pointer, detail)).ok()
}

/// Reads memo and metadata of a transfer. `at` is the JSON pointer of the object that contains them.
pub(super) fn note(
    validator: &mut Validator,
    at: &str,
    memo: &RawField<'_>,
    metadata: &RawField<'_>,
) -> Note {
    Note {
        memo: validator.optional(&format!("{at}/memo"), memo, |raw| fields::text(raw, MEMO_MAX)),
        metadata: validator.optional(&format!("{at}/metadata"), metadata, fields::metadata),
    }
}

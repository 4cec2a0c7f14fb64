//! What the routes of wallets share: reading members of a body, writing exact numbers.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::http::context::RequestContext;
use crate::http::extract::{Check, Member};
use crate::http::idempotency::IdempotencyKey;
use crate::ledger::currency::{Currencies, Currency};
use crate::ledger::money::Minor;
use crate::ledger::read;
use crate::wallet::transfer::Note;
use crate::wallet::{Asked, WalletId};

/// Longest memo of a transfer, in characters.
const MEMO_MAX: usize = 500;

/// Longest metadata of anything, in bytes: with the memo it must fit a row of the book.
const METADATA_BYTES_MAX: usize = 1_024;

/// Lines of a page when nobody says how many.
const PAGE_DEFAULT: i64 = 100;

static REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An answer that says whether it was given before.
pub(crate) fn replayable(status: StatusCode, body: &impl Serialize, replayed: bool) -> Response {
    let mut response = (status, axum::Json(body)).into_response();
    if replayed {
        response.headers_mut().insert(&REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

pub(crate) fn asked<'a>(
    caller: &'a Caller,
    key: &'a IdempotencyKey,
    context: &RequestContext,
) -> Asked<'a> {
    Asked { caller, key, trace: Uuid::from_bytes(context.trace().trace) }
}

/// An exact decimal as a JSON number.
pub(crate) fn number(minor: Minor, currency: Currency) -> Result<Box<RawValue>> {
    let text = minor.exact(currency).to_string();
    RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()))
}

pub(crate) fn moment(at: OffsetDateTime) -> Result<String> {
    at.format(&Rfc3339).map_err(|cause| Error::Internal(cause.into()))
}

/// A moment in a query.
pub(crate) fn parse_moment(name: &str, text: Option<String>) -> Result<Option<OffsetDateTime>> {
    let moment = text.map(|text| OffsetDateTime::parse(&text, &Rfc3339)).transpose();
    moment.map_err(|_| Error::field(name, "must be RFC 3339, such as 2026-01-31T12:00:00Z"))
}

pub(crate) fn wallet_id(raw: &str) -> Result<WalletId, String> {
    id(raw).ok_or_else(|| "must be the id of a wallet".to_owned())
}

/// An id as a number or as a string of digits.
pub(crate) fn id(raw: &str) -> Option<i64> {
    let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// A string of 1 to `max` characters that can be stored.
pub(crate) fn text(raw: &str, max: usize) -> Result<String, String> {
    let text = serde_json::from_str::<String>(raw).map_err(|_| "must be a string".to_owned())?;
    // A NUL cannot be stored in text.
    if (1..=max).contains(&text.chars().count()) && !text.contains('\0') {
        Ok(text)
    } else {
        Err(format!("must have 1 to {max} characters"))
    }
}

/// The text of a decimal, which becomes an amount when its currency is known.
pub(crate) fn decimal<'a>(
    check: &mut Check,
    pointer: &str,
    member: &Member<'a>,
    required: bool,
) -> Option<&'a str> {
    match member.raw().map(Currencies::unquoted) {
        Some(Ok(text)) => Some(text),
        Some(Err(detail)) => {
            check.refuse(pointer, detail);
            None
        }
        None => {
            if required {
                check.refuse(pointer, "is required");
            }
            None
        }
    }
}

/// A JSON object of the caller's own, kept as it is.
pub(crate) fn metadata(raw: &str) -> Result<Box<RawValue>, String> {
    if !raw.starts_with('{') {
        return Err("must be a JSON object".to_owned());
    }
    if raw.len() > METADATA_BYTES_MAX {
        return Err(format!("must not have more than {METADATA_BYTES_MAX} bytes"));
    }
    if raw.contains("\\u0000") {
        return Err("must not contain a NUL".to_owned());
    }
    RawValue::from_string(raw.to_owned()).map_err(|cause| cause.to_string())
}

/// The note on a transfer.
pub(crate) fn note(check: &mut Check, at: &str, memo: &Member<'_>, own: &Member<'_>) -> Note {
    Note {
        memo: check.optional(&format!("{at}/memo"), memo, |raw| text(raw, MEMO_MAX)),
        metadata: check.optional(&format!("{at}/metadata"), own, metadata),
    }
}

pub(crate) fn page_limit(limit: Option<i64>) -> Result<i64> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=read::PAGE_MAX => Ok(limit),
        _ => Err(Error::field("?limit", "must be from 1 to 1000")),
    }
}

pub(crate) fn link_next(response: &mut Response, path: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("<{path}>; rel=\"next\"")) {
        response.headers_mut().insert(header::LINK, value);
    }
}

/// For a query: everything but letters and digits as `%XX`.
pub(crate) fn percent(text: &str) -> String {
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

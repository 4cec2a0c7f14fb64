//! Parsers of single members of a body and of query parameters, shared by the slices.

use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};

/// Longest metadata, in bytes: together with the memo it must fit a row of the book.
const METADATA_BYTES_MAX: usize = 1_024;

/// A moment as it is written on the wire, RFC 3339.
pub fn moment(at: OffsetDateTime) -> Result<String> {
    at.format(&Rfc3339).map_err(|cause| Error::Internal(cause.into()))
}

/// Parses a moment that the client gave under this name.
pub fn parse_moment(name: &str, text: Option<String>) -> Result<Option<OffsetDateTime>> {
    let moment = text.map(|text| OffsetDateTime::parse(&text, &Rfc3339)).transpose();
    moment.map_err(|_| Error::field(name, "must be RFC 3339, such as 2026-01-31T12:00:00Z"))
}

/// Parses an id that is given as a number or as a string of digits.
pub fn id(raw: &str) -> Option<i64> {
    let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// Parses a JSON string.
pub fn string(raw: &str) -> Result<String, String> {
    serde_json::from_str::<String>(raw).map_err(|_| "must be a string".to_owned())
}

/// Parses a string of 1 to `max` characters that Postgres can store.
pub fn text(raw: &str, max: usize) -> Result<String, String> {
    let text = string(raw)?;
    // Postgres cannot store a NUL in text.
    if (1..=max).contains(&text.chars().count()) && !text.contains('\0') {
        Ok(text)
    } else {
        Err(format!("must have 1 to {max} characters"))
    }
}

/// Accepts a JSON object of the client's own and keeps its text unchanged.
pub fn metadata(raw: &str) -> Result<Box<RawValue>, String> {
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

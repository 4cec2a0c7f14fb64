//! Parsers for common types of body members and query parameters, shared by all modules.

use serde_json::Value;
use serde_json::value::RawValue;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::error::{Error, Result};
use crate::ids::PublisherId;

/// Maximum nesting depth of metadata. The JSON parsers of some languages cannot read deeper values.
const METADATA_DEPTH_MAX: usize = 32;

const NUL: &str = "must not contain a NUL";

/// Longest metadata, in bytes. Metadata and memo together must fit into a row of the ledger.
const METADATA_BYTES_MAX: usize = 1_024;

/// Formats a moment for a response, as RFC 3339.
pub fn moment(at: OffsetDateTime) -> Result<String> {
    at.format(&Rfc3339).map_err(|cause| Error::Internal(cause.into()))
}

/// Parses an optional moment. If it is invalid, the error names the member or parameter `name`.
pub fn parse_moment(name: &str, text: Option<&str>) -> Result<Option<OffsetDateTime>> {
    let moment = text.map(read_moment).transpose();
    moment.map_err(|detail| Error::field(name, detail))
}

/// Parses the JSON text of a moment, and truncates it to microseconds, because the database stores no smaller units.
pub fn stored_moment(raw: &str) -> Result<OffsetDateTime, String> {
    read_moment(&string(raw)?).map(OffsetDateTime::truncate_to_microsecond)
}

fn read_moment(text: &str) -> Result<OffsetDateTime, String> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok();
    // In UTC, a moment can lie outside of the years 0 to 9999, and RFC 3339 cannot represent other years.
    let moment = moment.and_then(|moment| moment.checked_to_offset(UtcOffset::UTC));
    let moment = moment.filter(|moment| (0..=9999).contains(&moment.year()));
    moment.ok_or_else(|| "must be RFC 3339, such as 2026-01-31T12:00:00Z".to_owned())
}

/// Parses an id that is given as a number or as a string of digits.
pub fn id(raw: &str) -> Option<i64> {
    let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// Parses the id of a publisher.
pub fn publisher(raw: &str) -> Result<PublisherId, String> {
    id(raw).map(PublisherId).ok_or_else(|| "must be the id of a publisher".to_owned())
}

/// Parses a JSON string. Rejects a string that contains a NUL, because Postgres cannot store it.
pub fn string(raw: &str) -> Result<String, String> {
    let text = serde_json::from_str::<String>(raw).map_err(|_| "must be a string".to_owned())?;
    if text.contains('\0') { Err(NUL.to_owned()) } else { Ok(text) }
}

/// Parses a string of 1 to `max` characters.
pub fn text(raw: &str, max: usize) -> Result<String, String> {
    let text = string(raw)?;
    if (1..=max).contains(&text.chars().count()) {
        Ok(text)
    } else {
        Err(format!("must have 1 to {max} characters"))
    }
}

/// Parses metadata: a JSON object with any members. Its text is stored as the client sent it.
pub fn metadata(raw: &str) -> Result<Box<RawValue>, String> {
    if !raw.starts_with('{') {
        return Err("must be a JSON object".to_owned());
    }
    if raw.len() > METADATA_BYTES_MAX {
        return Err(format!("must not have more than {METADATA_BYTES_MAX} bytes"));
    }
    // The receiver of a transfer reads the metadata too. If its JSON parser failed on the metadata, a whole page of the
    // receiver's history would be unreadable.
    let value: Value = serde_json::from_str(raw)
        .map_err(|cause| format!("must be readable by every client: {cause}"))?;
    require_readable(&value, METADATA_DEPTH_MAX)?;
    RawValue::from_string(raw.to_owned()).map_err(|cause| cause.to_string())
}

/// Returns an error if a value contains a NUL or more than `depth` nested levels.
fn require_readable(value: &Value, depth: usize) -> Result<(), String> {
    let is_sound = |text: &str| if text.contains('\0') { Err(NUL.to_owned()) } else { Ok(()) };
    if depth == 0 && (value.is_object() || value.is_array()) {
        return Err(format!("must not have more than {METADATA_DEPTH_MAX} nested levels"));
    }
    match value {
        Value::String(text) => is_sound(text),
        Value::Array(items) => items.iter().try_for_each(|item| require_readable(item, depth - 1)),
        Value::Object(members) => members
            .iter()
            .try_for_each(|(name, item)| is_sound(name).and(require_readable(item, depth - 1))),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_that_leave_the_calendar_in_utc_are_refused() {
        for text in [
            "9999-12-31T23:59:59-23:59",
            "9999-12-31T23:59:59.999999999-00:01",
            "0000-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00+23:59",
            "tomorrow",
            "",
        ] {
            let refused = parse_moment("?from", Some(text));
            assert!(matches!(refused, Err(Error::Invalid(_))), "{text}: {refused:?}");
        }
        for text in ["9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2026-01-31T12:00:00+14:00"] {
            let read = parse_moment("?from", Some(text)).expect("valid");
            assert!(moment(read.expect("present")).is_ok(), "{text}");
        }
    }

    #[test]
    fn metadata_that_some_clients_cannot_parse_is_refused() {
        let nested = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        for raw in [
            r#"{"a":"\ud800"}"#,
            r#"{"\udc00":1}"#,
            r#"{"a":1e400}"#,
            r#"{"a":["b\u0000"]}"#,
            r#"{"\u0000":1}"#,
            r#"{"a":1"#,
            &nested(METADATA_DEPTH_MAX + 1),
        ] {
            assert!(metadata(raw).is_err(), "{raw}");
        }
        for raw in
            [r#"{"a":"\ud83d\ude00","b":"\\u0000","c":1e5}"#, "{}", &nested(METADATA_DEPTH_MAX)]
        {
            assert_eq!(metadata(raw).expect("valid").get(), raw);
        }
    }

    #[test]
    fn a_nul_is_refused_in_every_text() {
        for raw in ["\"a\\u0000\"", "\"\\u0000\""] {
            assert!(string(raw).is_err() && text(raw, 9).is_err(), "{raw}");
        }
    }
}

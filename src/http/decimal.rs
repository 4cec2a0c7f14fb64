//! Exact decimals in responses: JSON numbers, or strings for clients that request them with `Prefer: money=string`.
//!
//! Clients that parse JSON numbers as floating-point numbers need strings, because floating-point numbers cannot
//! represent every amount exactly.

use std::fmt::{self, Write};

use arrayvec::ArrayString;
use futures_util::future::Either;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

static PREFER: HeaderName = HeaderName::from_static("prefer");
static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

tokio::task_local! {
    static FORMAT: MoneyFormat;
}

/// Format of decimals in responses: JSON numbers or strings.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    clap::ValueEnum,
    serde::Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum MoneyFormat {
    #[default]
    Number,
    String,
}

impl MoneyFormat {
    /// Returns the format for the request that is being handled, or `Number` outside of a request.
    pub fn current() -> Self {
        FORMAT.try_with(|format| *format).unwrap_or_default()
    }

    /// Returns the format that the client requests with the `Prefer` header. An unknown format is ignored, as RFC 7240
    /// demands.
    pub(super) fn preferred(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(&PREFER).into_iter().filter_map(|value| value.to_str().ok());
        let mut preferences = values.flat_map(|value| value.split(',')).filter_map(|preference| {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=')?;
            let is_money = name.trim().eq_ignore_ascii_case("money");
            is_money.then(|| value.trim().trim_matches('"'))
        });
        // If the client sends several preferences for money, only the first counts.
        match preferences.next()? {
            "string" => Some(Self::String),
            "number" => Some(Self::Number),
            _ => None,
        }
    }

    /// Runs the handler of a request, and uses this format for the decimals that the handler serializes.
    pub(super) fn scope<F: Future>(self, request: F) -> impl Future<Output = F::Output> {
        match self {
            // No scope is needed, because `current` returns `Number` outside of a scope.
            Self::Number => Either::Left(request),
            Self::String => Either::Right(FORMAT.scope(self, request)),
        }
    }

    /// Runs `write`, and uses this format for the decimals that `write` serializes. Streamed responses need this
    /// function, because their parts are written after the handler has returned.
    pub fn write<R>(self, write: impl FnOnce() -> R) -> R {
        FORMAT.sync_scope(self, write)
    }

    /// Confirms to the client, with the `Preference-Applied` header, that the response has the requested format.
    pub(super) fn confirm(self, headers: &mut HeaderMap) {
        let applied = match self {
            Self::Number => "money=number",
            Self::String => "money=string",
        };
        headers.insert(&PREFERENCE_APPLIED, HeaderValue::from_static(applied));
    }
}

/// Maximum length of a decimal's text, in bytes. The longest texts, of up to 31 characters, come from `rust_decimal`.
const DECIMAL_BYTES_MAX: usize = 40;

/// An exact decimal in a response.
#[derive(Debug, Clone, Copy)]
pub struct JsonDecimal(ArrayString<DECIMAL_BYTES_MAX>);

impl JsonDecimal {
    /// Creates a decimal from its text, which must be a valid JSON number.
    pub fn new(text: impl fmt::Display) -> Result<Self> {
        let mut decimal = ArrayString::new();
        write!(decimal, "{text}").map_err(|cause| Error::Internal(cause.into()))?;
        let decimal = Self(decimal);
        decimal.number().map_err(|cause| Error::Internal(cause.into()))?;
        Ok(decimal)
    }

    fn number(&self) -> serde_json::Result<&RawValue> {
        serde_json::from_str(&self.0)
    }
}

/// Writes the text of the number.
impl fmt::Display for JsonDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for JsonDecimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match MoneyFormat::current() {
            MoneyFormat::Number => self.number().map_err(S::Error::custom)?.serialize(serializer),
            MoneyFormat::String => serializer.serialize_str(&self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preferred(values: &[&str]) -> Option<MoneyFormat> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&PREFER, value.parse().unwrap());
        }
        MoneyFormat::preferred(&headers)
    }

    #[test]
    fn a_preference_is_found_among_others() {
        for value in ["money=string", "Money = \"string\"", "respond-async, money=string; x=1, a=b"]
        {
            assert_eq!(preferred(&[value]), Some(MoneyFormat::String), "{value}");
        }
        assert_eq!(preferred(&["wait=5", "money=number"]), Some(MoneyFormat::Number));
        assert_eq!(preferred(&["money=number", "money=string"]), Some(MoneyFormat::Number));
        for value in ["", "money", "money=", "money=cents", "currency=string", "=,;"] {
            assert_eq!(preferred(&[value]), None, "{value}");
        }
        assert_eq!(preferred(&[]), None);
    }

    #[tokio::test]
    async fn the_format_holds_within_its_scope_only() {
        let decimal = JsonDecimal::new("90071992547409.91").expect("a number");
        let written = || serde_json::to_string(&decimal).expect("serializes");

        let within =
            MoneyFormat::String.scope(async { (written(), MoneyFormat::Number.write(written)) });

        assert_eq!(
            within.await,
            ("\"90071992547409.91\"".to_owned(), "90071992547409.91".to_owned())
        );
        assert_eq!(written(), "90071992547409.91");
    }
}

//! Extractors for path and query parameters, which respond to invalid values with problem documents, and the validation
//! of body members.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::query;
use crate::error::{Error, FieldError, Result};

/// A member of a request body, as JSON text that is not parsed yet. Because members are parsed later, an error response
/// can list all invalid members, not only the first.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct RawField<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl<'a> RawField<'a> {
    /// Returns the JSON text of the member, or `None` if it is absent or `null`.
    pub fn raw(&self) -> Option<&'a str> {
        self.0.map(RawValue::get).filter(|raw| *raw != "null")
    }
}

/// Collects the validation errors of a body, so that the response can list all of them.
#[derive(Debug, Default)]
pub struct Validator {
    /// JSON pointer to the object that is validated; empty for the whole body.
    base: String,
    errors: Vec<FieldError>,
}

impl Validator {
    /// Creates a validator for the object at the JSON pointer `base`. The other methods take pointers relative to
    /// `base`.
    pub fn within(base: &str) -> Self {
        Self { base: base.to_owned(), errors: Vec::new() }
    }

    /// Parses a member, and notes an error if it is absent or invalid.
    pub fn required<T>(
        &mut self,
        pointer: &str,
        member: &RawField<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(raw) = member.raw() else {
            self.refuse(pointer, "is required");
            return None;
        };
        self.parsed(pointer, raw, parse)
    }

    /// Parses a member, and notes an error if it is present but invalid.
    pub fn optional<T>(
        &mut self,
        pointer: &str,
        member: &RawField<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        member.raw().and_then(|raw| self.parsed(pointer, raw, parse))
    }

    pub fn refuse(&mut self, pointer: &str, detail: impl Into<String>) {
        let pointer = format!("{}{pointer}", self.base);
        self.errors.push(FieldError { pointer, detail: detail.into() });
    }

    /// Returns `values` if no errors were noted, and all errors otherwise.
    pub fn finish<T>(self, values: Option<T>) -> Result<T> {
        match values {
            Some(values) if self.errors.is_empty() => Ok(values),
            _ => Err(Error::Invalid(self.errors)),
        }
    }

    fn parsed<T>(
        &mut self,
        pointer: &str,
        raw: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.check(pointer, parse(raw))
    }

    /// Returns the value in `outcome`, or notes its error. Use it for values that the caller has parsed itself because
    /// they are not JSON.
    pub fn check<T>(&mut self, pointer: &str, outcome: Result<T, String>) -> Option<T> {
        outcome.map_err(|detail| self.refuse(pointer, detail)).ok()
    }
}

/// Path parameters. If they cannot be parsed, the response is 404, as for any other path that does not exist.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match <axum::extract::Path<T> as FromRequestParts<S>>::from_request_parts(parts, state)
            .await
        {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Error::NotFound("path")),
        }
    }
}

/// Query parameters. If they cannot be parsed, the response names the invalid parameter.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        query::read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

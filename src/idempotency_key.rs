//! The `Idempotency-Key` header, which makes a request safe to repeat: requests with the same key take effect once. A
//! repetition must have the same content as the first request.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{ObjectBuilder, Required, Type};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::secret::digest;

/// Longest accepted key, in bytes.
const KEY_BYTES_MAX: usize = 255;

/// Error text for a key that is too long, is empty or contains invisible characters.
const INVALID: &str = "must have 1 to 255 visible characters";

/// An idempotency key, hashed for storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HashedKey {
    /// Hash of the caller, the operation and the key.
    pub hash: Uuid,
    /// Hash of the parsed request's content.
    pub content: Uuid,
}

impl HashedKey {
    /// Returns a random key, for a request that the client sent without a key.
    pub fn random() -> Self {
        Self { hash: Uuid::new_v4(), content: Uuid::nil() }
    }

    /// Returns whether the earlier request with this key had the same content. `stored` is the content hash of the
    /// earlier request.
    pub fn has_content(self, stored: Uuid) -> bool {
        self.content == stored
    }

    /// Returns an error unless the earlier request with this key had the same content. `stored` is the content hash of
    /// the earlier request. `None` counts as different content.
    pub fn require_same_content(self, stored: Option<Uuid>) -> Result<()> {
        let is_same = stored.is_some_and(|stored| self.has_content(stored));
        if is_same { Ok(()) } else { Err(Error::IdempotencyKeyReused) }
    }
}

/// The `Idempotency-Key` header of a request, if present.
#[derive(Debug)]
pub struct IdempotencyKey(Option<HeaderValue>);

impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let parameter = ParameterBuilder::new()
            .name("Idempotency-Key")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(
                "Makes the request safe to repeat: requests with the same key take effect once",
            ))
            .schema(Some(schema));
        vec![parameter.build()]
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        Self::from_headers(&parts.headers)
    }
}

impl IdempotencyKey {
    /// Reads the key from the header of a request; the header may be missing.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self> {
        let Some(value) = headers.get("idempotency-key") else { return Ok(Self(None)) };
        match value.to_str() {
            Ok(text) if is_valid(text) => Ok(Self(Some(value.clone()))),
            _ => Err(Error::field("Idempotency-Key", INVALID)),
        }
    }

    /// Reads the key of an item in a request body or stream. An empty text means that the item has no key.
    pub fn from_text(text: &str) -> Result<Self, &'static str> {
        match (text, HeaderValue::from_str(text)) {
            ("", _) => Ok(Self(None)),
            (text, Ok(value)) if is_valid(text) => Ok(Self(Some(value))),
            _ => Err(INVALID),
        }
    }

    /// Returns the value that stands for a missing key.
    pub fn absent() -> Self {
        Self(None)
    }

    /// Hashes the key for storage, or returns `None` if there is no key. The caller and the operation are part of the
    /// hash, so that equal keys of different clients or operations do not collide.
    pub fn hashed(&self, caller: &str, operation: &str, content: &[&str]) -> Option<HashedKey> {
        let key = self.0.as_ref()?.to_str().ok()?;
        Some(HashedKey { hash: digest(&[caller, operation, key]), content: digest(content) })
    }
}

fn is_valid(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_callers_operations_and_contents_differ() {
        let key = IdempotencyKey(Some(HeaderValue::from_static("k")));
        let hash = |caller, operation, content: &[&str]| key.hashed(caller, operation, content);

        let first = hash("a", "b", &["c", "d"]);

        assert_eq!(first, hash("a", "b", &["c", "d"]));
        assert_ne!(first.map(|key| key.hash), hash("ab", "", &["c", "d"]).map(|key| key.hash));
        assert_ne!(
            first.map(|key| key.content),
            hash("a", "b", &["cd", ""]).map(|key| key.content)
        );
        assert_eq!(IdempotencyKey(None).hashed("a", "b", &[]), None);
    }

    #[test]
    fn a_key_is_refused_unless_the_earlier_request_had_the_same_content() {
        let key = HashedKey { hash: digest(&["k"]), content: digest(&["c"]) };

        assert!(key.require_same_content(Some(key.content)).is_ok());
        for stored in [Some(digest(&["d"])), None] {
            let refused = key.require_same_content(stored);
            assert!(matches!(refused, Err(Error::IdempotencyKeyReused)), "{stored:?}");
        }
    }
}

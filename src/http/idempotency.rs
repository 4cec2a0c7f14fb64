//! `Idempotency-Key`: the same request is done once, however often it arrives.

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::error::{Error, Result};
use crate::ledger::transfer::Key;
use crate::secret::digest;

/// Longest key that is taken.
const KEY_BYTES_MAX: usize = 255;

/// The header, if there is one.
#[derive(Debug)]
pub struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let bytes = value.as_bytes();
        let sane = !bytes.is_empty()
            && bytes.len() <= KEY_BYTES_MAX
            && bytes.iter().all(u8::is_ascii_graphic);
        match value.to_str() {
            Ok(text) if sane => Ok(Self(Some(text.to_owned()))),
            _ => Err(Error::field("Idempotency-Key", "must have 1 to 255 visible characters")),
        }
    }
}

impl IdempotencyKey {
    /// For the book: one caller's key never meets another's, nor that of another operation.
    pub fn hashed(&self, caller: &str, operation: &str, content: &[&str]) -> Option<Key> {
        let key = self.0.as_deref()?;
        Some(Key { hash: digest(&[caller, operation, key]), content: digest(content) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_different_callers_operations_and_contents_differ() {
        let key = IdempotencyKey(Some("k".to_owned()));
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
}

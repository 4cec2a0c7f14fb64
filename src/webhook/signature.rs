//! Signatures according to the Standard Webhooks specification: HMAC-SHA256 of id, timestamp and body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::secret::{self, Secret};

/// Prefix of every secret. The secret bytes follow in base64.
const PREFIX: &str = "whsec_";

/// Minimum length of a client-provided secret, in bytes.
const BYTES_MIN: usize = 24;

/// Maximum length of a client-provided secret, in bytes.
const BYTES_MAX: usize = 64;

/// Returns a new random secret.
pub(super) fn new_secret() -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret::random_bytes()))
}

/// Whether a text is a valid signing secret.
pub(super) fn is_valid_secret(text: &str) -> bool {
    decode(text).is_some_and(|bytes| (BYTES_MIN..=BYTES_MAX).contains(&bytes.len()))
}

fn decode(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()
}

/// Returns the value of the `webhook-signature` header, with a signature for each secret.
pub(super) fn signatures(secrets: &[&str], id: &str, timestamp: i64, body: &str) -> String {
    let content = format!("{id}.{timestamp}.{body}");
    let sign = |secret: &&str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &decode(secret)?);
        Some(format!("v1,{}", STANDARD.encode(hmac::sign(&key, content.as_bytes()))))
    };
    secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

/// Maximum age of a message when it arrives, in seconds, as Standard Webhooks recommends. It limits the replay of
/// captured messages.
const AGE_MAX_SECONDS: i64 = 5 * 60;

/// A received message, and the headers that its signature depends on.
#[derive(Debug)]
pub(crate) struct SignedMessage<'a> {
    pub id: &'a str,
    pub timestamp: &'a str,
    pub signatures: &'a str,
    pub body: &'a str,
}

/// Checks a message as a receiver should: the message must be signed with this secret, at most five minutes before or
/// after `now`.
pub(crate) fn verify(message: &SignedMessage<'_>, secret: &Secret, now: i64) -> Result<(), String> {
    let SignedMessage { id, timestamp, signatures, body } = message;
    let signed_at: i64 =
        timestamp.parse().map_err(|_| "the header webhook-timestamp is not a number".to_owned())?;
    if now.abs_diff(signed_at) > AGE_MAX_SECONDS.unsigned_abs() {
        return Err(
            "the message was signed more than five minutes before or after the current time"
                .to_owned(),
        );
    }
    let key = decode(secret.reveal()).ok_or("the secret is malformed")?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let content = format!("{id}.{signed_at}.{body}");
    let is_right = |signature: &str| {
        let tag = signature.strip_prefix("v1,").and_then(|tag| STANDARD.decode(tag).ok());
        tag.is_some_and(|tag| hmac::verify(&key, content.as_bytes(), &tag).is_ok())
    };
    if signatures.split(' ').any(is_right) {
        return Ok(());
    }
    Err("the header webhook-signature has no valid signature".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_follow_standard_webhooks() {
        // The example from the specification.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = r#"{"test": 2432232314}"#;

        let signed = signatures(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);

        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(is_valid_secret(secret) && is_valid_secret(&new_secret()));
        assert!(!is_valid_secret("whsec_c2hvcnQ="));
        assert!(!is_valid_secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    }

    #[test]
    fn a_receiver_accepts_only_recent_messages_with_a_valid_signature() {
        let secret = Secret::from(new_secret());
        let signed = signatures(&[&new_secret(), secret.reveal()], "msg_1", 1_000, "{}");
        let message = |id, timestamp, body| {
            verify(&SignedMessage { id, timestamp, signatures: &signed, body }, &secret, 1_060)
        };

        assert_eq!(message("msg_1", "1000", "{}"), Ok(()));
        for (id, timestamp, body) in [
            ("msg_2", "1000", "{}"),
            ("msg_1", "1001", "{}"),
            ("msg_1", "1000", "{ }"),
            ("msg_1", "soon", "{}"),
        ] {
            assert!(message(id, timestamp, body).is_err(), "{id} {timestamp} {body}");
        }
        let other = Secret::from(new_secret());
        let signatures = &*signed;
        let message = SignedMessage { id: "msg_1", timestamp: "1000", signatures, body: "{}" };
        assert!(verify(&message, &other, 1_060).is_err());
        assert!(
            verify(&message, &secret, 1_301).is_err_and(|cause| cause.contains("five minutes"))
        );
    }
}

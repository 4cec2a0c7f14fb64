//! Signatures of Standard Webhooks: HMAC-SHA256 of id, timestamp and body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::secret;

/// Prefix of every secret; base64 follows.
const PREFIX: &str = "whsec_";

/// Fewest bytes of a secret that the client provides.
const BYTES_MIN: usize = 24;

/// Most bytes of a secret that the client provides.
const BYTES_MAX: usize = 64;

/// A new random secret.
pub(super) fn new_secret() -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret::random_bytes()))
}

/// Whether a text is a valid secret.
pub(super) fn is_valid_secret(text: &str) -> bool {
    decode(text).is_some_and(|bytes| (BYTES_MIN..=BYTES_MAX).contains(&bytes.len()))
}

fn decode(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()
}

/// Value of the header `webhook-signature`: one signature for each secret.
pub(super) fn signatures(secrets: &[&str], id: &str, timestamp: i64, body: &str) -> String {
    let content = format!("{id}.{timestamp}.{body}");
    let sign = |secret: &&str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &decode(secret)?);
        Some(format!("v1,{}", STANDARD.encode(hmac::sign(&key, content.as_bytes()))))
    };
    secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_follow_standard_webhooks() {
        // The example of the specification.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = r#"{"test": 2432232314}"#;

        let signed = signatures(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);

        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(is_valid_secret(secret) && is_valid_secret(&new_secret()));
        assert!(!is_valid_secret("whsec_c2hvcnQ="));
        assert!(!is_valid_secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    }
}

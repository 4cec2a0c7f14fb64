//! Signatures as Standard Webhooks has them: HMAC-SHA256 of id, moment and body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::secret;

/// Before the base64 of every secret.
const PREFIX: &str = "whsec_";

/// Fewest and most bytes of a secret that somebody brings along.
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;

/// A secret that nobody can guess.
pub(super) fn new_secret() -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret::random()))
}

/// Whether a text is a secret that can be used.
pub(super) fn is_secret(text: &str) -> bool {
    bytes_of(text).is_some_and(|bytes| (BYTES_MIN..=BYTES_MAX).contains(&bytes.len()))
}

fn bytes_of(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()
}

/// The value of the header `webhook-signature`: one signature a secret.
pub(super) fn signatures(secrets: &[&str], id: &str, timestamp: i64, body: &str) -> String {
    let content = format!("{id}.{timestamp}.{body}");
    let sign = |secret: &&str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes_of(secret)?);
        Some(format!("v1,{}", STANDARD.encode(hmac::sign(&key, content.as_bytes()))))
    };
    secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_signs_as_the_standard_does() {
        // The example of the specification.
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = r#"{"test": 2432232314}"#;

        let signed = signatures(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);

        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(is_secret(secret) && is_secret(&new_secret()));
        assert!(!is_secret("whsec_c2hvcnQ=") && !is_secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    }
}

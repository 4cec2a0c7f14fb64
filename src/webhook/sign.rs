//! Signatures as Standard Webhooks has them: HMAC-SHA256 of id, moment and body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// Before the base64 of every secret.
const PREFIX: &str = "whsec_";

/// Bytes that a hash works on at once.
const BLOCK: usize = 64;

/// Fewest and most bytes of a secret that somebody brings along.
const BYTES_MIN: usize = 24;
const BYTES_MAX: usize = 64;

/// A secret that nobody can guess.
pub(super) fn new_secret() -> String {
    let bytes = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|half| *half.as_bytes());
    format!("{PREFIX}{}", STANDARD.encode(bytes.concat()))
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
        let key = bytes_of(secret)?;
        Some(format!("v1,{}", STANDARD.encode(hmac(&key, content.as_bytes()))))
    };
    secrets.iter().filter_map(sign).collect::<Vec<_>>().join(" ")
}

/// RFC 2104 with SHA-256.
fn hmac(key: &[u8], content: &[u8]) -> [u8; 32] {
    let mut block = [0; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(content).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }

    #[test]
    fn it_is_the_hmac_of_rfc_4231() {
        let short = hmac(b"Jefe", b"what do ya want for nothing?");
        let long = hmac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First");

        assert_eq!(hex(&short), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(hex(&long), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

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

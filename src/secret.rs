//! Secrets: text that is redacted in output, random bytes, digests and constant-time comparison.

use std::fmt;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// A password, key or token. `Debug` prints `***`.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Returns the secret in plain text. Callers must not log it or show it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the SHA-256 hash that is stored instead of the secret. Suitable only for random keys and tokens; a
    /// password is easier to guess and needs a slow hash.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// Reads a secret from a file, without the newlines at the end. An empty path yields an empty secret.
pub fn from_file(path: &str) -> Result<Secret, String> {
    if path.is_empty() {
        return Ok(Secret(String::new()));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|cause| format!("the file cannot be read: {cause}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        // A file is empty only by accident, for example while it is being written, or because the disk was full.
        "" => Err("the file is empty".to_owned()),
        secret => Ok(Secret(secret.to_owned())),
    }
}

/// Parses a secret setting: the secret itself, or `@` and the path of a file that contains the secret, because
/// container platforms provide secrets as files.
pub fn from_setting(setting: &str) -> Result<Secret, String> {
    setting.strip_prefix('@').map_or_else(|| Ok(Secret(setting.to_owned())), from_file)
}

/// Returns 32 bytes that consist of two random UUIDs from a secure source: 244 random bits and 12 fixed bits.
pub fn random_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    for half in bytes.chunks_mut(16) {
        half.copy_from_slice(Uuid::new_v4().as_bytes());
    }
    bytes
}

/// Returns a digest of a list of texts. The length of each text is hashed too, so that `["ab", ""]` and `["a", "b"]`
/// differ.
pub fn digest(parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let bytes: [u8; 32] = hash.finalize().into();
    Uuid::from_bytes(*bytes.first_chunk().expect("16 is less than 32"))
}

/// Returns whether two hashes are equal. The comparison takes the same time wherever they differ, so that an attacker
/// learns nothing from its duration.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_can_name_a_file() {
        let file = std::env::temp_dir().join(format!("revwallet-secret-{}", std::process::id()));
        std::fs::write(&file, "hush\n").expect("the temporary directory is writable");

        let secret = from_setting(&format!("@{}", file.display())).expect("the file exists");

        assert_eq!(secret.reveal(), "hush");
        std::fs::remove_file(&file).expect("the file exists");
        let error =
            from_setting(&format!("@{}", file.display())).expect_err("the file was removed");
        assert!(error.contains("cannot be read"), "{error}");
    }

    #[test]
    fn debug_output_redacts_a_secret() {
        assert_eq!(format!("{:?}", Some(Secret::from("hush".to_owned()))), "Some(***)");
    }
}

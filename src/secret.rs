//! Text that must not be seen.

use std::fmt;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// A password, key or token: prints as `***`, whoever prints it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself. Each call is a place to look at.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// A fingerprint to keep instead of it. Only for what nobody can guess: a password needs more.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// What a file holds, without the line's end: settings that are secret can come by file. No file is named by an empty name.
pub fn from_file(path: &str) -> Result<Secret, String> {
    if path.is_empty() {
        return Ok(Secret(String::new()));
    }
    let text =
        std::fs::read_to_string(path).map_err(|cause| format!("it cannot be read: {cause}"))?;
    match text.trim_end_matches(['\r', '\n']) {
        // Nobody means nothing by a file: it is being written, or the disk was full.
        "" => Err("it is empty".to_owned()),
        secret => Ok(Secret(secret.to_owned())),
    }
}

/// From a setting: the text, or `@` and the path of a file that has it, as container platforms hand secrets over.
pub fn from_setting(setting: &str) -> Result<Secret, String> {
    setting.strip_prefix('@').map_or_else(|| Ok(Secret(setting.to_owned())), from_file)
}

/// 244 bits that nobody can guess.
pub fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    for half in bytes.chunks_mut(16) {
        half.copy_from_slice(Uuid::new_v4().as_bytes());
    }
    bytes
}

/// One short fingerprint of several texts. Each goes in with its length before it, so that no two lists look the same.
pub fn digest(parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let bytes: [u8; 32] = hash.finalize().into();
    Uuid::from_bytes(*bytes.first_chunk().expect("16 is less than 32"))
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
pub fn same(left: &[u8], right: &[u8]) -> bool {
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
    fn a_setting_may_name_a_file() {
        let file = std::env::temp_dir().join(format!("revwallet-secret-{}", std::process::id()));
        std::fs::write(&file, "hush\n").expect("a file can be written");

        let secret = from_setting(&format!("@{}", file.display())).expect("it is there");

        assert_eq!(secret.reveal(), "hush");
        std::fs::remove_file(&file).expect("it is there");
        let gone = from_setting(&format!("@{}", file.display())).expect_err("it is gone");
        assert!(gone.contains("cannot be read"), "{gone}");
    }

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Some(Secret::from("hush".to_owned()))), "Some(***)");
    }
}

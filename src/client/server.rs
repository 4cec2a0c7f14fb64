//! The server that a command talks to: from flags, the environment, or a profile file.
//!
//! ```toml
//! [default]
//! url = "https://wallet.example.com"
//! key = "rwk_1_..."
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use url::Url;

use crate::secret::{self, Secret};

/// Name of the profile that is used if the user names neither a profile nor a URL.
const DEFAULT_PROFILE: &str = "default";

/// Permission bits of a file for all users except its owner.
const GROUP_AND_OTHERS: u32 = 0o077;

/// Options that name the server that a command talks to.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Server")]
pub struct ServerArgs {
    /// Profile in `~/.config/revwallet/profiles.toml` with the server's URL and key [default: default].
    #[arg(long, value_name = "NAME", global = true)]
    pub profile: Option<String>,
    /// URL of the server, such as `http://localhost:8080`. Overrides the URL of the profile; the key of the profile is
    /// then not sent.
    #[arg(long, env = "REVWALLET_URL", global = true, value_parser = server_url)]
    pub url: Option<Url>,
    /// API key or token, or `@` and the path of a file that contains it; overrides the key of the profile.
    #[arg(long, env = "REVWALLET_KEY", global = true, hide_env_values = true, value_parser = secret::from_setting)]
    pub key: Option<Secret>,
}

/// The URL of a server and the credential for it.
#[derive(Debug)]
pub(super) struct Server {
    pub url: Url,
    /// API key or token; `None` to send no credential, which a server with open access permits.
    pub key: Option<Secret>,
}

/// A section of the profile file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    url: String,
    key: Option<Secret>,
}

impl ServerArgs {
    /// Returns the server that the options name. The error tells the user which option or file is missing or wrong.
    pub(super) fn resolve(self) -> anyhow::Result<Server> {
        let Self { profile, url, key } = self;
        let key = key.filter(|key| !key.reveal().is_empty());
        if let Some(url) = url {
            ensure!(profile.is_none(), "give --profile or --url (REVWALLET_URL), not both");
            return Ok(Server { url, key });
        }
        let path = profiles_path()?;
        let name = profile.as_deref().unwrap_or(DEFAULT_PROFILE);
        let Some(found) = read_profile(&path, name)? else {
            bail!(
                "no server is configured: give --url or REVWALLET_URL, or add the profile [{name}] with url and key to {}",
                path.display()
            );
        };
        let url = server_url(&found.url)
            .map_err(|cause| anyhow!("the url of the profile [{name}] {cause}"))?;
        Ok(Server { url, key: key.or(found.key) })
    }
}

/// Parses the URL of a server, and adds a slash to the end of its path, so that the paths of routes can be joined to
/// it.
fn server_url(text: &str) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|cause| format!("is not a URL: {cause}"))?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err("must begin with http:// or https:// and a host".to_owned());
    }
    url.set_query(None);
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Returns the profile with this name, if the file exists and contains the profile. Returns an error if other users can
/// read the file, because it contains credentials.
fn read_profile(path: &Path, name: &str) -> anyhow::Result<Option<Profile>> {
    let metadata = match std::fs::metadata(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.with_context(|| format!("cannot read {}", path.display()))?,
    };
    ensure!(
        metadata.permissions().mode() & GROUP_AND_OTHERS == 0,
        "other users may read the keys in {0}: run chmod 600 {0}",
        path.display()
    );
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let mut profiles: BTreeMap<String, Profile> = toml::from_str(&text).map_err(|cause| {
        // The parser's message may show a key, so the error names only the line.
        let start = cause.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        let path = path.display();
        anyhow!(
            r#"line {line} of {path} is invalid: a profile is [NAME], url = "..." and key = "...""#
        )
    })?;
    Ok(profiles.remove(name))
}

fn profiles_path() -> anyhow::Result<PathBuf> {
    let folder = folder("XDG_CONFIG_HOME");
    let folder = folder.or_else(|| Some(self::folder("HOME")?.join(".config")));
    let folder = folder.context("HOME is not set: give --url or REVWALLET_URL")?;
    Ok(folder.join("revwallet/profiles.toml"))
}

#[expect(clippy::disallowed_methods, reason = "conventions of the system, not settings of ours")]
fn folder(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_joined_to_the_path_of_a_server() {
        for (text, joined) in [
            ("http://localhost:8080", "http://localhost:8080/wallet/1"),
            ("https://example.com/money", "https://example.com/money/wallet/1"),
            ("https://example.com/money/?a=b#c", "https://example.com/money/wallet/1"),
        ] {
            let url = server_url(text).expect("the URL is valid");

            assert_eq!(url.join("wallet/1").expect("the path is valid").as_str(), joined);
        }
        for text in ["localhost:8080", "ftp://example.com", "nonsense"] {
            assert!(server_url(text).is_err(), "{text}");
        }
    }
}

//! Targets of webhooks: the URLs to which deliveries are sent. Only public addresses are allowed, so that a webhook
//! cannot send requests into the operator's network.
//!
//! A host name is resolved for each connection, and its addresses are checked every time. So an attacker cannot bypass
//! the check by making the name resolve to a private address after the webhook was created.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use url::{Host, Url};

/// Longest time that a receiver may take to respond to a delivery.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that resolving a host name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Error text of a delivery that got no response for a reason other than a timeout. The text omits the exact cause:
/// the cause would reveal host names and open ports in the operator's network.
pub(super) const UNREACHABLE: &str = "no connection to the receiver: its host name does not resolve, or only to private \
     addresses, or it refused the connection, or TLS failed";

/// Longest URL of a webhook in its canonical form, in bytes.
const URL_MAX: usize = 2_000;

/// Creates an HTTP client that connects only to allowed addresses and does not follow redirects.
pub(super) fn client(allow_private: bool) -> anyhow::Result<reqwest::Client> {
    // Installation fails if a provider is already installed, which is harmless because it is the same provider.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .user_agent(concat!("revwallet/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        .redirect(Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(2)
        .dns_resolver(Arc::new(FilteringResolver { allow_private }))
        .build()?)
}

/// Parses the URL of a receiver and returns its canonical form without the fragment. Rejects private addresses. Host
/// names are resolved and checked later, for each connection.
pub(super) fn parse(text: &str, allow_private: bool) -> Result<Url, String> {
    let mut url = Url::parse(text).map_err(|cause| format!("is not a URL: {cause}"))?;
    url.set_fragment(None);
    if url.as_str().len() > URL_MAX {
        return Err(format!("must not have more than {URL_MAX} characters"));
    }
    if !["http", "https"].contains(&url.scheme()) {
        return Err("must begin with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must not contain a user or password: receivers verify the signature".to_owned()
        );
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err("must contain a host".to_owned()),
    };
    let local = matches!(url.host(), Some(Host::Domain(name)) if is_local_name(name));
    if !allow_private && (local || literal.is_some_and(|address| !is_public(address))) {
        return Err("must be a public address: private addresses require --webhook-allow-private"
            .to_owned());
    }
    Ok(url)
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.ends_with(".internal")
}

/// Whether an address belongs to the public internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = matches!(
        (a, b, c),
        // This network, carrier-grade NAT, protocol assignments, 6to4 relays, benchmarks, class E.
        (0 | 240..=255, ..) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _)
    );
    !(reserved
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || address.is_unspecified())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // An IPv6 address that contains an IPv4 address is public if the IPv4 address is.
    if let Some(mapped) = address.to_ipv4_mapped() {
        return is_public_v4(mapped);
    }
    let parts = address.segments();
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        // Global unicast addresses are public, except for those reserved for documentation, Teredo and similar
        // purposes.
        [first, second, ..] => {
            first & 0xe000 == 0x2000
                && !(first == 0x2001 && second < 0x200)
                && !(first == 0x2001 && second == 0xdb8)
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

/// A DNS resolver that returns only public addresses, unless private addresses are allowed.
struct FilteringResolver {
    allow_private: bool,
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0));
            let found = tokio::time::timeout(RESOLVE_TIMEOUT, found)
                .await
                .map_err(|_| "the host name was not resolved in time")??;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the host name resolves only to private addresses, which require --webhook-allow-private".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_refused() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "10.0.0.1",
            "172.16.5.5",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fd00::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a00:1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:db8::1]",
            "[ff02::1]",
            "[::127.0.0.1]",
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "metadata.google.internal",
        ] {
            let url = format!("http://{host}/hook");

            assert!(parse(&url, false).is_err(), "{url}");
            assert!(parse(&url, true).is_ok(), "{url}");
        }
    }

    #[test]
    fn public_addresses_are_accepted() {
        for host in
            ["example.com", "93.184.216.34", "[2606:2800:220:1:248:1893:25c8:1946]", "8.8.8.8"]
        {
            assert!(parse(&format!("https://{host}:8443/hook?x=1"), false).is_ok(), "{host}");
        }
    }

    #[test]
    fn invalid_urls_are_refused() {
        for url in [
            "",
            "x",
            "ftp://example.com",
            "file:///etc/passwd",
            "http://",
            "https://a:b@example.com",
            "javascript:1",
        ] {
            assert!(parse(url, true).is_err(), "{url}");
        }
    }

    #[test]
    fn spellings_of_a_url_have_one_canonical_form() {
        for url in [
            "https://example.com/hook",
            "HTTPS://EXAMPLE.com:443/hook",
            "https://example.com/a/../hook#fragment",
            "  https://example.com/hook",
        ] {
            assert_eq!(parse(url, false).unwrap().as_str(), "https://example.com/hook", "{url}");
        }
    }

    #[tokio::test]
    async fn host_names_of_private_addresses_are_not_resolved() {
        let name = || "localhost".parse().unwrap();

        assert!(FilteringResolver { allow_private: false }.resolve(name()).await.is_err());
        assert!(FilteringResolver { allow_private: true }.resolve(name()).await.is_ok());
    }
}

//! Where webhooks may go: not to machines that only we can reach.
//!
//! An address is checked when the name is resolved for the connection itself, so a name that meant another machine
//! when it was registered does not help.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use url::{Host, Url};

/// Longest that a receiver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest URL.
const URL_MAX: usize = 2_000;

/// A client that connects nowhere it should not.
pub(super) fn client(allow_private: bool) -> anyhow::Result<reqwest::Client> {
    // A second call finds it installed, which is as good.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .user_agent(concat!("revwallet/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        .redirect(Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(2)
        .dns_resolver(Arc::new(Guarded { allow_private }))
        .build()?)
}

/// The URL, if webhooks may go there. A name is looked up later, for each connection.
pub(super) fn parse(text: &str, allow_private: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|cause| format!("is no URL: {cause}"))?;
    if text.len() > URL_MAX {
        return Err(format!("must not have more than {URL_MAX} characters"));
    }
    if !["http", "https"].contains(&url.scheme()) {
        return Err("must begin with https:// or http://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must not hold a password: receivers verify the signature".to_owned());
    }
    let literal = match url.host() {
        Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        Some(Host::Domain(_)) => None,
        None => return Err("must name a host".to_owned()),
    };
    let local = matches!(url.host(), Some(Host::Domain(name)) if is_local_name(name));
    if !allow_private && (local || literal.is_some_and(|address| !is_public(address))) {
        return Err(
            "must be reachable from everywhere: private addresses need --webhook-allow-private"
                .to_owned(),
        );
    }
    Ok(url)
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.ends_with(".internal")
}

/// Whether an address is one of the open internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = matches!(
        (a, b, c),
        // This network, carrier's NAT, protocol assignments, benchmarks, class E.
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
    // What stands for an IPv4 address is judged as that.
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
        // Only global unicast is out there, but not documentation, Teredo and their kind.
        [first, second, ..] => {
            first & 0xe000 == 0x2000
                && !(first == 0x2001 && second < 0x200)
                && !(first == 0x2001 && second == 0xdb8)
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

struct Guarded {
    allow_private: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| allow_private || is_public(address.ip())).collect();
            if allowed.is_empty() {
                return Err("the name leads to a private address".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_only_we_can_reach_are_refused() {
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
    fn addresses_of_the_open_internet_are_taken() {
        for host in
            ["example.com", "93.184.216.34", "[2606:2800:220:1:248:1893:25c8:1946]", "8.8.8.8"]
        {
            assert!(parse(&format!("https://{host}:8443/hook?x=1"), false).is_ok(), "{host}");
        }
    }

    #[test]
    fn what_is_no_place_for_a_webhook_is_refused() {
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

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_connected_to() {
        let name = || "localhost".parse().unwrap();

        assert!(Guarded { allow_private: false }.resolve(name()).await.is_err());
        assert!(Guarded { allow_private: true }.resolve(name()).await.is_ok());
    }
}

//! The client's address: the peer of the connection, or the address that a trusted proxy reports.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderMap;
use ipnet::IpNet;

/// Networks of the proxies whose `X-Forwarded-For` header is trusted. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let network =
            |part: &str| part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
        let networks = parts.map(network);
        let networks: Result<Arc<[_]>, std::net::AddrParseError> = networks.collect();
        networks.map(Self).map_err(|_| "give networks, such as 10.0.0.0/8,192.168.1.7".to_owned())
    }
}

impl TrustedProxies {
    /// Whether the address is in a network of trusted proxies.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Returns the address of the client: the peer of the connection or, if the peer is a trusted proxy, the last address
/// in the `X-Forwarded-For` header that is not a trusted proxy. Earlier addresses in the header are ignored, because
/// the client could have forged them.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut address = peer.to_canonical();
    let values = headers.get_all("x-forwarded-for");
    let mut hops: Vec<&str> = values
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .collect();
    while trusted.contain(address) {
        match hops.pop().map(|hop| hop.trim().parse::<IpAddr>()) {
            Some(Ok(before)) => address = before.to_canonical(),
            // There is no earlier entry, or it is not an address, so the current address counts as the client's.
            Some(Err(_)) | None => break,
        }
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_trusted_proxy_wrote_is_believed() {
        let trusted: TrustedProxies = "10.0.0.0/8, 192.168.1.7".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "6.6.6.6, 1.2.3.4".parse().unwrap());
        headers.append("x-forwarded-for", "192.168.1.7".parse().unwrap());
        let of = |peer: &str| client_address(peer.parse().unwrap(), &headers, &trusted).to_string();

        assert_eq!(of("10.1.1.1"), "1.2.3.4");
        assert_eq!(of("::ffff:10.1.1.1"), "1.2.3.4");
        assert_eq!(of("9.9.9.9"), "9.9.9.9", "an untrusted peer is not believed");
        assert_eq!(
            client_address([10, 0, 0, 1].into(), &HeaderMap::new(), &trusted),
            IpAddr::from([10, 0, 0, 1])
        );
        assert!("10.0.0.0/99".parse::<TrustedProxies>().is_err());
    }
}

//! The network of a client's address. Per-address limits count all addresses of a network as one client.

use std::net::{IpAddr, Ipv6Addr};

/// Returns the network that counts as one client: the /64 prefix of an IPv6 address, which usually belongs to a single
/// client, or an IPv4 address itself, even if it arrives as an IPv4-mapped IPv6 address.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> String {
        client_network(text.parse().unwrap()).to_string()
    }

    #[test]
    fn an_ipv6_client_has_a_network_of_64_bits() {
        assert_eq!(network("2001:db8:0:1::1"), "2001:db8:0:1::");
        assert_eq!(network("2001:db8:0:1:ffff:ffff:ffff:ffff"), network("2001:db8:0:1::1"));
        assert_ne!(network("2001:db8:0:2::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::1"), "::");
    }

    #[test]
    fn an_ipv4_address_is_itself_also_when_mapped() {
        assert_eq!(network("1.2.3.4"), "1.2.3.4");
        assert_eq!(network("::ffff:1.2.3.4"), "1.2.3.4");
        assert_ne!(network("1.2.3.5"), network("::ffff:1.2.3.4"));
    }
}

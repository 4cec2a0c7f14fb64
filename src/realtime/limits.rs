//! Limits on the number of realtime connections, per process and per client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::auth::client_network;

/// Counts connections and enforces the limits. Cheap to clone.
#[derive(Clone)]
pub(super) struct SocketLimits(Arc<Counts>);

struct Counts {
    connections_max: usize,
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    connections: usize,
    /// Number of connections per client network (see [`client_network`]).
    addresses: HashMap<IpAddr, usize>,
}

/// The limit that another connection would exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitReached {
    Connections,
    Address,
}

/// Permit of a connection. The connection counts against the limits until the permit is dropped.
pub(super) struct Permit {
    counts: Arc<Counts>,
    address: Option<IpAddr>,
}

impl SocketLimits {
    pub(super) fn new(connections_max: usize, per_address: usize) -> Self {
        Self(Arc::new(Counts { connections_max, per_address, open: Mutex::default() }))
    }

    /// Counts a connection, or returns the limit that it would exceed.
    pub(super) fn take(&self, address: Option<IpAddr>) -> Result<Permit, LimitReached> {
        let address = address.map(client_network);
        let mut open = self.0.lock();
        if open.connections >= self.0.connections_max {
            return Err(LimitReached::Connections);
        }
        if let Some(address) = address {
            let count = open.addresses.entry(address).or_default();
            if *count >= self.0.per_address {
                return Err(LimitReached::Address);
            }
            *count += 1;
        }
        open.connections += 1;
        Ok(Permit { counts: Arc::clone(&self.0), address })
    }
}

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.counts.lock();
        open.connections -= 1;
        let Some(address) = self.address else { return };
        if let Some(count) = open.addresses.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.addresses.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_the_process_have_limits() {
        let limits = SocketLimits::new(3, 2);
        let [one, other] = [[1, 1, 1, 1], [2, 2, 2, 2]].map(|ip| Some(IpAddr::from(ip)));
        let first = limits.take(one).ok();
        let _second = limits.take(one).ok();

        assert_eq!(limits.take(one).err(), Some(LimitReached::Address));
        let _third = limits.take(other).ok();
        assert_eq!(limits.take(other).err(), Some(LimitReached::Connections));
        drop(first);
        assert!(limits.take(one).is_ok());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let limits = SocketLimits::new(10, 1);
        let take = |text: &str| limits.take(text.parse().ok());
        let first = take("2001:db8:0:1::1").ok();
        let _mapped = take("::ffff:1.2.3.4").ok();

        assert_eq!(take("2001:db8:0:1:ffff::2").err(), Some(LimitReached::Address));
        assert_eq!(take("1.2.3.4").err(), Some(LimitReached::Address));
        assert!(take("2001:db8:0:2::1").is_ok());
        drop(first);
        assert!(take("2001:db8:0:1::3").is_ok());
    }
}

//! Limits on open connections, per listener and per address, and the eviction (early closing) of idle connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{AddressShare, CloseReason, ConnectionLog, OpenConnection};
use crate::auth::client_network;
use crate::tasks::Tasks;

/// Idle time below which a connection is evicted only as a last resort, because its client may soon use it.
const YOUNG: Duration = Duration::from_secs(1);

/// Divisor of the connection limit; the quotient is the maximum number of connections that are evicted at once. Because
/// several connections are evicted at once, the table is searched less often during a flood of new connections.
const PRESSURE_PART: usize = 64;

/// Limits on the connections of a listener.
pub(in crate::http) struct ConnectionLimits {
    /// Maximum number of open connections of the listener.
    pub connections_max: usize,
    /// Maximum number of connections, and of concurrent requests, from one IP address.
    pub per_address: usize,
    /// Whether an address belongs to a trusted proxy, to which the limit per address does not apply.
    pub is_exempt: Box<dyn Fn(IpAddr) -> bool + Send + Sync>,
}

/// Table of a listener's open connections. It enforces the connection limits.
pub(in crate::http) struct ConnectionTable {
    limits: ConnectionLimits,
    /// Semaphore with a permit for each connection that may be open at the same time.
    room: Arc<Semaphore>,
    log: Arc<ConnectionLog>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<OpenConnection>>,
    addresses: HashMap<IpAddr, Address>,
}

/// Number of connections from an address, and the limits that these connections share.
struct Address {
    connections: usize,
    share: Arc<AddressShare>,
}

impl ConnectionTable {
    pub(in crate::http) fn new(limits: ConnectionLimits, log: Arc<ConnectionLog>) -> Self {
        let room = Arc::new(Semaphore::new(limits.connections_max));
        Self { limits, room, log, open: Mutex::default() }
    }

    /// Adds a connection, or returns `None` if the client's address has too many connections.
    pub(in crate::http) fn insert(self: &Arc<Self>, peer: IpAddr, tasks: &Tasks) -> Option<Entry> {
        let is_exempt = (self.limits.is_exempt)(peer);
        let key = (!is_exempt).then(|| client_network(peer));
        let mut open = self.lock();
        let share = match key {
            Some(key) => Some(open.add_to_address(key, self.limits.per_address)?),
            None => None,
        };
        let connection = Arc::new(OpenConnection::new(peer, share, tasks));
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, Arc::clone(&connection));
        Some(Entry { table: Arc::clone(self), id, key, connection })
    }

    /// Returns a permit for the connection, or `None` at shutdown. If no permit is left, evicts idle connections and
    /// waits until a connection has ended.
    pub(in crate::http) async fn find_room(
        &self,
        entry: &Entry,
        tasks: &Tasks,
    ) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() {
            return Some(permit);
        }
        self.evict_idle(Some(entry));
        let permit = Arc::clone(&self.room).acquire_owned();
        tasks.stopping().run_until_cancelled(permit).await?.ok()
    }

    /// Evicts idle connections other than `newcomer`. Connections that have not sent a request yet are evicted first,
    /// then the connections that have been idle longest.
    pub(in crate::http) fn evict_idle(&self, newcomer: Option<&Entry>) {
        let spared = newcomer.map(|entry| Arc::as_ptr(&entry.connection));
        let mut idle: Vec<_> = self
            .lock()
            .connections
            .values()
            .filter(|connection| spared != Some(Arc::as_ptr(connection)))
            .filter(|connection| connection.is_idle() && !connection.closing.is_cancelled())
            .map(|connection| {
                (connection.has_requests(), connection.idle_for(), connection.clone())
            })
            .collect();
        let some = (self.limits.connections_max / PRESSURE_PART).max(1).min(idle.len());
        if some == 0 {
            return;
        }
        idle.select_nth_unstable_by(some - 1, |one, other| {
            one.0.cmp(&other.0).then(other.1.cmp(&one.1))
        });
        idle.truncate(some);
        idle.sort_unstable_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
        for (place, (has_requests, idle_for, connection)) in idle.into_iter().enumerate() {
            // Apart from the first connection, only connections that will probably not be used soon are evicted.
            if place > 0 && (has_requests || idle_for < YOUNG) {
                break;
            }
            connection.closing.cancel();
            self.log.closed(CloseReason::Pressure);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn add_to_address(&mut self, key: IpAddr, max: usize) -> Option<Arc<AddressShare>> {
        let address = self
            .addresses
            .entry(key)
            .or_insert_with(|| Address { connections: 0, share: Arc::new(AddressShare::new(max)) });
        if address.connections >= max {
            return None;
        }
        address.connections += 1;
        Some(Arc::clone(&address.share))
    }

    fn remove_from_address(&mut self, key: IpAddr) {
        if let Some(address) = self.addresses.get_mut(&key) {
            address.connections -= 1;
            if address.connections == 0 {
                self.addresses.remove(&key);
            }
        }
    }
}

/// Entry of a connection in the table. Dropping the entry removes the connection from the table.
pub(in crate::http) struct Entry {
    table: Arc<ConnectionTable>,
    id: u64,
    key: Option<IpAddr>,
    pub(in crate::http) connection: Arc<OpenConnection>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.table.lock();
        open.connections.remove(&self.id);
        if let Some(key) = self.key {
            open.remove_from_address(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn table(connections_max: usize, per_address: usize) -> Arc<ConnectionTable> {
        let proxy = IpAddr::from([10, 0, 0, 1]);
        let is_exempt = Box::new(move |address| address == proxy);
        let limits = ConnectionLimits { connections_max, per_address, is_exempt };
        Arc::new(ConnectionTable::new(limits, Arc::new(ConnectionLog::new(Metrics::new()))))
    }

    fn is_closing(entry: &Entry) -> bool {
        entry.connection.closing.is_cancelled()
    }

    #[test]
    fn an_address_has_a_limit_and_a_trusted_proxy_has_none() {
        let (table, tasks) = (table(100, 2), Tasks::default());
        let [one, other, proxy] = [[1, 1, 1, 1], [2, 2, 2, 2], [10, 0, 0, 1]].map(IpAddr::from);
        let held: Vec<_> = (0..2).map(|_| table.insert(one, &tasks)).collect();
        assert!(held.iter().all(Option::is_some));

        assert!(table.insert(one, &tasks).is_none());
        let others: Vec<_> =
            [other, proxy, proxy, proxy].map(|peer| table.insert(peer, &tasks)).into();
        assert!(others.iter().all(Option::is_some));

        drop(held);
        assert!(table.insert(one, &tasks).is_some());
        drop(others);
        assert!(table.lock().addresses.is_empty() && table.lock().connections.is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let (table, tasks) = (table(100, 1), Tasks::default());
        let insert = |text: &str| table.insert(text.parse().unwrap(), &tasks);
        let _first = insert("2001:db8:0:1::1").unwrap();

        assert!(insert("2001:db8:0:1:ffff::2").is_none());
        assert!(insert("2001:db8:0:2::1").is_some());
        let _mapped = insert("::ffff:1.2.3.4").unwrap();
        assert!(insert("1.2.3.4").is_none());
    }

    #[test]
    fn connections_without_a_request_are_evicted_first_and_busy_ones_never() {
        let (table, tasks) = (table(3, 10), Tasks::default());
        let entry = || table.insert([1, 1, 1, 1].into(), &tasks).unwrap();
        let [busy, idle, fresh] = [entry(), entry(), entry()];
        let _slot = busy.connection.begin_request().unwrap();
        drop(idle.connection.begin_request().unwrap());
        let new = entry();

        let mut closing = Vec::new();
        for _ in 0..3 {
            table.evict_idle(Some(&new));
            closing.push([&busy, &idle, &fresh].map(is_closing));
        }

        assert_eq!(closing, [[false, false, true], [false, true, true], [false, true, true]]);
        assert!(!is_closing(&new));
    }
}

//! Metric and log lines about connections that the server closes early. The log lines are throttled.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::telemetry::Metrics;

/// Shortest time between two log lines. Without it, an attacker that makes the server close thousands of connections
/// per second would flood the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Reason why the server closes a connection early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum CloseReason {
    /// No request arrived within the header timeout.
    NoRequest,
    /// The client's address has too many connections already.
    Address,
    /// The connection was idle, and was evicted to make room for a new connection.
    Pressure,
    /// The client left a response unread for too long.
    Stalled,
    /// The server was closing the connection, because of shutdown or eviction, and the client took too long to finish
    /// its requests.
    Shutdown,
    /// The client violated the HTTP/2 protocol, for example by resetting too many streams.
    Protocol,
}

impl CloseReason {
    const ALL: [Self; 6] = [
        Self::NoRequest,
        Self::Address,
        Self::Pressure,
        Self::Stalled,
        Self::Shutdown,
        Self::Protocol,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::NoRequest => "no_request",
            Self::Address => "address",
            Self::Pressure => "pressure",
            Self::Stalled => "stalled",
            Self::Shutdown => "shutdown",
            Self::Protocol => "protocol",
        }
    }
}

/// Counts the connections that a listener closes early, and logs the counts.
pub(in crate::http) struct ConnectionLog {
    metrics: Arc<Metrics>,
    unlogged: Mutex<Unlogged>,
}

/// Number of connections that were closed since the last log line, by reason.
#[derive(Default)]
struct Unlogged {
    last_line: Option<Instant>,
    counts: [u64; CloseReason::ALL.len()],
}

impl ConnectionLog {
    pub(in crate::http) fn new(metrics: Arc<Metrics>) -> Self {
        for reason in CloseReason::ALL {
            metrics.wallet_http_connections_closed_total.preregister([reason.name()]);
        }
        Self { metrics, unlogged: Mutex::default() }
    }

    /// Counts a request head that hyper could not parse.
    pub(super) fn malformed(&self) {
        self.metrics.wallet_http_rejected_total.with(["malformed"]).increment(1);
    }

    pub(in crate::http) fn closed(&self, reason: CloseReason) {
        self.metrics.wallet_http_connections_closed_total.with([reason.name()]).increment(1);
        let mut unlogged = self.unlogged.lock().unwrap_or_else(PoisonError::into_inner);
        unlogged.counts[reason as usize] += 1;
        if unlogged.last_line.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        unlogged.last_line = Some(Instant::now());
        let counts = std::mem::take(&mut unlogged.counts);
        drop(unlogged);
        let [no_request, address, pressure, stalled, shutdown, protocol] = counts;
        warn!(
            event = "http.connections_closed",
            no_request,
            address,
            pressure,
            stalled,
            shutdown,
            protocol,
            "closed {} HTTP connections early since the last summary; the fields count them by reason",
            counts.iter().sum::<u64>(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_its_place_in_the_counts() {
        for (place, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}

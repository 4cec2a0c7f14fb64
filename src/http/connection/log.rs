//! Metric and throttled log of connections that the server closes early.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::telemetry::Metrics;

/// Shortest time between two log lines, because an attack can close thousands of connections per second.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Reason for closing a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http) enum CloseReason {
    /// No request arrived within the header timeout.
    NoRequest,
    /// The client's address has too many connections.
    Address,
    /// The connection was idle while another client was waiting to be accepted.
    Pressure,
    /// The client stopped reading.
    Stalled,
    /// The client took too long during shutdown or eviction.
    Shutdown,
    /// The client violated HTTP/2, for example with too many resets.
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

/// Metric and log of the closed connections of a listener.
pub(in crate::http) struct ConnectionLog {
    metrics: Arc<Metrics>,
    unlogged: Mutex<Unlogged>,
}

/// Counts since the last log line.
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
            "closed {} connections early since the last such line",
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

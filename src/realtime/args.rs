//! Settings for the connections on which clients receive live events.

use std::time::Duration;

use crate::settings;

/// Limits of WebSocket connections and gRPC streams, and the retention of events.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Realtime")]
pub struct RealtimeArgs {
    /// Maximum number of bytes that wait in memory for a WebSocket or gRPC client. While this queue is full, no further
    /// events are added; the client gets them after it has read the queued events.
    #[arg(long, env = "REVWALLET_REALTIME_QUEUE_BYTES", global = true, default_value_t = 262_144, value_parser = settings::count())]
    pub realtime_queue_bytes: usize,
    /// Longest time that a WebSocket client may take to empty a full queue. After that, its connection is closed with
    /// code 4008.
    #[arg(long, env = "REVWALLET_REALTIME_GRACE", global = true, default_value = "10s", value_parser = settings::positive_duration)]
    pub realtime_grace: Duration,
    /// Maximum number of WebSocket connections and gRPC streams per process.
    #[arg(long, env = "REVWALLET_REALTIME_CONNECTIONS_MAX", global = true, default_value_t = 20_000, value_parser = settings::count())]
    pub realtime_connections_max: usize,
    /// Maximum number of WebSocket connections and gRPC streams per client address and process. An IPv6 /64 network
    /// counts as one address.
    #[arg(long, env = "REVWALLET_REALTIME_CONNECTIONS_PER_ADDRESS", global = true, default_value_t = 1_000, value_parser = settings::count())]
    pub realtime_connections_per_address: usize,
    /// Maximum number of subscriptions of one WebSocket connection.
    #[arg(long, env = "REVWALLET_REALTIME_SUBSCRIPTIONS_MAX", global = true, default_value_t = 100, value_parser = settings::count())]
    pub realtime_subscriptions_max: usize,
    /// Time after which events that move no money are deleted. A client that reconnects with an older position gets an
    /// error instead of the events that it has missed.
    #[arg(long, env = "REVWALLET_EVENT_RETENTION", global = true, default_value = "7d", value_parser = settings::whole_seconds)]
    pub event_retention: Duration,
}

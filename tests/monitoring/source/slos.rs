//! Service level objectives over thirty days.

/// A service level objective: the share of events that must be good.
pub struct Slo {
    pub name: &'static str,
    /// Meaning of a good event to a user.
    pub description: &'static str,
    /// Required share of good events.
    pub objective: f64,
    /// Rate of bad events; `RANGE` stands for the window.
    pub errors: &'static str,
    /// Rate of all events.
    pub total: &'static str,
}

/// Windows of the recorded error ratios.
pub const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// A multiwindow burn-rate alert: fires when the error budget burns too fast over a long and a short window.
pub struct BurnRate {
    pub severity: &'static str,
    pub pending_for: &'static str,
    /// Burn-rate factor, long window, short window.
    pub windows: [(f64, &'static str, &'static str); 2],
}

pub const BURN_RATES: [BurnRate; 2] = [
    BurnRate {
        severity: "page",
        pending_for: "2m",
        windows: [(14.4, "1h", "5m"), (6.0, "6h", "30m")],
    },
    BurnRate {
        severity: "ticket",
        pending_for: "15m",
        windows: [(3.0, "1d", "2h"), (1.0, "3d", "6h")],
    },
];

/// Lowest event rate per second, over an hour, at which a burn-rate alert may fire.
pub const EVENT_RATE_MIN: f64 = 0.02;

pub const SLOS: &[Slo] = &[
    Slo {
        name: "http-availability",
        description: "HTTP requests answered without a server error (5xx).",
        objective: 0.999,
        errors: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route!~"/livez|/readyz|/metrics",http_response_status_code=~"5.."}[RANGE]))"#,
        total: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route!~"/livez|/readyz|/metrics"}[RANGE]))"#,
    },
    Slo {
        name: "http-latency",
        description: "HTTP requests that move money, answered within 250 ms.",
        objective: 0.99,
        errors: r#"(sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route=~"/wallet.*"}[RANGE])) - sum by (job) (rate(http_server_request_duration_seconds_bucket{job="revwallet",http_request_method="POST",http_route=~"/wallet.*",le="0.25"}[RANGE])))"#,
        total: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route=~"/wallet.*"}[RANGE]))"#,
    },
    Slo {
        name: "grpc-availability",
        description: "gRPC calls that end without UNKNOWN, INTERNAL, UNAVAILABLE or DATA_LOSS; without streams, which end when their process stops.",
        objective: 0.999,
        errors: r#"sum by (job) (rate(rpc_server_call_duration_seconds_count{job="revwallet",rpc_method!~".*/(WatchBalance|PostStream)",rpc_response_status_code=~"UNKNOWN|INTERNAL|UNAVAILABLE|DATA_LOSS"}[RANGE]))"#,
        total: r#"sum by (job) (rate(rpc_server_call_duration_seconds_count{job="revwallet",rpc_method!~".*/(WatchBalance|PostStream)"}[RANGE]))"#,
    },
    Slo {
        name: "grpc-latency",
        description: "gRPC calls that move money, answered within 250 ms.",
        objective: 0.99,
        errors: r#"(sum by (job) (rate(rpc_server_call_duration_seconds_count{job="revwallet",rpc_method=~".*/(Deposit|Withdraw|Transfer)"}[RANGE])) - sum by (job) (rate(rpc_server_call_duration_seconds_bucket{job="revwallet",rpc_method=~".*/(Deposit|Withdraw|Transfer)",le="0.25"}[RANGE])))"#,
        total: r#"sum by (job) (rate(rpc_server_call_duration_seconds_count{job="revwallet",rpc_method=~".*/(Deposit|Withdraw|Transfer)"}[RANGE]))"#,
    },
    Slo {
        name: "ledger-commit",
        description: "Transfers committed or rejected by a rule, without an internal error.",
        objective: 0.9999,
        errors: r#"sum by (job) (rate(wallet_ledger_transfers_total{job="revwallet",outcome="error"}[RANGE]))"#,
        total: r#"sum by (job) (rate(wallet_ledger_transfers_total{job="revwallet"}[RANGE]))"#,
    },
    Slo {
        name: "auth",
        description: "Requests for users and API keys answered without a server error (5xx).",
        objective: 0.9995,
        errors: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route=~"/api/(users|keys).*",http_response_status_code=~"5.."}[RANGE]))"#,
        total: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route=~"/api/(users|keys).*"}[RANGE]))"#,
    },
    Slo {
        name: "webhook-delivery",
        description: "Webhook delivery attempts accepted by the receiver.",
        objective: 0.95,
        errors: r#"sum by (job) (rate(wallet_webhook_deliveries_total{job="revwallet",outcome="failed"}[RANGE]))"#,
        total: r#"sum by (job) (rate(wallet_webhook_deliveries_total{job="revwallet"}[RANGE]))"#,
    },
    Slo {
        name: "realtime-delivery",
        description: "Batches of events of WebSockets, and events of gRPC streams, handed over within 500 ms of their commit.",
        objective: 0.999,
        errors: r#"(sum by (job) (rate(wallet_ws_fanout_lag_seconds_count{job="revwallet"}[RANGE])) - sum by (job) (rate(wallet_ws_fanout_lag_seconds_bucket{job="revwallet",le="0.5"}[RANGE])))"#,
        total: r#"sum by (job) (rate(wallet_ws_fanout_lag_seconds_count{job="revwallet"}[RANGE]))"#,
    },
    Slo {
        name: "synthetic-transfer",
        description: "Synthetic transfers through the public address that succeed.",
        objective: 0.995,
        errors: r#"sum by (job) (rate(wallet_probe_total{job="revwallet",outcome="failed"}[RANGE]))"#,
        total: r#"sum by (job) (rate(wallet_probe_total{job="revwallet"}[RANGE]))"#,
    },
];

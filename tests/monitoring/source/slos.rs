//! What is promised, over thirty days.

/// A promise: which share of what was asked for may go wrong.
pub struct Slo {
    pub name: &'static str,
    /// What it means to a user.
    pub meaning: &'static str,
    /// Share that goes well.
    pub objective: f64,
    /// A second, of what went wrong; `RANGE` is the window.
    pub wrong: &'static str,
    /// A second, of all.
    pub all: &'static str,
}

/// The windows that errors are looked at in.
pub const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// How fast the budget of thirty days is used up: by so many times, over a long and a short window.
pub struct Burn {
    pub severity: &'static str,
    pub lasts: &'static str,
    /// Factor, long window, short window.
    pub pairs: [(f64, &'static str, &'static str); 2],
}

pub const BURNS: [Burn; 2] = [
    Burn { severity: "page", lasts: "2m", pairs: [(14.4, "1h", "5m"), (6.0, "6h", "30m")] },
    Burn { severity: "ticket", lasts: "15m", pairs: [(3.0, "1d", "2h"), (1.0, "3d", "6h")] },
];

/// Less than this a second over an hour is too little to wake somebody for.
pub const LEAST_RATE: f64 = 0.02;

pub const SLOS: &[Slo] = &[
    Slo {
        name: "http-availability",
        meaning: "Requests that are answered without a fault of ours.",
        objective: 0.999,
        wrong: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route!~"/livez|/readyz|/metrics",http_response_status_code=~"5.."}[RANGE]))"#,
        all: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route!~"/livez|/readyz|/metrics"}[RANGE]))"#,
    },
    Slo {
        name: "http-latency",
        meaning: "Requests that move money and are answered within 250 ms.",
        objective: 0.99,
        wrong: r#"(sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route=~"/wallet.*"}[RANGE])) - sum by (job) (rate(http_server_request_duration_seconds_bucket{job="revwallet",http_request_method="POST",http_route=~"/wallet.*",le="0.25"}[RANGE])))"#,
        all: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route=~"/wallet.*"}[RANGE]))"#,
    },
    Slo {
        name: "ledger-commit",
        meaning: "Transfers that are decided, whatever the decision, without a fault of ours.",
        objective: 0.9999,
        wrong: r#"sum by (job) (rate(wallet_ledger_transfers_total{job="revwallet",outcome="error"}[RANGE]))"#,
        all: r#"sum by (job) (rate(wallet_ledger_transfers_total{job="revwallet"}[RANGE]))"#,
    },
    Slo {
        name: "auth",
        meaning: "Requests around users and keys that are answered without a fault of ours.",
        objective: 0.9995,
        wrong: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route=~"/api/(users|keys).*",http_response_status_code=~"5.."}[RANGE]))"#,
        all: r#"sum by (job) (rate(http_server_request_duration_seconds_count{job="revwallet",http_route=~"/api/(users|keys).*"}[RANGE]))"#,
    },
    Slo {
        name: "webhook-delivery",
        meaning: "Attempts to tell a webhook that its receiver takes.",
        objective: 0.95,
        wrong: r#"sum by (job) (rate(wallet_webhook_deliveries_total{job="revwallet",outcome="failed"}[RANGE]))"#,
        all: r#"sum by (job) (rate(wallet_webhook_deliveries_total{job="revwallet"}[RANGE]))"#,
    },
    Slo {
        name: "synthetic-transfer",
        meaning: "Transfers of the synthetic probe, through the public address, that succeed.",
        objective: 0.995,
        wrong: r#"sum by (job) (rate(wallet_probe_total{job="revwallet",outcome="failed"}[RANGE]))"#,
        all: r#"sum by (job) (rate(wallet_probe_total{job="revwallet"}[RANGE]))"#,
    },
];

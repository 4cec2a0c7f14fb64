//! Alerts of the exchange.

use super::Alert;

pub(super) const ALERTS: &[Alert] = &[
    Alert {
        name: "OrdersStuck",
        severity: "ticket",
        expression: r#"sum by (job) (max by (job, saga) (wallet_saga_in_flight{state="stuck"})) > 0"#,
        pending_for: "2m",
        summary: "{{ $value }} orders are stuck: an undo failed permanently, and an operator has to decide",
        dashboard: "revwallet-exchange",
        firing_series: &[(
            r#"wallet_saga_in_flight{job="revwallet",saga="buy",state="stuck"}"#,
            "0x10 1x100",
        )],
    },
    Alert {
        name: "OrdersUnknown",
        severity: "page",
        expression: r#"sum by (job) (max by (job, saga) (wallet_saga_in_flight{state="unknown"})) > 0"#,
        pending_for: "5m",
        summary: "{{ $value }} orders have an unknown outcome: their money stays held until the other system answers",
        dashboard: "revwallet-exchange",
        firing_series: &[(
            r#"wallet_saga_in_flight{job="revwallet",saga="sell",state="unknown"}"#,
            "0x10 2x100",
        )],
    },
    Alert {
        name: "OrdersStalled",
        severity: "ticket",
        expression: r"max by (job, saga) (wallet_saga_oldest_seconds) > 3600",
        pending_for: "5m",
        summary: "The oldest order to {{ $labels.saga }} has been open for more than an hour",
        dashboard: "revwallet-exchange",
        firing_series: &[(
            r#"wallet_saga_oldest_seconds{job="revwallet",saga="buy"}"#,
            "0x10 4000x100",
        )],
    },
    Alert {
        name: "OrdersOfUnknownVersion",
        severity: "ticket",
        expression: r"sum by (job) (increase(wallet_saga_unknown_versions_total[10m])) > 0",
        pending_for: "10m",
        summary: "Orders wait for a worker of another version of the program",
        dashboard: "revwallet-exchange",
        firing_series: &[(r#"wallet_saga_unknown_versions_total{job="revwallet"}"#, "0x5 0+2x100")],
    },
    Alert {
        name: "HotWalletShort",
        severity: "ticket",
        expression: r"sum by (job) (increase(wallet_exchange_hot_wallet_short_total[10m])) > 0",
        pending_for: "2m",
        summary: "Orders wait because a hot wallet is short",
        dashboard: "revwallet-exchange",
        firing_series: &[(
            r#"wallet_exchange_hot_wallet_short_total{job="revwallet"}"#,
            "0x5 0+1x100",
        )],
    },
    Alert {
        name: "OrderNotificationsFailing",
        severity: "ticket",
        expression: r#"sum by (job) (increase(wallet_saga_notifications_total{outcome="failed"}[15m])) > 5"#,
        pending_for: "5m",
        summary: "Users cannot be told about their orders",
        dashboard: "revwallet-exchange",
        firing_series: &[(
            r#"wallet_saga_notifications_total{job="revwallet",outcome="failed"}"#,
            "0x5 0+2x100",
        )],
    },
];

//! Alert definitions. Each alert has a runbook: `docs/runbooks/<name>.md`.

mod exchange;

/// An alerting rule that requires action by the operator.
pub struct Alert {
    pub name: &'static str,
    /// `page`: act now, at any hour. `ticket`: act within the next working hours.
    pub severity: &'static str,
    pub expression: &'static str,
    /// How long the expression must hold before the alert fires: `for` in Prometheus.
    pub pending_for: &'static str,
    pub summary: &'static str,
    /// The dashboard to look at first.
    pub dashboard: &'static str,
    /// Input series that make the alert fire in its unit test, in promtool's notation.
    pub firing_series: &'static [(&'static str, &'static str)],
}

/// Evaluation time of the unit tests in minutes, long enough for every alert to fire.
pub const UNIT_TEST_MINUTES: u32 = 90;

/// Every alert.
pub fn all() -> impl Iterator<Item = &'static Alert> {
    ALERTS.iter().chain(exchange::ALERTS)
}

const ALERTS: &[Alert] = &[
    Alert {
        name: "LedgerInvariantViolated",
        severity: "page",
        expression: r#"sum by (job) (increase(wallet_ledger_invariant_checks_total{outcome="violated"}[10m])) > 0 or max by (job) (abs(wallet_ledger_imbalance_minor_units)) > 0"#,
        pending_for: "0s",
        summary: "Ledger audit failed: balances may be wrong",
        dashboard: "revwallet-ledger",
        firing_series: &[(
            r#"wallet_ledger_imbalance_minor_units{job="revwallet",currency="EUR"}"#,
            "0x20 -5x100",
        )],
    },
    Alert {
        name: "LedgerWriterStalled",
        severity: "page",
        expression: r"max by (job, instance) (wallet_ledger_oldest_queued_seconds) > 15",
        pending_for: "1m",
        summary: "Ledger writer stalled on {{ $labels.instance }}: a posting has been queued for more than 15 s, so no transfer commits",
        dashboard: "revwallet-ledger",
        firing_series: &[(
            r#"wallet_ledger_oldest_queued_seconds{job="revwallet",instance="a"}"#,
            "0x10 40x100",
        )],
    },
    Alert {
        name: "LedgerAuditorStale",
        severity: "page",
        expression: r#"max by (job) (wallet_book_reader_lag_transfers{reader="auditor"}) > 0 and on (job) (time() - max by (job) (wallet_ledger_last_check_timestamp_seconds)) > 300"#,
        pending_for: "5m",
        summary: "Ledger auditor stalled: transfers have gone unchecked for more than five minutes",
        dashboard: "revwallet-ledger",
        firing_series: &[
            (r#"wallet_book_reader_lag_transfers{job="revwallet",reader="auditor"}"#, "7x200"),
            (r#"wallet_ledger_last_check_timestamp_seconds{job="revwallet"}"#, "60x200"),
        ],
    },
    Alert {
        name: "TargetMissing",
        severity: "page",
        expression: r#"up{job="revwallet"} == 0 or absent(up{job="revwallet"})"#,
        pending_for: "2m",
        summary: "A revwallet process is down or does not answer scrapes",
        dashboard: "revwallet-overview",
        firing_series: &[(r#"up{job="revwallet",instance="a"}"#, "1x10 0x100")],
    },
    Alert {
        name: "DatabaseDown",
        severity: "page",
        expression: r#"min by (job, instance) (wallet_ready{check="database"}) == 0"#,
        pending_for: "1m",
        summary: "Database unreachable from {{ $labels.instance }}: requests fail",
        dashboard: "revwallet-postgres",
        firing_series: &[(
            r#"wallet_ready{job="revwallet",instance="a",check="database"}"#,
            "1x10 0x100",
        )],
    },
    Alert {
        name: "EdgeDown",
        severity: "page",
        expression: r#"nginx_up == 0 or up{job="nginx"} == 0"#,
        pending_for: "2m",
        summary: "Nginx is down on {{ $labels.instance }}: clients cannot reach the service",
        dashboard: "revwallet-edge",
        firing_series: &[(r#"nginx_up{job="nginx",instance="a"}"#, "1x10 0x100")],
    },
    Alert {
        name: "PoolExhausted",
        severity: "page",
        expression: r"sum by (job, instance) (rate(db_client_connection_timeouts_total[5m])) > 0",
        pending_for: "2m",
        summary: "Connection pool exhausted on {{ $labels.instance }}: requests time out",
        dashboard: "revwallet-postgres",
        firing_series: &[(
            r#"db_client_connection_timeouts_total{job="revwallet",instance="a"}"#,
            "0+5x120",
        )],
    },
    Alert {
        name: "PanicCaught",
        severity: "page",
        expression: r"sum by (job, place) (increase(wallet_panics_total[15m])) > 0",
        pending_for: "0s",
        summary: "Panic caught in {{ $labels.place }}: the log has the message and the location",
        dashboard: "revwallet-runtime",
        firing_series: &[(r#"wallet_panics_total{job="revwallet",place="http"}"#, "0x80 1x20")],
    },
    Alert {
        name: "DiskFillsIn4h",
        severity: "page",
        expression: r#"predict_linear(node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|ramfs"}[1h], 4 * 3600) < 0"#,
        pending_for: "10m",
        summary: "Disk {{ $labels.mountpoint }} on {{ $labels.instance }} will be full within four hours: a full disk stops every transfer",
        dashboard: "revwallet-runtime",
        firing_series: &[(
            r#"node_filesystem_avail_bytes{job="node",instance="a",fstype="ext4",mountpoint="/"}"#,
            "1000000000-10000000x120",
        )],
    },
    Alert {
        name: "LedgerQueueNearCapacity",
        severity: "ticket",
        expression: r"max by (job, instance) (wallet_ledger_queue_depth / wallet_ledger_queue_capacity) > 0.8",
        pending_for: "5m",
        summary: "Ledger queue is {{ $value | humanizePercentage }} full: when it is full, requests are rejected",
        dashboard: "revwallet-ledger",
        firing_series: &[
            (r#"wallet_ledger_queue_depth{job="revwallet",instance="a"}"#, "90x120"),
            (r#"wallet_ledger_queue_capacity{job="revwallet",instance="a"}"#, "100x120"),
        ],
    },
    Alert {
        name: "RequestsTurnedAway",
        severity: "ticket",
        expression: r#"sum by (job) (rate(wallet_http_rejected_total{reason=~"load_shed|timeout"}[5m])) > 0.5"#,
        pending_for: "5m",
        summary: "{{ $value | humanize }} requests per second are rejected: load shedding or timeouts",
        dashboard: "revwallet-http",
        firing_series: &[(
            r#"wallet_http_rejected_total{job="revwallet",reason="load_shed"}"#,
            "0+60x120",
        )],
    },
    Alert {
        name: "BookReaderLag",
        severity: "ticket",
        expression: r"max by (job, reader) (wallet_book_reader_lag_transfers) > 10000",
        pending_for: "5m",
        summary: "Ledger reader {{ $labels.reader }} lags {{ $value | humanize }} transfers behind",
        dashboard: "revwallet-jobs",
        firing_series: &[(
            r#"wallet_book_reader_lag_transfers{job="revwallet",reader="webhooks"}"#,
            "20000x120",
        )],
    },
    Alert {
        name: "JobsWaiting",
        severity: "ticket",
        expression: r"histogram_quantile(0.9, sum by (job, queue, le) (rate(wallet_job_latency_seconds_bucket[10m]))) > 5",
        pending_for: "10m",
        summary: "Job queue {{ $labels.queue }} is slow: one job in ten waits more than 5 s for a worker",
        dashboard: "revwallet-jobs",
        firing_series: &[
            (r#"wallet_job_latency_seconds_bucket{job="revwallet",queue="q",le="5.5"}"#, "0+1x120"),
            (
                r#"wallet_job_latency_seconds_bucket{job="revwallet",queue="q",le="10.5"}"#,
                "0+20x120",
            ),
            (
                r#"wallet_job_latency_seconds_bucket{job="revwallet",queue="q",le="+Inf"}"#,
                "0+20x120",
            ),
        ],
    },
    Alert {
        name: "ProbeFailing",
        severity: "page",
        expression: r#"sum by (job) (rate(wallet_probe_total{outcome="ok"}[2m])) == 0 and sum by (job) (rate(wallet_probe_total{outcome="failed"}[10m])) > 0"#,
        pending_for: "1m",
        summary: "Synthetic transfers fail: none has succeeded through the public address for two minutes",
        dashboard: "revwallet-overview",
        firing_series: &[
            (r#"wallet_probe_total{job="revwallet",outcome="failed"}"#, "0+4x120"),
            (r#"wallet_probe_total{job="revwallet",outcome="ok"}"#, "0+0x120"),
        ],
    },
    Alert {
        name: "WebhooksFailing",
        severity: "ticket",
        expression: r#"sum by (job) (rate(wallet_webhook_deliveries_total{outcome="failed"}[15m])) / sum by (job) (rate(wallet_webhook_deliveries_total[15m])) > 0.5"#,
        pending_for: "15m",
        summary: "Webhook deliveries fail: {{ $value | humanizePercentage }} of the attempts",
        dashboard: "revwallet-jobs",
        firing_series: &[
            (r#"wallet_webhook_deliveries_total{job="revwallet",outcome="failed"}"#, "0+9x120"),
            (r#"wallet_webhook_deliveries_total{job="revwallet",outcome="delivered"}"#, "0+1x120"),
        ],
    },
    Alert {
        name: "PrizesUnpaid",
        severity: "ticket",
        expression: r#"max by (job) (wallet_leaderboard_prizes_open{state="unpaid"}) > 0"#,
        pending_for: "1m",
        summary: "{{ $value | humanize }} prizes of leaderboards could not be paid or received",
        dashboard: "revwallet-play",
        firing_series: &[(
            r#"wallet_leaderboard_prizes_open{job="revwallet",state="unpaid"}"#,
            "0x20 2x100",
        )],
    },
    Alert {
        name: "SeasonOverdue",
        severity: "ticket",
        expression: r"max by (job) (wallet_leaderboard_season_overdue_seconds) > 60",
        pending_for: "2m",
        summary: "A season of a leaderboard is {{ $value | humanizeDuration }} past its end: no worker ends it",
        dashboard: "revwallet-play",
        firing_series: &[(
            r#"wallet_leaderboard_season_overdue_seconds{job="revwallet"}"#,
            "0x20 100+60x100",
        )],
    },
    Alert {
        name: "RefundSpike",
        severity: "ticket",
        expression: r#"sum by (job) (increase(wallet_store_refunds_total[1h])) > 10 and sum by (job) (increase(wallet_store_refunds_total[1h])) > 0.3 * sum by (job) (increase(wallet_store_purchases_total{outcome=~"paid|free|gift"}[1h]))"#,
        pending_for: "5m",
        summary: "{{ $value | humanize }} games were refunded within an hour, more than three of ten that were sold",
        dashboard: "revwallet-store",
        firing_series: &[
            (r#"wallet_store_refunds_total{job="revwallet"}"#, "0x20 0+1x100"),
            (r#"wallet_store_purchases_total{job="revwallet",outcome="paid"}"#, "0+1x20 20+2x100"),
        ],
    },
    Alert {
        name: "CodesGuessed",
        severity: "ticket",
        expression: r#"sum by (job, scope) (increase(wallet_rate_limited_total{scope=~"code|activation_key"}[15m])) > 20"#,
        pending_for: "0s",
        summary: "{{ $value | humanize }} attempts of the kind {{ $labels.scope }} had to wait within 15 minutes: an attacker may guess",
        dashboard: "revwallet-store",
        firing_series: &[(
            r#"wallet_rate_limited_total{job="revwallet",scope="activation_key"}"#,
            "0x80 50x20",
        )],
    },
    Alert {
        name: "PublisherInDebt",
        severity: "ticket",
        expression: "max by (job, currency) (wallet_store_publisher_debt_minor_units) > 0",
        pending_for: "1h",
        summary: "Publishers owe {{ $value | humanize }} minor units of {{ $labels.currency }} after refunds",
        dashboard: "revwallet-store",
        firing_series: &[(
            r#"wallet_store_publisher_debt_minor_units{job="revwallet",currency="EUR"}"#,
            "0x20 500x100",
        )],
    },
    Alert {
        name: "DeadLetters",
        severity: "ticket",
        expression: r"max by (job, queue) (wallet_dead_letters) > 0",
        pending_for: "5m",
        summary: "{{ $value | humanize }} dead letters in {{ $labels.queue }}: fix the cause, then replay them",
        dashboard: "revwallet-jobs",
        firing_series: &[(r#"wallet_dead_letters{job="revwallet",queue="q"}"#, "3x120")],
    },
    Alert {
        name: "LoginFailureSpike",
        severity: "ticket",
        expression: r#"sum by (job) (rate(wallet_auth_attempts_total{method="password",outcome=~"bad_credentials|locked"}[5m])) > 1"#,
        pending_for: "5m",
        summary: "{{ $value | humanize }} logins per second fail: possible brute-force attack on passwords",
        dashboard: "revwallet-security",
        firing_series: &[(
            r#"wallet_auth_attempts_total{job="revwallet",method="password",outcome="bad_credentials"}"#,
            "0+120x120",
        )],
    },
    Alert {
        name: "ErrorsLogged",
        severity: "ticket",
        expression: r#"sum by (job) (increase(wallet_log_events_total{level="error"}[15m])) > 0"#,
        pending_for: "0s",
        summary: "Errors logged: each one requires action",
        dashboard: "revwallet-logs",
        firing_series: &[(
            r#"wallet_log_events_total{job="revwallet",level="error"}"#,
            "0x80 2x20",
        )],
    },
    Alert {
        name: "LogLinesDropped",
        severity: "ticket",
        expression: r"sum by (job) (increase(wallet_log_dropped_total[15m])) > 0",
        pending_for: "0s",
        summary: "Log lines dropped: the log output is read too slowly",
        dashboard: "revwallet-telemetry",
        firing_series: &[(r#"wallet_log_dropped_total{job="revwallet"}"#, "0x80 5x20")],
    },
    Alert {
        name: "WebSocketClientsSlow",
        severity: "ticket",
        expression: r#"sum by (job) (increase(wallet_ws_dropped_total{reason="slow_consumer"}[15m])) > 5"#,
        pending_for: "0s",
        summary: "{{ $value | humanize }} WebSocket clients were closed within 15 minutes because they read too slowly",
        dashboard: "revwallet-realtime",
        firing_series: &[(
            r#"wallet_ws_dropped_total{job="revwallet",reason="slow_consumer"}"#,
            "0x80 20x20",
        )],
    },
    Alert {
        name: "WebSocketsRefused",
        severity: "ticket",
        expression: r#"sum by (job, reason) (increase(wallet_ws_refused_total{reason=~"connections|address"}[15m])) > 20"#,
        pending_for: "0s",
        summary: "WebSocket connections are refused because of the limit of {{ $labels.reason }}",
        dashboard: "revwallet-realtime",
        firing_series: &[(
            r#"wallet_ws_refused_total{job="revwallet",reason="address"}"#,
            "0x80 50x20",
        )],
    },
    Alert {
        name: "EmbeddedPostgresRestarted",
        severity: "ticket",
        expression: r"sum by (job) (increase(wallet_embedded_postgres_restarts_total[1h])) > 0",
        pending_for: "0s",
        summary: "Embedded Postgres crashed and was restarted",
        dashboard: "revwallet-postgres",
        firing_series: &[(
            r#"wallet_embedded_postgres_restarts_total{job="revwallet"}"#,
            "0x60 1x40",
        )],
    },
    Alert {
        name: "LongTransactions",
        severity: "ticket",
        expression: r"max by (datname) (pg_stat_activity_max_tx_duration) > 600",
        pending_for: "5m",
        summary: "A transaction in {{ $labels.datname }} has been open for more than ten minutes: vacuum cannot remove dead rows",
        dashboard: "revwallet-postgres",
        firing_series: &[(
            r#"pg_stat_activity_max_tx_duration{job="postgres",datname="revwallet"}"#,
            "900x120",
        )],
    },
    Alert {
        name: "ReplicationSlotLag",
        severity: "ticket",
        expression: r"max by (slot_name) (pg_replication_slots_pg_wal_lsn_diff) > 10 * 1024 * 1024 * 1024",
        pending_for: "10m",
        summary: "Replication slot {{ $labels.slot_name }} retains more than 10 GiB of write-ahead log: the disk may fill up",
        dashboard: "revwallet-postgres",
        firing_series: &[(
            r#"pg_replication_slots_pg_wal_lsn_diff{job="postgres",slot_name="s"}"#,
            "20000000000x120",
        )],
    },
    Alert {
        name: "WalArchiveFailing",
        severity: "ticket",
        expression: r"sum by (job) (increase(pg_stat_archiver_failed_count[15m])) > 0",
        pending_for: "10m",
        summary: "WAL archiving fails: point-in-time recovery stops at the last archived segment, and the disk fills up",
        dashboard: "revwallet-postgres",
        firing_series: &[(r#"pg_stat_archiver_failed_count{job="postgres"}"#, "0x10 0+1x110")],
    },
    Alert {
        name: "SeriesNearBudget",
        severity: "ticket",
        expression: r#"max by (job, instance) (scrape_samples_scraped{job="revwallet"}) > 10000"#,
        pending_for: "10m",
        summary: "{{ $labels.instance }} exports {{ $value | humanize }} series, more than its budget of 10,000",
        dashboard: "revwallet-telemetry",
        firing_series: &[(r#"scrape_samples_scraped{job="revwallet",instance="a"}"#, "12000x120")],
    },
    Alert {
        name: "RulesFailing",
        severity: "ticket",
        expression: r"sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total[15m])) > 0",
        pending_for: "0s",
        summary: "Rule group {{ $labels.rule_group }} fails to evaluate: alerts may be missing",
        dashboard: "revwallet-telemetry",
        firing_series: &[(
            r#"prometheus_rule_evaluation_failures_total{job="prometheus",rule_group="g"}"#,
            "0x80 3x20",
        )],
    },
    Alert {
        name: "NotificationsFailing",
        severity: "ticket",
        expression: r"sum by (integration) (increase(alertmanager_notifications_failed_total[15m])) > 0",
        pending_for: "0s",
        summary: "Alertmanager notifications through {{ $labels.integration }} fail: alerts may not arrive",
        dashboard: "revwallet-telemetry",
        firing_series: &[(
            r#"alertmanager_notifications_failed_total{job="alertmanager",integration="webhook"}"#,
            "0x80 3x20",
        )],
    },
    Alert {
        name: "LogPipelineLossy",
        severity: "ticket",
        expression: r"sum by (job) (increase(loki_write_dropped_entries_total[15m])) > 0",
        pending_for: "0s",
        summary: "Alloy drops log lines on the way to Loki",
        dashboard: "revwallet-telemetry",
        firing_series: &[(r#"loki_write_dropped_entries_total{job="alloy"}"#, "0x80 3x20")],
    },
    Alert {
        name: "LogLinesDiscarded",
        severity: "ticket",
        expression: r"sum by (reason) (increase(loki_discarded_samples_total[15m])) > 0",
        pending_for: "0s",
        summary: "Loki discards log lines: {{ $labels.reason }}",
        dashboard: "revwallet-telemetry",
        firing_series: &[(
            r#"loki_discarded_samples_total{job="loki",reason="rate_limited"}"#,
            "0x80 3x20",
        )],
    },
    Alert {
        name: "TraceSpansDiscarded",
        severity: "ticket",
        expression: r"sum by (reason) (increase(tempo_discarded_spans_total[15m])) > 0",
        pending_for: "0s",
        summary: "Tempo discards spans: {{ $labels.reason }}",
        dashboard: "revwallet-telemetry",
        firing_series: &[(
            r#"tempo_discarded_spans_total{job="tempo",reason="live_traces_exceeded"}"#,
            "0x80 3x20",
        )],
    },
];

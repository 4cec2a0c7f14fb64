//! What everything stands on.

use crate::source::grafana::{Dashboard, From, Kind, lines, number};

const NO_EXPORTER: &str = "Alloy's exporter brings it";
const NO_EDGE: &str = "the edge brings it";

pub fn postgres() -> Dashboard {
    Dashboard {
        uid: "revwallet-postgres",
        title: "Postgres",
        folder: "revwallet",
        description: "The pool as the program sees it, the server as its exporter does.",
        texts: &[],
        panels: vec![
            number("Database", "short", "Whether it answers the program.").query(r#"min(wallet_ready{,check="database"})"#, "answers").thresholds(0.9, 0.5).size(6, 4),
            number("Pool in use", "percentunit", "Connections that are in use, of those that may be open.")
                .query(r#"max(db_client_connection_count{,state="used"} / on (instance) db_client_connection_max{})"#, "used")
                .thresholds(0.8, 0.95)
                .size(6, 4),
            number("Waiting", "short", "Requests that wait for a connection now.").query("sum(db_client_connection_pending_requests{})", "waiting").thresholds(1.0, 10.0).size(6, 4),
            number("In vain", "short", "Requests that waited in vain, in the last hour.").query("sum(increase(db_client_connection_timeouts_total{}[1h]))", "timeouts").thresholds(0.5, 1.0).size(6, 4),
            lines("Pool", "short", "Connections by state, and the most there may be.")
                .query("sum by (state) (db_client_connection_count{})", "{{state}}")
                .query("sum(db_client_connection_max{})", "most"),
            lines("Wait for a connection", "s", "How long requests wait.")
                .query("histogram_quantile(0.5, sum by (le) (rate(db_client_connection_wait_time_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(db_client_connection_wait_time_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.1, 1.0),
            lines("Operations", "ops", "What connections are taken for.").query("sum by (db_operation_name) (rate(db_client_operation_duration_seconds_count{}[$__rate_interval]))", "{{db_operation_name}}"),
            lines("p99 of operations", "s", "How long each holds its connection.")
                .query("histogram_quantile(0.99, sum by (le, db_operation_name) (rate(db_client_operation_duration_seconds_bucket{}[$__rate_interval])))", "{{db_operation_name}}"),
            lines("Embedded server", "ops", "Times that it died and was started again.").query("sum(rate(wallet_embedded_postgres_restarts_total{}[$__rate_interval]))", "restarts"),
            lines("Transactions", "ops", "Commits and rollbacks.")
                .query("sum by (datname) (rate(pg_stat_database_xact_commit[$__rate_interval]))", "commits, {{datname}}")
                .query("sum by (datname) (rate(pg_stat_database_xact_rollback[$__rate_interval]))", "rollbacks, {{datname}}")
                .empty_when(NO_EXPORTER),
            lines("Found in memory", "percentunit", "Share of the blocks that did not have to be read.")
                .query("sum by (datname) (rate(pg_stat_database_blks_hit[$__rate_interval])) / (sum by (datname) (rate(pg_stat_database_blks_hit[$__rate_interval])) + sum by (datname) (rate(pg_stat_database_blks_read[$__rate_interval])))", "{{datname}}")
                .thresholds(0.99, 0.9)
                .empty_when(NO_EXPORTER),
            lines("Oldest transaction", "s", "Nothing behind it can be cleaned up.").query("max by (datname) (pg_stat_activity_max_tx_duration)", "{{datname}}").thresholds(60.0, 600.0).empty_when(NO_EXPORTER),
            lines("Size", "bytes", "Of each database.").query("pg_database_size_bytes", "{{datname}}").empty_when(NO_EXPORTER),
            lines("Locks", "short", "By mode.").query("sum by (mode) (pg_locks_count)", "{{mode}}").empty_when(NO_EXPORTER),
            lines("Rows that are dead", "short", "What has to be cleaned up.").query("topk(5, pg_stat_user_tables_n_dead_tup)", "{{relname}}").empty_when(NO_EXPORTER),
        ],
    }
}

pub fn edge() -> Dashboard {
    Dashboard {
        uid: "revwallet-edge",
        title: "Edge",
        folder: "revwallet",
        description: "Nginx: what strangers send, what it answers, and how long the program behind it takes.",
        texts: &[],
        panels: vec![
            lines("Requests by status", "reqps", "From the access log.")
                .from(From::Loki)
                .query(r#"sum by (status) (rate({service="edge"} | json | status != "" [$__auto]))"#, "{{status}}"),
            lines("Duration", "s", "From the access log: the slowest of a hundred requests.")
                .from(From::Loki)
                .query(r#"quantile_over_time(0.99, {service="edge"} | json | unwrap request_time [$__auto]) by (service)"#, "p99"),
            lines("Behind the edge", "s", "The part of it that the program takes.")
                .from(From::Loki)
                .query(r#"quantile_over_time(0.99, {service="edge"} | json | upstream_response_time != "" | unwrap upstream_response_time [$__auto]) by (service)"#, "p99"),
            lines("Turned away", "reqps", "By the limits of the edge.")
                .from(From::Loki)
                .query(r#"sum by (limit_req_status) (rate({service="edge"} | json | limit_req_status = "REJECTED" [$__auto]))"#, "{{limit_req_status}}"),
            lines("Connections", "short", "By what they do.")
                .query("sum(nginx_connections_reading)", "sending a request")
                .query("sum(nginx_connections_writing)", "waiting for its answer")
                .query("sum(nginx_connections_waiting)", "silent")
                .empty_when(NO_EDGE),
            lines("Errors", "none", "What the edge complains about.").kind(Kind::Logs).from(From::Loki).query(r#"{service="edge"} | json | event="nginx.error""#, ""),
        ],
    }
}

pub fn runtime() -> Dashboard {
    Dashboard {
        uid: "revwallet-runtime",
        title: "Runtime",
        folder: "revwallet",
        description: "Processes, threads and tasks, and the machine below them.",
        texts: &[],
        panels: vec![
            lines("Processor", "percentunit", "Cores that each process keeps busy.").query("rate(process_cpu_seconds_total{}[$__rate_interval])", "{{instance}}"),
            lines("Memory", "bytes", "What each process holds.").query("process_resident_memory_bytes{}", "{{instance}}"),
            lines("Workers busy", "percentunit", "Share of their time that the asynchronous threads are busy.").query("tokio_workers_busy_ratio{}", "{{instance}}").thresholds(0.7, 0.9),
            lines("Tasks", "short", "That are alive, and that wait for any thread.")
                .query("tokio_live_tasks_count{}", "alive, {{instance}}")
                .query("tokio_global_queue_depth{}", "waiting, {{instance}}"),
            lines("Files", "short", "Open file descriptors, and how many there may be.")
                .query("process_open_fds{}", "open, {{instance}}")
                .query("process_max_fds{}", "most, {{instance}}"),
            lines("Threads", "short", "Of each process, and those that run asynchronous work.").query("process_threads{}", "{{instance}}").query("tokio_workers_count{}", "workers, {{instance}}"),
            lines("Panics", "ops", "That were caught.").query("sum by (place) (rate(wallet_panics_total{}[$__rate_interval]))", "{{place}}"),
            number("Running", "none", "Versions that run now.").query("count by (version, revision) (wallet_build_info{})", "{{version}} {{revision}}").size(6, 8),
            number("Shutting down", "short", "How far each process is: 0 serving, 1 draining, 2 stopping.").query("max by (instance) (wallet_shutdown_state{})", "{{instance}}").size(6, 8),
            lines("Disk", "bytes", "What is left on each file system.").query(r#"node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|ramfs"}"#, "{{mountpoint}}").empty_when(NO_EXPORTER),
            lines("Machine", "percentunit", "Share of the processor's time that is used.").query(r#"1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))"#, "{{instance}}").empty_when(NO_EXPORTER),
        ],
    }
}

pub fn logs() -> Dashboard {
    Dashboard {
        uid: "revwallet-logs",
        title: "Logs",
        folder: "revwallet",
        description: "What the processes say. Each line of a request leads to its trace.",
        texts: &[("search", "")],
        panels: vec![
            lines("Lines", "cps", "A second, by level, as the program counts them.").query(
                "sum by (level) (rate(wallet_log_events_total{}[$__rate_interval]))",
                "{{level}}",
            ),
            lines("Lines that arrived", "cps", "A second, by level, as Loki has them.")
                .from(From::Loki)
                .query(r#"sum by (level) (rate({service="revwallet"} [$__auto]))"#, "{{level}}"),
            lines("Warnings and errors", "none", "What somebody should look at.")
                .kind(Kind::Logs)
                .from(From::Loki)
                .query(r#"{service="revwallet", level=~"WARN|ERROR"}"#, "")
                .size(24, 10),
            lines("Everything", "none", "All lines that contain what is searched for.")
                .kind(Kind::Logs)
                .from(From::Loki)
                .query(r#"{service=~"revwallet|edge"} |= "$search""#, "")
                .size(24, 14),
        ],
    }
}

pub fn telemetry() -> Dashboard {
    Dashboard {
        uid: "revwallet-telemetry",
        title: "Telemetry",
        folder: "revwallet",
        description: "Whether what watches can be believed.",
        texts: &[],
        panels: vec![
            lines("Targets", "short", "What Prometheus reaches: 1, or 0.").query("min by (job) (up)", "{{job}}").thresholds(0.9, 0.5),
            lines("Series", "short", "Of each process; its budget is 10,000.").query(r#"scrape_samples_scraped{job="revwallet"}"#, "{{instance}}").thresholds(8_000.0, 10_000.0),
            lines("Scrapes", "s", "How long each takes, and how long the program takes to write its metrics.")
                .query(r#"scrape_duration_seconds{job="revwallet"}"#, "scrape, {{instance}}")
                .query("wallet_metrics_render_duration_seconds{}", "writing, {{instance}}")
                .thresholds(0.03, 0.5),
            lines("Lines dropped", "cps", "Log lines that were dropped because nobody read them fast enough.").query("sum by (instance) (rate(wallet_log_dropped_total{}[$__rate_interval]))", "{{instance}}"),
            lines("Pushed lines", "cps", "Log lines for Loki, by whether they arrived; none without --loki-url.").query("sum by (outcome) (rate(wallet_loki_lines_total{}[$__rate_interval]))", "{{outcome}}"),
            lines("Spans dropped", "ops", "Spans that the collector did not take.").query("sum by (instance) (rate(wallet_otlp_dropped_spans_total{}[$__rate_interval]))", "{{instance}}"),
            lines("Rules that fail", "ops", "Evaluations that failed.").query("sum by (rule_group) (rate(prometheus_rule_evaluation_failures_total[$__rate_interval]))", "{{rule_group}}"),
            lines("Notifications", "ops", "That Alertmanager sent, and those that failed.")
                .query("sum by (integration) (rate(alertmanager_notifications_total[$__rate_interval]))", "sent, {{integration}}")
                .query("sum by (integration) (rate(alertmanager_notifications_failed_total[$__rate_interval]))", "failed, {{integration}}"),
            lines("Alerts heard", "ops", "What Alertmanager told the program, by who should hear it.").query("sum by (receiver, status) (rate(wallet_alerts_heard_total{}[$__rate_interval]))", "{{receiver}} {{status}}"),
            lines("Watchdog", "s", "How long ago it was heard: it barks each minute.")
                .query("time() - max(wallet_watchdog_last_timestamp_seconds{} > 0)", "ago")
                .thresholds(180.0, 600.0),
            lines("Series in Prometheus", "short", "All of them.").query("prometheus_tsdb_head_series", "series"),
            lines("Exemplars", "short", "That Prometheus keeps: each leads from a slow request to its trace.").query("prometheus_tsdb_exemplar_exemplars_in_storage", "exemplars"),
            lines("On the way to Loki", "cps", "Lines that Alloy sent, and those that it dropped.")
                .query("sum(rate(loki_write_sent_entries_total[$__rate_interval]))", "sent")
                .query("sum(rate(loki_write_dropped_entries_total[$__rate_interval]))", "dropped")
                .empty_when("Alloy is not part of the test"),
        ],
    }
}

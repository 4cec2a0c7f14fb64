//! Dashboards of Postgres, the edge, the runtime, logs and telemetry.

use crate::source::grafana::{Dashboard, Kind, Source, stat, time_series};

/// Reasons for an empty panel in a stack that lacks the source of its metrics.
const NO_EXPORTER: &str = "exported by Alloy";
const NO_EDGE: &str = "exported by the nginx exporter";

pub fn postgres() -> Dashboard {
    Dashboard {
        uid: "revwallet-postgres",
        title: "Postgres",
        folder: "revwallet",
        description: "Connection pool as seen by the program, and server statistics from the Postgres exporter.",
        text_variables: &[],
        panels: vec![
            stat("Database reachable", "short", "Whether the database answers every process: 1 or 0.").query(r#"min(wallet_ready{,check="database"})"#, "reachable").thresholds(0.9, 0.5).size(6, 4),
            stat("Connection pool saturation", "percentunit", "Share of the connection pool that is in use.")
                .query(r#"max(db_client_connection_count{,state="used"} / on (instance) db_client_connection_max{})"#, "used")
                .thresholds(0.8, 0.95)
                .size(6, 4),
            stat("Pending connection requests", "short", "Requests that wait for a connection now.").query("sum(db_client_connection_pending_requests{})", "waiting").thresholds(1.0, 10.0).size(6, 4),
            stat("Connection pool timeouts", "short", "Requests that timed out waiting for a connection, in the last hour.").query("sum(increase(db_client_connection_timeouts_total{}[1h]))", "timeouts").thresholds(0.5, 1.0).size(6, 4),
            time_series("Connection pool size", "short", "Connections by state, and the limit of the pool.").begins("Connection pool")
                .query("sum by (state) (db_client_connection_count{})", "{{state}}")
                .query("sum(db_client_connection_max{})", "limit"),
            time_series("Connection wait time", "s", "Time that requests wait for a connection.")
                .query("histogram_quantile(0.5, sum by (le) (rate(db_client_connection_wait_time_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(db_client_connection_wait_time_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.1, 1.0),
            time_series("Reads with stale=ok by who answered", "ops", "Reads of clients that accept an older state: answered by the read replica, or by the primary because the replica is behind or unavailable.").begins("Read replica")
                .query("sum by (outcome) (rate(wallet_replica_reads_total{}[$__rate_interval]))", "{{outcome}}")
                .empty_when("no read replica is set"),
            time_series("Lag of the read replica", "s", "Time for which the read replica may lack what the primary has.")
                .query("max by (instance) (wallet_replica_lag_seconds{})", "{{instance}}")
                .thresholds(1.0, 10.0)
                .empty_when("no read replica is set"),
            time_series("Database operations", "ops", "Database operations per second by name.").begins("Operations").query("sum by (db_operation_name) (rate(db_client_operation_duration_seconds_count{}[$__rate_interval]))", "{{db_operation_name}}"),
            time_series("Database operation latency p99", "s", "Time that each operation holds its connection.")
                .query("histogram_quantile(0.99, sum by (le, db_operation_name) (rate(db_client_operation_duration_seconds_bucket{}[$__rate_interval])))", "{{db_operation_name}}"),
            time_series("Embedded Postgres restarts", "ops", "Restarts after a crash of the embedded server.").query("sum(rate(wallet_embedded_postgres_restarts_total{}[$__rate_interval]))", "restarts"),
            time_series("Transaction rate", "ops", "Commits and rollbacks per second.").begins("Server")
                .query("sum by (datname) (rate(pg_stat_database_xact_commit[$__rate_interval]))", "commits, {{datname}}")
                .query("sum by (datname) (rate(pg_stat_database_xact_rollback[$__rate_interval]))", "rollbacks, {{datname}}")
                .empty_when(NO_EXPORTER),
            time_series("Cache hit ratio", "percentunit", "Share of the block reads served from shared buffers.")
                .query("sum by (datname) (rate(pg_stat_database_blks_hit[$__rate_interval])) / (sum by (datname) (rate(pg_stat_database_blks_hit[$__rate_interval])) + sum by (datname) (rate(pg_stat_database_blks_read[$__rate_interval])))", "{{datname}}")
                .thresholds(0.99, 0.9)
                .empty_when(NO_EXPORTER),
            time_series("Oldest open transaction", "s", "Vacuum cannot remove rows that died after it began.").query("max by (datname) (pg_stat_activity_max_tx_duration)", "{{datname}}").thresholds(60.0, 600.0).empty_when(NO_EXPORTER),
            time_series("Database size", "bytes", "Size of each database on disk.").query("pg_database_size_bytes", "{{datname}}").empty_when(NO_EXPORTER),
            time_series("Locks by mode", "short", "Held and awaited locks by mode.").query("sum by (mode) (pg_locks_count)", "{{mode}}").empty_when(NO_EXPORTER),
            time_series("Dead rows", "short", "Rows that wait for vacuum: the five tables with the most.").query("topk(5, pg_stat_user_tables_n_dead_tup)", "{{relname}}").empty_when(NO_EXPORTER),
            time_series("Log kept for replication slots", "bytes", "Write-ahead log that each replication slot keeps until its reader has it.").query("pg_replication_slots_pg_wal_lsn_diff", "{{slot_name}}")
                .empty_when("no replication slot exists"),
            time_series("Write-ahead log archived", "ops", "Files of the write-ahead log that were archived, and attempts that failed.")
                .query("rate(pg_stat_archiver_archived_count[$__rate_interval])", "archived")
                .query("rate(pg_stat_archiver_failed_count[$__rate_interval])", "failed")
                .empty_when(NO_EXPORTER),
        ],
    }
}

pub fn edge() -> Dashboard {
    Dashboard {
        uid: "revwallet-edge",
        title: "Edge (nginx)",
        folder: "revwallet",
        description: "Nginx: request rate, latency, upstream latency, rate limiting and errors.",
        text_variables: &[],
        panels: vec![
            stat("Nginx processes up", "short", "Whether nginx answers its exporter: 1 or 0.").query("min by (instance) (nginx_up)", "{{instance}}").thresholds(1.0, 0.5).size(24, 4).empty_when(NO_EDGE),
            time_series("Request rate by status", "reqps", "Requests per second by status code, from the access log.")
                .source(Source::Loki)
                .query(r#"sum by (status) (rate({service="edge"} | json | status != "" [$__auto]))"#, "{{status}}"),
            time_series("Latency p99", "s", "99th percentile of the request duration, from the access log.").details("revwallet-http")
                .source(Source::Loki)
                .query(r#"quantile_over_time(0.99, {service="edge"} | json | unwrap request_time [$__auto]) by (service)"#, "p99"),
            time_series("Upstream latency p99", "s", "Part of the latency that the program behind nginx takes.")
                .source(Source::Loki)
                .query(r#"quantile_over_time(0.99, {service="edge"} | json | upstream_response_time != "" | unwrap upstream_response_time [$__auto]) by (service)"#, "p99"),
            time_series("Rate-limited requests", "reqps", "Requests rejected by the rate limit of nginx.").details("revwallet-security")
                .source(Source::Loki)
                .query(r#"sum by (limit_req_status) (rate({service="edge"} | json | limit_req_status = "REJECTED" [$__auto]))"#, "{{limit_req_status}}"),
            time_series("Connections by state", "short", "Connections that read a request, write a response, or are idle.").begins("Connections and errors")
                .query("sum(nginx_connections_reading)", "reading")
                .query("sum(nginx_connections_writing)", "writing")
                .query("sum(nginx_connections_waiting)", "idle")
                .empty_when(NO_EDGE),
            time_series("Error log", "none", "Error log of nginx.").kind(Kind::Logs).source(Source::Loki).query(r#"{service="edge"} | json | event="nginx.error""#, ""),
        ],
    }
}

pub fn runtime() -> Dashboard {
    Dashboard {
        uid: "revwallet-runtime",
        title: "Runtime",
        folder: "revwallet",
        description: "Processes, the asynchronous runtime and the host machine.",
        text_variables: &[],
        panels: vec![
            time_series("CPU usage", "percentunit", "CPU cores used by each process.").query("rate(process_cpu_seconds_total{}[$__rate_interval])", "{{instance}}"),
            time_series("Memory usage", "bytes", "Resident memory of each process.").query("process_resident_memory_bytes{}", "{{instance}}"),
            time_series("Tokio worker utilization", "percentunit", "Share of the time that the worker threads are busy.").query("tokio_workers_busy_ratio{}", "{{runtime}}, {{instance}}").thresholds(0.7, 0.9),
            time_series("Tokio tasks", "short", "Live tasks, and tasks in the global queue.")
                .query("tokio_live_tasks_count{}", "live, {{runtime}}, {{instance}}")
                .query("tokio_global_queue_depth{}", "queued, {{runtime}}, {{instance}}"),
            time_series("File descriptors", "short", "Open file descriptors, and their limit.").begins("Process")
                .query("process_open_fds{}", "open, {{instance}}")
                .query("process_max_fds{}", "limit, {{instance}}"),
            time_series("Threads", "short", "Threads of each process, and Tokio worker threads among them.").query("process_threads{}", "{{instance}}").query("tokio_workers_count{}", "workers, {{runtime}}, {{instance}}"),
            time_series("Panics", "ops", "Panics caught per second by place.").details("revwallet-logs").query("sum by (place) (rate(wallet_panics_total{}[$__rate_interval]))", "{{place}}"),
            stat("Running versions", "none", "Processes by version and revision.").begins("Machine and versions").query("count by (version, revision) (wallet_build_info{})", "{{version}} {{revision}}").size(6, 8),
            stat("Shutdown state", "short", "State of each process: 0 serving, 1 draining, 2 stopping.").query("max by (instance) (wallet_shutdown_state{})", "{{instance}}").size(6, 8),
            time_series("Free disk space", "bytes", "Available bytes of each file system.").query(r#"node_filesystem_avail_bytes{fstype!~"tmpfs|overlay|ramfs"}"#, "{{mountpoint}}").empty_when(NO_EXPORTER),
            time_series("Host CPU utilization", "percentunit", "Used share of the CPU time of the host.").query(r#"1 - avg by (instance) (rate(node_cpu_seconds_total{mode="idle"}[$__rate_interval]))"#, "{{instance}}").empty_when(NO_EXPORTER),
        ],
    }
}

pub fn logs() -> Dashboard {
    Dashboard {
        uid: "revwallet-logs",
        title: "Logs",
        folder: "revwallet",
        description: "Log lines of every process. Lines of a request link to its trace.",
        text_variables: &[("search", "")],
        panels: vec![
            time_series(
                "Log lines emitted",
                "cps",
                "Lines per second by level, as counted by the program.",
            )
            .query(
                "sum by (level) (rate(wallet_log_events_total{}[$__rate_interval]))",
                "{{level}}",
            ),
            time_series(
                "Log lines ingested",
                "cps",
                "Lines per second by level, as stored by Loki.",
            )
            .source(Source::Loki)
            .query(r#"sum by (level) (rate({service="revwallet"} [$__auto]))"#, "{{level}}"),
            time_series("Warnings and errors", "none", "Log lines with level WARN or ERROR.")
                .kind(Kind::Logs)
                .source(Source::Loki)
                .query(r#"{service="revwallet", level=~"WARN|ERROR"}"#, "")
                .size(24, 10),
            time_series("Log search", "none", "Log lines that contain the search text.")
                .kind(Kind::Logs)
                .source(Source::Loki)
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
        description: "Health of the monitoring stack: scrapes, logs, traces, rules and notifications.",
        text_variables: &[],
        panels: vec![
            time_series("Scrape targets", "short", "Lowest `up` of each job: 1 if every target answers, else 0.").begins("Metrics").query("min by (job) (up)", "{{job}}").thresholds(0.9, 0.5),
            time_series("Series per process", "short", "Series exported by each process; the budget is 10,000.").query(r#"scrape_samples_scraped{job="revwallet"}"#, "{{instance}}").thresholds(8_000.0, 10_000.0),
            time_series("Scrape duration", "s", "Duration of a scrape, and the time the program takes to render its metrics.")
                .query(r#"scrape_duration_seconds{job="revwallet"}"#, "scrape, {{instance}}")
                .query("wallet_metrics_render_duration_seconds{}", "rendering, {{instance}}")
                .thresholds(0.03, 0.5),
            time_series("Log lines dropped", "cps", "Log lines dropped because the output is read too slowly.").begins("Logs and traces of the program").query("sum by (instance) (rate(wallet_log_dropped_total{}[$__rate_interval]))", "{{instance}}"),
            time_series("Log lines pushed to Loki", "cps", "Log lines by delivery outcome; none without --loki-url.").query("sum by (outcome) (rate(wallet_loki_lines_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Trace spans dropped", "ops", "Spans that the collector did not accept.").query("sum by (instance) (rate(wallet_otlp_dropped_spans_total{}[$__rate_interval]))", "{{instance}}"),
            time_series("Traces kept", "percentunit", "Share of traces that each process exports: all, unless it makes more spans than --trace-spans-max.").query("wallet_trace_sampled_ratio{}", "{{instance}}"),
            time_series("Rule evaluation failures", "ops", "Failed evaluations per second by rule group.").begins("Alerts").query("sum by (rule_group) (rate(prometheus_rule_evaluation_failures_total[$__rate_interval]))", "{{rule_group}}"),
            time_series("Alertmanager notifications", "ops", "Notifications sent and failed, by integration.")
                .query("sum by (integration) (rate(alertmanager_notifications_total[$__rate_interval]))", "sent, {{integration}}")
                .query("sum by (integration) (rate(alertmanager_notifications_failed_total[$__rate_interval]))", "failed, {{integration}}"),
            time_series("Alerts received", "ops", "Alerts that the program received from Alertmanager, by receiver and status.").query("sum by (receiver, status) (rate(wallet_alerts_heard_total{}[$__rate_interval]))", "{{receiver}} {{status}}"),
            time_series("Watchdog age", "s", "Time since the watchdog last arrived; it is sent every minute.")
                .query("time() - max(wallet_watchdog_last_timestamp_seconds{} > 0)", "age")
                .thresholds(180.0, 600.0),
            time_series("Prometheus head series", "short", "Series in the head block of Prometheus.").begins("Prometheus, Loki, Tempo and Alloy").query("prometheus_tsdb_head_series", "series"),
            time_series("Stored exemplars", "short", "Exemplars in Prometheus: each links a request to its trace.").query("prometheus_tsdb_exemplar_exemplars_in_storage", "exemplars"),
            time_series("Discarded by limits", "cps", "Log lines that Loki and spans that Tempo discarded, by reason: usually a limit that is too low.")
                .query("sum by (reason) (rate(loki_discarded_samples_total[$__rate_interval]))", "log lines, {{reason}}")
                .query("sum by (reason) (rate(tempo_discarded_spans_total[$__rate_interval]))", "spans, {{reason}}")
                .empty_when(NO_EXPORTER),
            time_series("Alloy log throughput", "cps", "Log lines that Alloy sent to Loki, and lines that it dropped.")
                .query("sum(rate(loki_write_sent_entries_total[$__rate_interval]))", "sent")
                .query("sum(rate(loki_write_dropped_entries_total[$__rate_interval]))", "dropped")
                .empty_when(NO_EXPORTER),
        ],
    }
}

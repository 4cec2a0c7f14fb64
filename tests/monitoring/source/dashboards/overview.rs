//! Dashboards of the overview, the service level objectives and HTTP.

use super::SERVER_ERROR;
use crate::source::grafana::{Dashboard, Kind, Panel, stat, time_series};

/// Reason for an empty panel: without errors there is no series.
const NO_ERRORS: &str = "no errors occurred";

/// A quantile of the request duration.
fn latency(quantile: &str) -> String {
    format!(
        "histogram_quantile({quantile}, sum by (le) (rate(http_server_request_duration_seconds_bucket{{}}[$__rate_interval])))"
    )
}

fn request_rate() -> Panel {
    time_series("Request rate", "reqps", "Requests per second by status code.")
        .query("sum by (http_response_status_code) (rate(http_server_request_duration_seconds_count{}[$__rate_interval]))", "{{http_response_status_code}}")
}

fn request_latency() -> Panel {
    time_series("Request latency", "s", "Request duration: 50th, 95th and 99th percentile.")
        .query(&latency("0.5"), "p50")
        .query(&latency("0.95"), "p95")
        .query(&latency("0.99"), "p99")
        .thresholds(0.25, 1.0)
}

pub fn overview() -> Dashboard {
    Dashboard {
        uid: "revwallet-overview",
        title: "Overview",
        folder: "revwallet",
        description: "Health of the system at a glance: ledger integrity, errors, latency, saturation and error budgets.",
        text_variables: &[],
        panels: vec![
            stat("Ledger violations", "short", "Violations found by the ledger auditor. Any value but 0 is an emergency.").details("revwallet-ledger")
                .query(r#"sum(wallet_ledger_invariant_checks_total{,outcome="violated"}) or vector(0)"#, "violations")
                .thresholds(0.5, 1.0),
            stat("Processes up", "short", "Processes that answer scrapes.").details("revwallet-runtime").query(r#"sum(up{job="revwallet"})"#, "up").thresholds(1.5, 0.5),
            stat("Readiness", "percentunit", "Share of the /readyz checks that pass.").details("revwallet-postgres").query("avg(wallet_ready{})", "ready").thresholds(1.0, 0.9),
            stat("Error ratio", "percentunit", "Share of the requests answered with a server error (5xx).").details("revwallet-http")
                .query(&format!("(sum(rate(http_server_request_duration_seconds_count{{,{SERVER_ERROR}}}[$__rate_interval])) or vector(0)) / sum(rate(http_server_request_duration_seconds_count{{}}[$__rate_interval]))"), "errors")
                .thresholds(0.001, 0.01),
            stat("Latency p99", "s", "99th percentile of the request duration.").details("revwallet-http").query(&latency("0.99"), "p99").thresholds(0.25, 1.0),
            stat("Firing alerts", "short", "Alerts that fire, except for the watchdog.").query(r#"count(ALERTS{alertstate="firing",alertname!="Watchdog"}) or vector(0)"#, "firing").thresholds(0.5, 1.0),
            request_rate(),
            request_latency(),
            time_series("Synthetic transfer success ratio", "percentunit", "Share of the synthetic transfers through the public address that succeed.").begins("Synthetic transfers").details("revwallet-edge")
                .query(r#"(sum by (instance) (rate(wallet_probe_total{,outcome="ok"}[$__rate_interval])) or 0 * sum by (instance) (rate(wallet_probe_total{}[$__rate_interval]))) / sum by (instance) (rate(wallet_probe_total{}[$__rate_interval]))"#, "{{instance}}")
                .thresholds(0.995, 0.9),
            time_series("Synthetic transfer latency", "s", "Time from opening the connection to the complete response.").details("revwallet-edge")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_probe_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_probe_duration_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.25, 1.0),
            time_series("Transfer rate by outcome", "ops", "Transfers per second by outcome. A rejection by a rule is not an error.").begins("Ledger").details("revwallet-ledger")
                .query("sum by (outcome) (rate(wallet_ledger_transfers_total{}[$__rate_interval]))", "{{outcome}}"),
            time_series("Commit latency", "s", "Time from enqueueing a posting to its durable commit.").details("revwallet-ledger")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.05, 0.25),
            time_series("Ledger queue saturation", "percentunit", "Fill level of the ledger queue. When it is full, requests are rejected.").details("revwallet-ledger")
                .query("max by (instance) (wallet_ledger_queue_depth{} / wallet_ledger_queue_capacity{})", "{{instance}}")
                .thresholds(0.5, 0.8),
            time_series("Error budget remaining", "percentunit", "Remaining error budget of each objective, at the error ratio of the last three days.").begins("Budgets and resources").details("revwallet-slo")
                .query("1 - slo:errors:ratio_rate3d / on (slo) group_left () (1 - slo:objective:ratio)", "{{slo}}")
                .thresholds(0.5, 0.1),
            time_series("CPU usage", "percentunit", "CPU cores used by each process.").details("revwallet-runtime").query("rate(process_cpu_seconds_total{}[$__rate_interval])", "{{instance}}"),
            time_series("Memory usage", "bytes", "Resident memory of each process.").details("revwallet-runtime").query("process_resident_memory_bytes{}", "{{instance}}"),
        ],
    }
}

pub fn slo() -> Dashboard {
    Dashboard {
        uid: "revwallet-slo",
        title: "Service level objectives",
        folder: "revwallet",
        description: "Service level objectives over 30 days, remaining error budgets and burn rates.",
        text_variables: &[],
        panels: vec![
            stat("Objective", "percentunit", "Required share of good events.")
                .query("max by (slo) (slo:objective:ratio)", "{{slo}}")
                .size(12, 6),
            stat(
                "Error budget remaining",
                "percentunit",
                "At the error ratio of the last three days.",
            )
            .query(
                "1 - slo:errors:ratio_rate3d / on (slo) group_left () (1 - slo:objective:ratio)",
                "{{slo}}",
            )
            .thresholds(0.5, 0.1)
            .size(12, 6),
            time_series(
                "Error budget burn rate (1 h)",
                "short",
                "How many times faster than sustainable the error budget is spent. Pages at 14.4.",
            )
            .begins("Burn rates")
            .query(
                "slo:errors:ratio_rate1h / on (slo) group_left () (1 - slo:objective:ratio)",
                "{{slo}}",
            )
            .thresholds(6.0, 14.4),
            time_series(
                "Error budget burn rate (6 h)",
                "short",
                "How many times faster than sustainable the error budget is spent. Pages at 6.",
            )
            .query(
                "slo:errors:ratio_rate6h / on (slo) group_left () (1 - slo:objective:ratio)",
                "{{slo}}",
            )
            .thresholds(3.0, 6.0),
            time_series(
                "Error budget burn rate (3 d)",
                "short",
                "Above 1, the objective will be missed. Opens a ticket at 1.",
            )
            .query(
                "slo:errors:ratio_rate3d / on (slo) group_left () (1 - slo:objective:ratio)",
                "{{slo}}",
            )
            .thresholds(0.8, 1.0),
            time_series("Error ratio (5 min)", "percentunit", "Share of bad events.")
                .begins("Events")
                .query("slo:errors:ratio_rate5m", "{{slo}}"),
            time_series(
                "Event rate",
                "reqps",
                "Events per second that count toward each objective, over one hour.",
            )
            .query("slo:requests:rate1h", "{{slo}}"),
        ],
    }
}

pub fn http() -> Dashboard {
    Dashboard {
        uid: "revwallet-http",
        title: "HTTP",
        folder: "revwallet",
        description: "HTTP requests by route: rate, errors and duration.",
        text_variables: &[],
        panels: vec![
            request_rate(),
            request_latency(),
            time_series("Request rate by route", "reqps", "Requests per second by method and route.").begins("Routes")
                .query("sum by (http_request_method, http_route) (rate(http_server_request_duration_seconds_count{}[$__rate_interval]))", "{{http_request_method}} {{http_route}}"),
            time_series("Latency p99 by route", "s", "99th percentile of the request duration.")
                .query("histogram_quantile(0.99, sum by (le, http_route) (rate(http_server_request_duration_seconds_bucket{}[$__rate_interval])))", "{{http_route}}")
                .thresholds(0.25, 1.0),
            time_series("Server errors by route", "reqps", "Responses with status 500 and above.").details("revwallet-logs")
                .query(&format!("sum by (http_route, http_response_status_code) (rate(http_server_request_duration_seconds_count{{,{SERVER_ERROR}}}[$__rate_interval]))"), "{{http_response_status_code}} {{http_route}}")
                .empty_when(NO_ERRORS),
            time_series("Client errors by route", "reqps", "Responses with status 400 to 499.")
                .query(r#"sum by (http_route, http_response_status_code) (rate(http_server_request_duration_seconds_count{,http_response_status_code=~"4.."}[$__rate_interval]))"#, "{{http_response_status_code}} {{http_route}}"),
            time_series("Rejected requests", "reqps", "Requests that ended before their handler did, by reason.").begins("Refusals and connections")
                .query("sum by (reason) (rate(wallet_http_rejected_total{}[$__rate_interval]))", "{{reason}}"),
            time_series("Closed connections", "cps", "Connections that the server closed early, by reason.")
                .query("sum by (reason) (rate(wallet_http_connections_closed_total{}[$__rate_interval]))", "{{reason}}"),
            time_series("In-flight requests", "short", "Requests in progress, and open connections by listener.")
                .query("sum(http_server_active_requests{})", "requests")
                .query("sum by (listener) (wallet_http_connections{})", "connections, {{listener}}"),
            time_series("Request duration heatmap", "s", "Distribution of the request duration.")
                .query("sum by (le) (increase(http_server_request_duration_seconds_bucket{}[$__rate_interval]))", "{{le}}")
                .kind(Kind::Heatmap),
            time_series("Request body size", "bytes", "Body size of the requests that declare it.")
                .query("histogram_quantile(0.5, sum by (le) (rate(http_server_request_body_size_bytes_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(http_server_request_body_size_bytes_bucket{}[$__rate_interval])))", "p99"),
            time_series("gRPC calls by method", "reqps", "Calls per second by method and status.").begins("gRPC and idempotency")
                .query("sum by (rpc_method, rpc_response_status_code) (rate(rpc_server_call_duration_seconds_count{}[$__rate_interval]))", "{{rpc_method}} {{rpc_response_status_code}}"),
            time_series("gRPC latency p99 by method", "s", "99th percentile of the duration of calls.")
                .query("histogram_quantile(0.99, sum by (le, rpc_method) (rate(rpc_server_call_duration_seconds_bucket{}[$__rate_interval])))", "{{rpc_method}}")
                .thresholds(0.25, 1.0),
            time_series("gRPC responses being sent", "short", "Open responses, streams included.")
                .query("sum by (instance) (rpc_server_active_streams{})", "{{instance}}"),
            time_series("Idempotency key outcomes", "ops", "Postings with an idempotency key: new, replayed, or rejected because the key belongs to a different request.").details("revwallet-ledger")
                .query("sum by (outcome) (rate(wallet_idempotency_total{}[$__rate_interval]))", "{{outcome}}"),
        ],
    }
}

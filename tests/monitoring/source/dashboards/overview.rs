//! How it is: everything at a glance, the promises, and the requests.

use super::FAILED;
use crate::source::grafana::{Dashboard, Kind, Panel, lines, number};

const QUIET: &str = "nothing went wrong";

/// A quantile of how long requests took.
fn latency(quantile: &str) -> String {
    format!(
        "histogram_quantile({quantile}, sum by (le) (rate(http_server_request_duration_seconds_bucket{{}}[$__rate_interval])))"
    )
}

fn requests() -> Panel {
    lines("Requests", "reqps", "Requests a second, by status.")
        .query("sum by (http_response_status_code) (rate(http_server_request_duration_seconds_count{}[$__rate_interval]))", "{{http_response_status_code}}")
}

fn durations() -> Panel {
    lines(
        "Duration of requests",
        "s",
        "How long requests took: the middle, and the slowest of a hundred.",
    )
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
        description: "Is the money safe, are users served, and if not, where to look.",
        texts: &[],
        panels: vec![
            number("Money", "short", "Faults that the auditor found in the book. Anything but 0 is an emergency.")
                .query(r#"sum(wallet_ledger_invariant_checks_total{,outcome="violated"}) or vector(0)"#, "faults")
                .thresholds(0.5, 1.0),
            number("Processes", "short", "Processes that are there.").query(r#"sum(up{job="revwallet"})"#, "up").thresholds(1.5, 0.5),
            number("Ready", "percentunit", "Share of the checks behind /readyz that pass.").query("avg(wallet_ready{})", "ready").thresholds(1.0, 0.9),
            number("Errors", "percentunit", "Share of the requests that failed through a fault of ours.")
                .query(&format!("(sum(rate(http_server_request_duration_seconds_count{{,{FAILED}}}[$__rate_interval])) or vector(0)) / sum(rate(http_server_request_duration_seconds_count{{}}[$__rate_interval]))"), "errors")
                .thresholds(0.001, 0.01),
            number("p99", "s", "The slowest of a hundred requests.").query(&latency("0.99"), "p99").thresholds(0.25, 1.0),
            number("Alerts", "short", "Alerts that fire, but for the watchdog.").query(r#"count(ALERTS{alertstate="firing",alertname!="Watchdog"}) or vector(0)"#, "firing").thresholds(0.5, 1.0),
            requests(),
            durations(),
            lines("Synthetic transfers", "percentunit", "Share of the probe's transfers through the public address that succeed.")
                .query(r#"sum by (instance) (rate(wallet_probe_total{,outcome="ok"}[$__rate_interval])) / sum by (instance) (rate(wallet_probe_total{}[$__rate_interval]))"#, "{{instance}}")
                .thresholds(0.995, 0.9),
            lines("Duration of synthetic transfers", "s", "From a new connection to the whole answer.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_probe_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_probe_duration_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.25, 1.0),
            lines("Transfers", "ops", "Transfers a second, by what became of them. A refusal is not an error.")
                .query("sum by (outcome) (rate(wallet_ledger_transfers_total{}[$__rate_interval]))", "{{outcome}}"),
            lines("Commit", "s", "From queueing a posting to its durable commit.")
                .query("histogram_quantile(0.5, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(wallet_ledger_commit_duration_seconds_bucket{}[$__rate_interval])))", "p99")
                .thresholds(0.05, 0.25),
            lines("Queue of the ledger", "percentunit", "How full the queue is; when it is full, requests are turned away.")
                .query("max by (instance) (wallet_ledger_queue_depth{} / wallet_ledger_queue_capacity{})", "{{instance}}")
                .thresholds(0.5, 0.8),
            lines("Budgets left", "percentunit", "What is left of each promise's budget, at the rate of the last three days.")
                .query("1 - slo:errors:ratio_rate3d / on (slo) group_left () (1 - slo:objective:ratio)", "{{slo}}")
                .thresholds(0.5, 0.1),
            lines("Processor", "percentunit", "Cores that each process keeps busy.").query("rate(process_cpu_seconds_total{}[$__rate_interval])", "{{instance}}"),
            lines("Memory", "bytes", "Memory that each process holds.").query("process_resident_memory_bytes{}", "{{instance}}"),
        ],
    }
}

pub fn slo() -> Dashboard {
    Dashboard {
        uid: "revwallet-slo",
        title: "Promises",
        folder: "revwallet",
        description: "What is promised over thirty days, what is left of the budgets, and how fast they burn.",
        texts: &[],
        panels: vec![
            number("Objective", "percentunit", "What is promised.").query("max by (slo) (slo:objective:ratio)", "{{slo}}").size(12, 6),
            number("Budget left", "percentunit", "At the rate of the last three days.")
                .query("1 - slo:errors:ratio_rate3d / on (slo) group_left () (1 - slo:objective:ratio)", "{{slo}}")
                .thresholds(0.5, 0.1)
                .size(12, 6),
            lines("Burn over an hour", "short", "How many times faster than allowed the budget is used. At 14.4 somebody is woken.")
                .query("slo:errors:ratio_rate1h / on (slo) group_left () (1 - slo:objective:ratio)", "{{slo}}")
                .thresholds(6.0, 14.4),
            lines("Burn over six hours", "short", "At 6 somebody is woken.")
                .query("slo:errors:ratio_rate6h / on (slo) group_left () (1 - slo:objective:ratio)", "{{slo}}")
                .thresholds(3.0, 6.0),
            lines("Burn over three days", "short", "Above 1 the promise is broken in the end.")
                .query("slo:errors:ratio_rate3d / on (slo) group_left () (1 - slo:objective:ratio)", "{{slo}}")
                .thresholds(0.8, 1.0),
            lines("Errors over five minutes", "percentunit", "Share that went wrong.").query("slo:errors:ratio_rate5m", "{{slo}}"),
            lines("Requests", "reqps", "How much each promise is asked to hold.").query("slo:requests:rate1h", "{{slo}}"),
        ],
    }
}

pub fn http() -> Dashboard {
    Dashboard {
        uid: "revwallet-http",
        title: "HTTP",
        folder: "revwallet",
        description: "Requests: how many, how long, how many fail, by route.",
        texts: &[],
        panels: vec![
            requests(),
            durations(),
            lines("Requests by route", "reqps", "Requests a second.")
                .query("sum by (http_request_method, http_route) (rate(http_server_request_duration_seconds_count{}[$__rate_interval]))", "{{http_request_method}} {{http_route}}"),
            lines("p99 by route", "s", "The slowest of a hundred requests.")
                .query("histogram_quantile(0.99, sum by (le, http_route) (rate(http_server_request_duration_seconds_bucket{}[$__rate_interval])))", "{{http_route}}")
                .thresholds(0.25, 1.0),
            lines("Errors by route", "reqps", "Answers of 500 and above.")
                .query(&format!("sum by (http_route, http_response_status_code) (rate(http_server_request_duration_seconds_count{{,{FAILED}}}[$__rate_interval]))"), "{{http_response_status_code}} {{http_route}}")
                .empty_when(QUIET),
            lines("Refusals by route", "reqps", "Answers from 400 to 499: what callers did wrong.")
                .query(r#"sum by (http_route, http_response_status_code) (rate(http_server_request_duration_seconds_count{,http_response_status_code=~"4.."}[$__rate_interval]))"#, "{{http_response_status_code}} {{http_route}}"),
            lines("Turned away", "reqps", "Requests that ended before their handler did, by reason.")
                .query("sum by (reason) (rate(wallet_http_rejected_total{}[$__rate_interval]))", "{{reason}}"),
            lines("In the works", "short", "Requests that are being answered, and connections that are open.")
                .query("sum(http_server_active_requests{})", "requests")
                .query("sum by (listener) (wallet_http_connections{})", "connections, {{listener}}"),
            lines("Durations", "s", "How the durations are spread.")
                .query("sum by (le) (increase(http_server_request_duration_seconds_bucket{}[$__rate_interval]))", "{{le}}")
                .kind(Kind::Heatmap),
            lines("Size of bodies", "bytes", "Requests that say how long their body is.")
                .query("histogram_quantile(0.5, sum by (le) (rate(http_server_request_body_size_bytes_bucket{}[$__rate_interval])))", "p50")
                .query("histogram_quantile(0.99, sum by (le) (rate(http_server_request_body_size_bytes_bucket{}[$__rate_interval])))", "p99"),
            lines("Idempotency keys", "ops", "Postings with a key: new ones, replays, and keys that were used for something else.")
                .query("sum by (outcome) (rate(wallet_idempotency_total{}[$__rate_interval]))", "{{outcome}}"),
        ],
    }
}

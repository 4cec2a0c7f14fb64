//! Unit tests for the rules, in the form of promtool: each alert fires on its series, and none when all is well.

use std::fmt::Write;

use crate::source::RUNBOOKS;
use crate::source::alerts::{ALERTS, FIRED_AFTER_MINUTES};
use crate::source::slos::SLOS;

const HEAD: &str = "# Written by tests/monitoring: BLESS=1 cargo test --test monitoring\n";

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn series(out: &mut String, all: &[(&str, &str)]) {
    out.push_str("    interval: 1m\n    input_series:\n");
    for (name, values) in all {
        write!(out, "      - series: {}\n        values: {}\n", quoted(name), quoted(values))
            .unwrap();
    }
}

/// Alerts fire by name; what their annotations say is compared too, so templates must be filled in here. To keep that
/// out, an expression counts what fires.
fn fires(out: &mut String, name: &str, minutes: u32, at_least_one: bool) {
    let expression = format!(r#"count(ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0"#);
    write!(out, "      - expr: {}\n        eval_time: {minutes}m\n", quoted(&expression)).unwrap();
    let samples = if at_least_one { "[{ labels: '{}', value: 1 }]" } else { "[]" };
    writeln!(out, "        exp_samples: {samples}").unwrap();
}

pub fn alerts() -> String {
    let mut out =
        format!("{HEAD}rule_files: [../rules/alerts.yml]\nevaluation_interval: 1m\ntests:\n");
    for alert in ALERTS {
        writeln!(out, "  - name: {} fires", alert.name).unwrap();
        let target = (r#"up{job="revwallet",instance="b"}"#, "1x200");
        let mut all = alert.fires_on.to_vec();
        if !all.iter().any(|(name, _)| name.starts_with("up{")) {
            all.push(target);
        }
        series(&mut out, &all);
        out.push_str("    promql_expr_test:\n");
        fires(&mut out, alert.name, FIRED_AFTER_MINUTES, true);
    }
    out.push_str("  - name: nothing fires when all is well but the watchdog\n");
    series(&mut out, &well());
    out.push_str("    alert_rule_test:\n");
    for alert in ALERTS {
        writeln!(
            out,
            "      - {{ eval_time: {FIRED_AFTER_MINUTES}m, alertname: {}, exp_alerts: [] }}",
            alert.name
        )
        .unwrap();
    }
    write!(out, "      - eval_time: 1m\n        alertname: Watchdog\n        exp_alerts:\n          - exp_labels: {{ severity: none }}\n            exp_annotations:\n              summary: The way of alerts works, as long as this arrives\n").unwrap();
    out
}

/// A day on which nothing happens to those who are paged.
fn well() -> Vec<(&'static str, &'static str)> {
    vec![
        (r#"up{job="revwallet",instance="a"}"#, "1x200"),
        (r#"wallet_ready{job="revwallet",instance="a",check="database"}"#, "1x200"),
        (r#"wallet_ledger_imbalance_minor_units{job="revwallet",currency="EUR"}"#, "0x200"),
        (
            r#"wallet_ledger_invariant_checks_total{job="revwallet",check="chain",outcome="violated"}"#,
            "0x200",
        ),
        (r#"wallet_ledger_oldest_queued_seconds{job="revwallet",instance="a"}"#, "0.01x200"),
        (r#"wallet_ledger_queue_depth{job="revwallet",instance="a"}"#, "70x200"),
        (r#"wallet_ledger_queue_capacity{job="revwallet",instance="a"}"#, "100x200"),
        (r#"wallet_book_reader_lag_transfers{job="revwallet",reader="auditor"}"#, "0x200"),
        (r#"wallet_ledger_last_check_timestamp_seconds{job="revwallet"}"#, "60x200"),
        (r#"wallet_webhook_deliveries_total{job="revwallet",outcome="failed"}"#, "0+1x200"),
        (r#"wallet_webhook_deliveries_total{job="revwallet",outcome="delivered"}"#, "0+9x200"),
        (
            r#"wallet_auth_attempts_total{job="revwallet",method="password",outcome="bad_credentials"}"#,
            "0+2x200",
        ),
        (r#"wallet_panics_total{job="revwallet",place="http"}"#, "0x200"),
        (r#"scrape_samples_scraped{job="revwallet",instance="a"}"#, "3000x200"),
    ]
}

pub fn slos() -> String {
    let mut out =
        format!("{HEAD}rule_files: [../rules/slos.yml]\nevaluation_interval: 1m\ntests:\n");
    out.push_str("  - name: many errors wake somebody\n");
    series(
        &mut out,
        &[
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route="/wallet/deposit",http_response_status_code="200"}"#,
                "0+980x100",
            ),
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route="/wallet/deposit",http_response_status_code="503"}"#,
                "0+20x100",
            ),
        ],
    );
    let availability = SLOS.iter().find(|slo| slo.name == "http-availability").unwrap();
    write!(
        out,
        "    promql_expr_test:\n      - expr: {}\n        eval_time: 60m\n        exp_samples: [{{ labels: 'slo:errors:ratio_rate5m{{job=\"revwallet\",slo=\"http-availability\"}}', value: 0.02 }}]\n",
        quoted(r#"slo:errors:ratio_rate5m{slo="http-availability"}"#)
    )
    .unwrap();
    out.push_str("    alert_rule_test:\n      - eval_time: 75m\n        alertname: ErrorBudgetBurn\n        exp_alerts:\n");
    for severity in ["page", "ticket"] {
        write!(
            out,
            "          - exp_labels: {{ severity: {severity}, slo: {name}, job: revwallet }}\n            exp_annotations:\n              summary: \"{name} burns its budget of thirty days too fast: 2% go wrong\"\n              runbook_url: {RUNBOOKS}/ErrorBudgetBurn.md\n              dashboard_url: /grafana/d/revwallet-slo\n",
            name = availability.name
        )
        .unwrap();
    }
    out.push_str("  - name: within the budget nobody is told\n");
    series(
        &mut out,
        &[
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="GET",http_route="/wallet",http_response_status_code="200"}"#,
                "0+99950x100",
            ),
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="GET",http_route="/wallet",http_response_status_code="503"}"#,
                "0+50x100",
            ),
        ],
    );
    out.push_str(
        "    alert_rule_test: [{ eval_time: 75m, alertname: ErrorBudgetBurn, exp_alerts: [] }]\n",
    );
    out.push_str("  - name: one failure in a quiet night wakes nobody\n");
    series(
        &mut out,
        &[
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="GET",http_route="/wallet",http_response_status_code="200"}"#,
                "0+0x70 1x30",
            ),
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="GET",http_route="/wallet",http_response_status_code="503"}"#,
                "0+0x70 1x30",
            ),
        ],
    );
    out.push_str(
        "    alert_rule_test: [{ eval_time: 75m, alertname: ErrorBudgetBurn, exp_alerts: [] }]\n",
    );
    every_promise_burns(&mut out);
    out
}

fn every_promise_burns(out: &mut String) {
    for slo in SLOS.iter().filter(|slo| !slo.name.starts_with("http")) {
        writeln!(out, "  - name: {} burns", slo.name).unwrap();
        series(out, &burning(slo.name));
        out.push_str("    promql_expr_test:\n");
        fires(out, "ErrorBudgetBurn", 75, true);
    }
}

/// Half of everything goes wrong.
fn burning(slo: &str) -> [(&'static str, &'static str); 2] {
    match slo {
        "ledger-commit" => [
            (
                r#"wallet_ledger_transfers_total{job="revwallet",kind="deposit",outcome="committed"}"#,
                "0+100x100",
            ),
            (
                r#"wallet_ledger_transfers_total{job="revwallet",kind="deposit",outcome="error"}"#,
                "0+100x100",
            ),
        ],
        "auth" => [
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route="/api/users/login",http_response_status_code="200"}"#,
                "0+100x100",
            ),
            (
                r#"http_server_request_duration_seconds_count{job="revwallet",http_request_method="POST",http_route="/api/users/login",http_response_status_code="503"}"#,
                "0+100x100",
            ),
        ],
        "webhook-delivery" => [
            (r#"wallet_webhook_deliveries_total{job="revwallet",outcome="delivered"}"#, "0+1x100"),
            (r#"wallet_webhook_deliveries_total{job="revwallet",outcome="failed"}"#, "0+100x100"),
        ],
        "synthetic-transfer" => [
            (r#"wallet_probe_total{job="revwallet",outcome="ok"}"#, "0+2x100"),
            (r#"wallet_probe_total{job="revwallet",outcome="failed"}"#, "0+2x100"),
        ],
        other => panic!("{other} has no unit test: say here what burns it"),
    }
}

//! Rules for Prometheus, as YAML.

use std::fmt::Write;

use super::RUNBOOKS;
use super::alerts::{ALERTS, Alert};
use super::promql::Pace;
use super::slos::{BURNS, Burn, LEAST_RATE, SLOS, Slo, WINDOWS};

const HEAD: &str = "# Written by tests/monitoring: BLESS=1 cargo test --test monitoring\ngroups:\n";

/// One text in double quotes: the rules of JSON are those of YAML here.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// The file of the service level objectives.
pub fn slos(pace: Pace) -> String {
    let mut out = HEAD.to_owned();
    for slo in SLOS {
        write!(out, "  - name: slo-{}\n    rules:\n", slo.name).unwrap();
        for window in WINDOWS {
            let range = pace.scaled(window);
            let (wrong, all) =
                (slo.wrong.replace("RANGE", &range), slo.all.replace("RANGE", &range));
            record(
                &mut out,
                &format!("slo:errors:ratio_rate{window}"),
                slo.name,
                &format!("{wrong} / ({all} > 0)"),
            );
        }
        let hour = pace.scaled("1h");
        record(&mut out, "slo:requests:rate1h", slo.name, &slo.all.replace("RANGE", &hour));
        record(&mut out, "slo:objective:ratio", slo.name, &format!("vector({})", slo.objective));
        for burn in &BURNS {
            burns(&mut out, slo, burn, pace);
        }
    }
    out
}

fn record(out: &mut String, name: &str, slo: &str, expression: &str) {
    write!(
        out,
        "      - record: {name}\n        labels: {{ slo: {slo} }}\n        expr: {}\n",
        quoted(expression)
    )
    .unwrap();
}

fn burns(out: &mut String, slo: &Slo, burn: &Burn, pace: Pace) {
    let budget = 1.0 - slo.objective;
    let name = slo.name;
    let pair = |(factor, long, short): &(f64, &str, &str)| {
        let limit = factor * budget;
        format!(
            r#"(slo:errors:ratio_rate{long}{{slo="{name}"}} > {limit:.6} and slo:errors:ratio_rate{short}{{slo="{name}"}} > {limit:.6})"#
        )
    };
    let pairs = burn.pairs.iter().map(pair).collect::<Vec<_>>().join(" or ");
    // A single failure in a quiet night is no reason to wake somebody.
    let guard = format!(r#" and on (job, slo) slo:requests:rate1h{{slo="{name}"}} > {LEAST_RATE}"#);
    let alert = Alert {
        name: "ErrorBudgetBurn",
        severity: burn.severity,
        expression: "",
        lasts: burn.lasts,
        summary: "",
        dashboard: "revwallet-slo",
        fires_on: &[],
    };
    let summary = format!(
        "{name} burns its budget of thirty days too fast: {{{{ $value | humanizePercentage }}}} go wrong"
    );
    write_alert(
        out,
        &alert,
        &format!("({pairs}){guard}"),
        &summary,
        pace,
        &format!(", slo: {name}"),
    );
}

/// The file of all other alerts.
pub fn alerts(pace: Pace) -> String {
    let mut out = HEAD.to_owned();
    out.push_str("  - name: revwallet\n    rules:\n");
    for alert in ALERTS {
        write_alert(&mut out, alert, &pace.expression(alert.expression), alert.summary, pace, "");
    }
    // Always there: whoever receives it raises the alarm when it stays away.
    out.push_str("      - alert: Watchdog\n        expr: vector(1)\n        labels: { severity: none }\n        annotations:\n          summary: \"The way of alerts works, as long as this arrives\"\n");
    out
}

fn write_alert(
    out: &mut String,
    alert: &Alert,
    expression: &str,
    summary: &str,
    pace: Pace,
    labels: &str,
) {
    let Alert { name, severity, lasts, dashboard, .. } = alert;
    write!(out, "      - alert: {name}\n        expr: {}\n", quoted(expression)).unwrap();
    if *lasts != "0s" {
        writeln!(out, "        for: {}", Pace { least: 1.0, ..pace }.scaled(lasts)).unwrap();
    }
    write!(
        out,
        "        labels: {{ severity: {severity}{labels} }}\n        annotations:\n          summary: {}\n          runbook_url: {}\n          dashboard_url: {}\n",
        quoted(summary),
        quoted(&format!("{RUNBOOKS}/{name}.md")),
        quoted(&format!("/grafana/d/{dashboard}")),
    )
    .unwrap();
}

/// The configuration of Prometheus in the compose file.
pub fn prometheus() -> String {
    "# Written by tests/monitoring: BLESS=1 cargo test --test monitoring
global:
  scrape_interval: 15s
  evaluation_interval: 15s
rule_files:
  - rules/*.yml
alerting:
  alertmanagers:
    - static_configs:
        - targets: [alertmanager:9093]
scrape_configs:
  - job_name: revwallet
    # OpenMetrics first: it carries exemplars.
    dns_sd_configs:
      - names: [revwallet-api, revwallet-worker]
        type: A
        port: 9000
  - job_name: prometheus
    metrics_path: /prometheus/metrics
    static_configs:
      - targets: [localhost:9090]
  - job_name: alertmanager
    static_configs:
      - targets: [alertmanager:9093]
  - job_name: grafana
    metrics_path: /grafana/metrics
    static_configs:
      - targets: [grafana:3000]
  - job_name: loki
    static_configs:
      - targets: [loki:3100]
  - job_name: tempo
    static_configs:
      - targets: [tempo:3200]
  - job_name: alloy
    static_configs:
      - targets: [alloy:12345]
  - job_name: nginx
    dns_sd_configs:
      - names: [nginx-exporter]
        type: A
        port: 9113
"
    .to_owned()
}

//! What every dashboard and every alert must have.

use std::collections::BTreeSet;

use clap::CommandFactory;
use revwallet::config::Cli;
use revwallet::telemetry::Metrics;

use crate::files::root;
use crate::source::alerts::ALERTS;
use crate::source::dashboards;
use crate::source::grafana::{From, Kind};
use crate::source::promql;

/// Metrics that come from elsewhere, by the beginning of their names.
const OTHERS: [&str; 12] = [
    "up",
    "scrape_",
    "ALERTS",
    "slo:",
    "process_",
    "prometheus_",
    "alertmanager_",
    "pg_",
    "node_",
    "loki_write_",
    "nginx_",
    "tokio_",
];

/// Units that Grafana knows and we use.
const UNITS: [&str; 8] = ["short", "percentunit", "s", "bytes", "reqps", "ops", "cps", "none"];

fn is_known(metric: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| metric.strip_suffix(end))
        .unwrap_or(metric);
    Metrics::DECLARED.iter().any(|declared| declared.name == metric || declared.name == base)
        || OTHERS.iter().any(|other| metric.starts_with(other))
}

#[test]
fn every_panel_says_what_it_shows() {
    let mut ids = BTreeSet::new();
    for dashboard in dashboards::all() {
        assert!(ids.insert(dashboard.uid), "{} is there twice", dashboard.uid);
        assert!(dashboard.description.ends_with('.'), "{}", dashboard.uid);
        let mut titles = BTreeSet::new();
        for panel in &dashboard.panels {
            let place = format!("{} / {}", dashboard.uid, panel.title);
            assert!(titles.insert(panel.title), "{place} is there twice");
            assert!(panel.description.ends_with('.'), "{place} has no description");
            assert!(UNITS.contains(&panel.unit), "{place} has the unit {}", panel.unit);
            assert!(!panel.queries.is_empty(), "{place} asks nothing");
            assert!(panel.width <= 24, "{place} is too wide");
            for (query, legend) in panel.queries.iter().filter(|_| panel.from == From::Prometheus) {
                assert!(!legend.is_empty(), "{place}: a line has no name");
                assert!(!query.contains("{}"), "{place}: {query}");
                sound(&place, query);
            }
            let needs_legend = panel.from == From::Loki && panel.kind == Kind::Lines;
            assert!(
                !needs_legend || panel.queries.iter().all(|(_, legend)| !legend.is_empty()),
                "{place}"
            );
        }
    }
}

/// The rules of thumb that keep an expression from lying.
fn sound(place: &str, query: &str) {
    for metric in promql::metrics(query) {
        assert!(is_known(&metric), "{place}: there is no metric {metric}");
        let counts = metric.ends_with("_total")
            || metric.ends_with("_bucket")
            || metric.ends_with("_count")
                && !metric.starts_with("pg_")
                && !metric.starts_with("db_client_connection_count")
                && !metric.starts_with("tokio_");
        let at = query.find(&metric).unwrap();
        let before = &query[..at];
        let first_sight = metric == "wallet_ledger_invariant_checks_total";
        let is_rated = ["rate(", "increase(", "changes("].iter().any(|call| before.ends_with(call));
        assert!(
            !counts || is_rated || first_sight,
            "{place}: {metric} only grows, so ask for its rate: {query}"
        );
        let own = Metrics::DECLARED.iter().any(|declared| metric.starts_with(declared.name));
        if own && !query.contains("slo:") {
            let behind = &query[at + metric.len()..];
            assert!(
                behind.starts_with("{job=\"revwallet\",instance=~\"$instance\""),
                "{place}: {metric} is not of the chosen processes: {query}"
            );
        }
    }
    if query.contains("histogram_quantile(") {
        assert!(query.contains("by (le"), "{place}: buckets are added up by le: {query}");
    }
    let fixed = query.contains("[5m]") && query.contains("rate(");
    assert!(!fixed, "{place}: the range should follow the resolution: $__rate_interval");
}

#[test]
fn no_panel_lies_on_another() {
    for dashboard in dashboards::all() {
        let json = dashboard.json();
        let places: Vec<[u64; 4]> = json["panels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|panel| ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap()))
            .collect();
        for (n, a) in places.iter().enumerate() {
            assert!(a[0] + a[2] <= 24, "{}: panel {n} leaves the page", dashboard.uid);
            for b in &places[n + 1..] {
                let apart = a[0] + a[2] <= b[0]
                    || b[0] + b[2] <= a[0]
                    || a[1] + a[3] <= b[1]
                    || b[1] + b[3] <= a[1];
                assert!(apart, "{}: {a:?} and {b:?}", dashboard.uid);
            }
        }
        let ids: BTreeSet<u64> = json["panels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|panel| panel["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), places.len());
    }
}

#[test]
fn every_alert_has_a_runbook_a_dashboard_and_known_metrics() {
    let dashboards: Vec<&str> = dashboards::all().iter().map(|dashboard| dashboard.uid).collect();
    let mut names: Vec<&str> = ALERTS.iter().map(|alert| alert.name).collect();
    for alert in ALERTS {
        assert!(dashboards.contains(&alert.dashboard), "{} shows {}", alert.name, alert.dashboard);
        assert!(["page", "ticket"].contains(&alert.severity), "{}", alert.name);
        for metric in promql::metrics(alert.expression) {
            assert!(is_known(&metric), "{}: there is no metric {metric}", alert.name);
        }
    }
    names.push("ErrorBudgetBurn");
    // Of Loki.
    names.push("CredentialInLogs");
    for name in &names {
        let path = root().join(format!("docs/runbooks/{name}.md"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name} has no runbook"));
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["## What it means", "## What to look at", "## What to do"] {
            assert!(text.contains(part), "{name} lacks: {part}");
        }
    }
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.trim_end_matches(".md");
        assert!(names.contains(&name), "nothing leads to the runbook {file}");
    }
}

#[test]
fn a_runbook_speaks_of_what_is_there() {
    let command = Cli::command();
    let own = command
        .get_arguments()
        .chain(command.get_subcommands().flat_map(clap::Command::get_arguments));
    let flags: BTreeSet<&str> = own.filter_map(clap::Arg::get_long).collect();
    let events = crate::tables::events();
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for flag in text.split("--").skip(1) {
            let flag = flag.split(|c: char| !c.is_ascii_lowercase() && c != '-').next().unwrap();
            assert!(flags.contains(flag), "{}: there is no --{flag}", path.display());
        }
        for event in text.split("event=\"").skip(1) {
            let event = event.split('"').next().unwrap();
            assert!(
                events.contains(&format!("`{event}`")),
                "{}: nothing says {event}",
                path.display()
            );
        }
    }
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let shown: BTreeSet<String> = dashboards::all()
        .iter()
        .flat_map(|dashboard| dashboard.panels.iter())
        .flat_map(|panel| panel.queries.iter())
        .flat_map(|(query, _)| promql::metrics(query))
        .map(|metric| {
            ["_bucket", "_sum"]
                .iter()
                .find_map(|end| metric.strip_suffix(end).map(str::to_owned))
                .unwrap_or(metric)
        })
        .collect();
    for declared in Metrics::DECLARED {
        let name = declared.name;
        let counted = format!("{name}_count");
        assert!(shown.contains(name) || shown.contains(&counted), "{name} is on no dashboard");
    }
}

//! Lints of the dashboards and the alerts.

use std::collections::BTreeSet;

use revwallet::telemetry::Metrics;

use crate::generated_files::root;
use crate::source::alerts;
use crate::source::dashboards;
use crate::source::grafana::{Kind, Source};
use crate::source::promql;

/// Prefixes of metrics that other programs export.
const EXTERNAL_METRICS: [&str; 14] = [
    "up",
    "scrape_",
    "ALERTS",
    "slo:",
    "process_",
    "prometheus_",
    "alertmanager_",
    "pg_",
    "node_",
    "loki_discarded_",
    "loki_write_",
    "tempo_discarded_",
    "nginx_",
    "tokio_",
];

/// Grafana units in use.
const UNITS: [&str; 8] = ["short", "percentunit", "s", "bytes", "reqps", "ops", "cps", "none"];

/// Whether the program or another program of the system exports a metric.
pub fn is_known(metric: &str) -> bool {
    let base = ["_bucket", "_sum", "_count"]
        .iter()
        .find_map(|end| metric.strip_suffix(end))
        .unwrap_or(metric);
    Metrics::DECLARED.iter().any(|declared| declared.name == metric || declared.name == base)
        || EXTERNAL_METRICS.iter().any(|prefix| metric.starts_with(prefix))
}

#[test]
fn every_panel_is_complete() {
    let mut ids = BTreeSet::new();
    for dashboard in dashboards::all() {
        assert!(ids.insert(dashboard.uid), "duplicate dashboard {}", dashboard.uid);
        assert!(dashboard.description.ends_with('.'), "{}", dashboard.uid);
        let mut titles = BTreeSet::new();
        for panel in &dashboard.panels {
            let panel_name = format!("{} / {}", dashboard.uid, panel.title);
            assert!(titles.insert(panel.title), "duplicate panel {panel_name}");
            assert!(panel.description.ends_with('.'), "{panel_name} has no description");
            assert!(
                UNITS.contains(&panel.unit),
                "{panel_name} has the unknown unit {}",
                panel.unit
            );
            assert!(!panel.queries.is_empty(), "{panel_name} has no query");
            assert!(panel.width <= 24, "{panel_name} is wider than the page");
            for (query, legend) in
                panel.queries.iter().filter(|_| panel.source == Source::Prometheus)
            {
                assert!(!legend.is_empty(), "{panel_name}: a query has no legend");
                assert!(!query.contains("{}"), "{panel_name}: {query}");
                check_query(&panel_name, query);
            }
            let needs_legend = panel.source == Source::Loki && panel.kind == Kind::TimeSeries;
            assert!(
                !needs_legend || panel.queries.iter().all(|(_, legend)| !legend.is_empty()),
                "{panel_name}"
            );
        }
    }
}

/// Checks a query for common mistakes that make a panel misleading.
fn check_query(panel: &str, query: &str) {
    for metric in promql::metric_names(query) {
        assert!(is_known(&metric), "{panel}: unknown metric {metric}");
        let is_counter = metric.ends_with("_total")
            || metric.ends_with("_bucket")
            || metric.ends_with("_count")
                && !metric.starts_with("pg_")
                && !metric.starts_with("db_client_connection_count")
                && !metric.starts_with("tokio_");
        let at = query.find(&metric).unwrap();
        let before = &query[..at];
        let is_total_on_purpose = metric == "wallet_ledger_invariant_checks_total";
        let is_rated = ["rate(", "increase(", "changes("].iter().any(|call| before.ends_with(call));
        assert!(
            !is_counter || is_rated || is_total_on_purpose,
            "{panel}: {metric} is a counter, query its rate: {query}"
        );
        let own = Metrics::DECLARED.iter().any(|declared| metric.starts_with(declared.name));
        // The scale of a currency is the same in every process, and one of them exports it.
        let is_scale = metric == "wallet_currency_minor_units";
        if own && !is_scale && !query.contains("slo:") {
            let matchers = &query[at + metric.len()..];
            assert!(
                matchers.starts_with("{job=\"revwallet\",instance=~\"$instance\""),
                "{panel}: {metric} ignores the selected instances: {query}"
            );
        }
    }
    if query.contains("histogram_quantile(") {
        assert!(query.contains("by (le"), "{panel}: sum the buckets by le: {query}");
    }
    let has_fixed_range = query.contains("[5m]") && query.contains("rate(");
    assert!(!has_fixed_range, "{panel}: use $__rate_interval as the range: {query}");
}

#[test]
fn panels_do_not_overlap() {
    for dashboard in dashboards::all() {
        let json = dashboard.json();
        let positions: Vec<[u64; 4]> = json["panels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|panel| ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap()))
            .collect();
        for (n, a) in positions.iter().enumerate() {
            assert!(a[0] + a[2] <= 24, "{}: panel {n} is wider than the page", dashboard.uid);
            for b in &positions[n + 1..] {
                let apart = a[0] + a[2] <= b[0]
                    || b[0] + b[2] <= a[0]
                    || a[1] + a[3] <= b[1]
                    || b[1] + b[3] <= a[1];
                assert!(apart, "{}: {a:?} overlaps {b:?}", dashboard.uid);
            }
        }
        let ids: BTreeSet<u64> = json["panels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|panel| panel["id"].as_u64().unwrap())
            .collect();
        assert_eq!(ids.len(), positions.len());
    }
}

#[test]
fn every_alert_has_a_runbook_a_dashboard_and_known_metrics() {
    let dashboards: Vec<&str> = dashboards::all().iter().map(|dashboard| dashboard.uid).collect();
    let mut names: Vec<&str> = alerts::all().map(|alert| alert.name).collect();
    for alert in alerts::all() {
        assert!(
            dashboards.contains(&alert.dashboard),
            "{}: unknown dashboard {}",
            alert.name,
            alert.dashboard
        );
        assert!(["page", "ticket"].contains(&alert.severity), "{}", alert.name);
        for metric in promql::metric_names(alert.expression) {
            assert!(is_known(&metric), "{}: unknown metric {metric}", alert.name);
        }
    }
    names.push("ErrorBudgetBurn");
    // Defined in the rules of Loki.
    names.push("CredentialInLogs");
    for name in &names {
        let path = root().join(format!("docs/runbooks/{name}.md"));
        let text =
            std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name} has no runbook"));
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
    }
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.trim_end_matches(".md");
        assert!(names.contains(&name), "no alert links to the runbook {file}");
    }
}

#[test]
fn every_alert_has_a_panel_that_links_to_its_runbook() {
    let mut missing = Vec::new();
    for alert in alerts::all() {
        let dashboard = dashboards::all().into_iter().find(|d| d.uid == alert.dashboard).unwrap();
        let link = format!("../../../../runbooks/{}", alert.name);
        let json = dashboard.json();
        let panels = json["panels"].as_array().unwrap().iter();
        let mut links = panels.flat_map(|panel| panel["links"].as_array().into_iter().flatten());
        if !links.any(|other| other["url"] == link) {
            missing.push((alert.name, alert.dashboard));
        }
    }
    assert!(missing.is_empty(), "these dashboards do not show what the alert watches: {missing:?}");
}

#[test]
fn every_link_leads_to_a_dashboard_that_exists() {
    let dashboards = dashboards::all();
    for dashboard in &dashboards {
        for panel in dashboard.panels.iter().filter(|panel| panel.details.is_some()) {
            let target = panel.details.unwrap();
            let exists = dashboards.iter().any(|other| other.uid == target);
            assert!(exists && target != dashboard.uid, "{}: {target}", panel.title);
        }
    }
}

#[test]
fn a_dashboard_with_more_panels_than_a_screen_has_groups() {
    for dashboard in dashboards::all() {
        let groups = dashboard.panels.iter().filter(|panel| panel.row.is_some()).count();
        assert!(dashboard.panels.len() <= 8 || groups > 0, "{} has no groups", dashboard.uid);
    }
}

#[test]
fn amounts_are_shown_in_units_of_their_currency() {
    let scale = "wallet_currency_minor_units";
    for dashboard in dashboards::all() {
        for panel in &dashboard.panels {
            for (query, _) in &panel.queries {
                let is_amount = query.contains("_minor_units") && !query.contains("imbalance");
                let divided = query.contains(&format!("group_left () max by (currency) ({scale}"));
                assert!(!is_amount || divided, "{} shows minor units", panel.title);
            }
        }
    }
}

#[test]
fn every_metric_is_on_a_dashboard() {
    let shown: BTreeSet<String> = dashboards::all()
        .iter()
        .flat_map(|dashboard| dashboard.panels.iter())
        .flat_map(|panel| panel.queries.iter())
        .flat_map(|(query, _)| promql::metric_names(query))
        .map(|metric| {
            ["_bucket", "_sum"]
                .iter()
                .find_map(|end| metric.strip_suffix(end).map(str::to_owned))
                .unwrap_or(metric)
        })
        .collect();
    for declared in Metrics::DECLARED {
        let name = declared.name;
        let count = format!("{name}_count");
        assert!(shown.contains(name) || shown.contains(&count), "no dashboard shows {name}");
    }
}

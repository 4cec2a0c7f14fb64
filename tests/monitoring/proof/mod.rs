//! End-to-end test of monitoring with the real program, Prometheus and Alertmanager: a workload fills every panel, then
//! injected faults make alerts fire, and their removal makes them resolve.

mod inject;
mod stack;
mod workload;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::eventually_within;
use crate::source::dashboards;
use crate::source::grafana::Source;
use crate::source::promql;

use self::stack::{Notification, Stack};

/// Upper bound on the series of one process after the workload.
const SERIES_MAX: usize = 10_000;

/// Prefixes of metrics whose exporters are not part of this test.
const NOT_EXPORTED: [&str; 5] = ["pg_", "node_", "nginx_", "loki_", "tempo_"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panels_have_data_and_alerts_fire_and_resolve() {
    let stack = Stack::start().await;
    workload::run(&stack).await;

    every_metric_is_scraped(&stack).await;
    every_panel_has_data(&stack).await;
    series_stay_within_the_budget(&stack).await;
    let exemplars = stack.exemplars("http_server_request_duration_seconds_bucket").await;
    assert!(exemplars > 10, "only {exemplars} exemplars link to a trace");
    Box::pin(inject::all_faults(&stack)).await;
    every_alert_reached_its_receiver(&stack).await;

    stack.stop().await;
}

async fn every_metric_is_scraped(stack: &Stack) {
    let scraped: BTreeSet<String> = stack.metric_names().await.into_iter().collect();
    for dashboard in dashboards::all() {
        for panel in dashboard.panels.iter().filter(|panel| panel.source == Source::Prometheus) {
            for metric in panel.queries.iter().flat_map(|(query, _)| promql::metric_names(query)) {
                let is_external = NOT_EXPORTED.iter().any(|start| metric.starts_with(start));
                assert!(
                    is_external || metric == "ALERTS" || scraped.contains(&metric),
                    "{} / {}: no target exports {metric}",
                    dashboard.uid,
                    panel.title
                );
            }
        }
    }
}

async fn every_panel_has_data(stack: &Stack) {
    let mut empty = Vec::new();
    let mut shown = 0;
    for dashboard in dashboards::all() {
        for panel in dashboard.panels.iter().filter(|panel| panel.source == Source::Prometheus) {
            for (query, legend) in &panel.queries {
                let query = query.replace("$instance", ".+").replace("$__rate_interval", "15s");
                let found = stack.query(&query).await;
                if found.is_empty() && panel.empty_when.is_none() {
                    empty.push(format!("{} / {} ({legend}): {query}", dashboard.uid, panel.title));
                }
                shown += usize::from(!found.is_empty());
            }
        }
    }
    assert!(empty.is_empty(), "{} panels are empty:\n{}", empty.len(), empty.join("\n"));
    assert!(shown > 100, "only {shown} expressions returned something");
}

async fn series_stay_within_the_budget(stack: &Stack) {
    let metrics = stack.first.internal.get("/metrics").await.text;
    let series = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    assert!(series < SERIES_MAX, "{series} series");
}

/// Pages reach the pager, tickets the ticket receiver, and the watchdog its own.
async fn every_alert_reached_its_receiver(stack: &Stack) {
    let received = || stack.received();
    eventually_within(Duration::from_secs(30), "the watchdog arrives", async || {
        received().iter().any(|one| one.receiver == "watchdog" && one.alert == "Watchdog")
    })
    .await;
    eventually_within(
        Duration::from_secs(30),
        "the pager receives the alert and its resolution",
        async || {
            let of_invariant: Vec<_> = received()
                .into_iter()
                .filter(|one| one.alert == "LedgerInvariantViolated")
                .collect();
            ["firing", "resolved"].iter().all(|status| {
                of_invariant.iter().any(|one| one.receiver == "pager" && one.status == *status)
            })
        },
    )
    .await;
    for Notification { receiver, alert, .. } in received() {
        let page = crate::source::alerts::all()
            .any(|known| known.name == alert && known.severity == "page");
        let expected = match alert.as_str() {
            "Watchdog" => vec!["watchdog"],
            // An objective both pages and opens a ticket.
            "ErrorBudgetBurn" => vec!["pager", "tickets"],
            _ if page => vec!["pager"],
            _ => vec!["tickets"],
        };
        assert!(expected.contains(&receiver.as_str()), "{alert} was sent to {receiver}");
    }
}

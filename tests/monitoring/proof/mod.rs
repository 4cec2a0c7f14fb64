//! The proof: the real program, the real Prometheus, the real Alertmanager. Everything is used, every panel must show
//! something, and what can be broken is broken until its alert fires, and mended until it resolves.

mod drive;
mod provoke;
mod stack;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::eventually_within;
use crate::source::dashboards;
use crate::source::grafana::From;
use crate::source::promql;

use self::stack::Stack;

/// Most series of one process after everything was used.
const SERIES_MAX: usize = 10_000;

/// Metrics of programs that are not part of this test.
const ELSEWHERE: [&str; 4] = ["pg_", "node_", "nginx_", "loki_"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panels_show_something_and_alerts_fire_and_resolve() {
    let stack = Stack::start().await;
    drive::everything(&stack).await;

    every_metric_is_scraped(&stack).await;
    every_panel_has_data(&stack).await;
    few_series(&stack).await;
    let exemplars = stack.exemplars("http_server_request_duration_seconds_bucket").await;
    assert!(exemplars > 10, "{exemplars} requests lead to their trace");
    provoke::all(&stack).await;
    the_right_people_were_told(&stack).await;

    stack.stop().await;
}

async fn every_metric_is_scraped(stack: &Stack) {
    let scraped: BTreeSet<String> = stack.names().await.into_iter().collect();
    for dashboard in dashboards::all() {
        for panel in dashboard.panels.iter().filter(|panel| panel.from == From::Prometheus) {
            for metric in panel.queries.iter().flat_map(|(query, _)| promql::metrics(query)) {
                let elsewhere = ELSEWHERE.iter().any(|start| metric.starts_with(start));
                assert!(
                    elsewhere || metric == "ALERTS" || scraped.contains(&metric),
                    "{} / {}: nobody exports {metric}",
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
        for panel in dashboard.panels.iter().filter(|panel| panel.from == From::Prometheus) {
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

async fn few_series(stack: &Stack) {
    let metrics = stack.first.internal.get("/metrics").await.text;
    let series = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count();
    assert!(series < SERIES_MAX, "{series} series");
}

/// What was told to whom: pages to the pager, the watchdog always.
async fn the_right_people_were_told(stack: &Stack) {
    let told = || stack.told();
    eventually_within(Duration::from_secs(30), "the watchdog is heard", async || {
        told().iter().any(|(to, alert, _)| to == "watchdog" && alert == "Watchdog")
    })
    .await;
    eventually_within(
        Duration::from_secs(30),
        "the pager rang, and was told that it is over",
        async || {
            let of_invariant: Vec<_> = told()
                .into_iter()
                .filter(|(_, alert, _)| alert == "LedgerInvariantViolated")
                .collect();
            ["firing", "resolved"].iter().all(|status| {
                of_invariant.iter().any(|(to, _, said)| to == "pager" && said == status)
            })
        },
    )
    .await;
    for (to, alert, _) in told() {
        let page = crate::source::alerts::ALERTS
            .iter()
            .any(|known| known.name == alert && known.severity == "page");
        let expected = match alert.as_str() {
            "Watchdog" => vec!["watchdog"],
            // One promise pages and writes a ticket.
            "ErrorBudgetBurn" => vec!["pager", "tickets"],
            _ if page => vec!["pager"],
            _ => vec!["tickets"],
        };
        assert!(expected.contains(&to.as_str()), "{alert} was told to {to}");
    }
}

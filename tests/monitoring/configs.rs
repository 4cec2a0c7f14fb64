//! Static checks of configurations whose programs are not available to the tests: Alloy, Loki, Tempo and Grafana.

use std::collections::BTreeSet;

use crate::generated_files::root;
use crate::source::dashboards;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every component of an Alloy configuration, as `kind.of.component.name`.
fn components(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with([' ', '/'])) {
        if let Some((kind, rest)) = line.split_once(" \"")
            && let Some((name, _)) = rest.split_once('"')
        {
            assert!(found.insert(format!("{kind}.{name}")), "duplicate component {kind} {name}");
        }
    }
    found
}

/// The configuration of Alloy on a platform: the common file and the file of the platform.
fn alloy(platform: &str) -> String {
    read("alloy/config.alloy") + &read(&format!("alloy/{platform}.alloy"))
}

#[test]
fn every_alloy_reference_resolves() {
    for platform in ["docker", "kubernetes"] {
        check_references(&alloy(platform));
    }
}

fn check_references(text: &str) {
    let components = components(text);
    assert!(components.len() > 10, "{components:?}");
    let mut used = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c)) {
            for end in [".receiver", ".input", ".output", ".targets", ".content"] {
                if let Some(component) =
                    word.strip_suffix(end).filter(|component| component.matches('.').count() >= 2)
                {
                    assert!(components.contains(component), "{component} is not defined: {line}");
                    used.insert(component.to_owned());
                }
            }
        }
    }
    let unused: Vec<_> = components.iter().filter(|component| !used.contains(*component)).collect();
    // Sources and scrapers: no other component refers to them.
    let sources = [
        "loki.source.docker.containers",
        "loki.source.kubernetes.pods",
        "loki.source.kubernetes_events.events",
        "loki.source.api.push",
        "otelcol.receiver.otlp.traces",
        "prometheus.scrape.machine",
        "prometheus.scrape.database",
    ];
    assert!(
        unused.iter().all(|component| sources.contains(&component.as_str())),
        "no component refers to {unused:?}"
    );
    let (open, close) = (text.matches('{').count(), text.matches('}').count());
    assert_eq!(open, close, "unbalanced braces");
}

#[test]
fn every_data_source_of_a_panel_is_provisioned() {
    let sources = read("grafana/provisioning/datasources/revwallet.yml");
    for dashboard in dashboards::all() {
        for panel in dashboard.json()["panels"].as_array().unwrap() {
            let uid = panel["datasource"]["uid"].as_str().unwrap();
            let known = uid == "${datasource}" || sources.contains(&format!("uid: {uid}\n"));
            assert!(known, "{}: data source {uid} is not provisioned", dashboard.uid);
        }
    }
    // Grafana expands a single dollar sign as an environment variable.
    for (at, _) in sources.match_indices('$') {
        let is_escaped = sources[at..].starts_with("$$")
            || sources[..at].ends_with('$')
            || ["$__file{", "$__env{OBSERVER_SSLMODE}"]
                .iter()
                .any(|variable| sources[at..].starts_with(variable));
        assert!(is_escaped, "unescaped dollar sign: {}", &sources[at..at + 20]);
    }
}

#[test]
fn configurations_agree_on_addresses() {
    let alloy = read("alloy/config.alloy");
    let (loki, tempo) = (read("loki/loki.yaml"), read("tempo/tempo.yaml"));
    let sources = read("grafana/provisioning/datasources/revwallet.yml");
    assert!(
        loki.contains("http_listen_port: 3100")
            && alloy.contains("http://loki:3100/")
            && sources.contains("http://loki:3100\n")
    );
    assert!(tempo.contains("http_listen_port: 3200") && sources.contains("http://tempo:3200\n"));
    assert!(tempo.contains("0.0.0.0:4317") && alloy.contains("tempo:4317"));
    assert!(loki.contains("alertmanager_url: http://alertmanager:9093\n"));
}

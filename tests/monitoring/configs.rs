//! The files of programs that cannot be had here: what can be told of them without running them.

use std::collections::BTreeSet;

use crate::files::root;
use crate::source::dashboards;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every `kind.of.component "name"` of an Alloy file, as others refer to it.
fn components(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with([' ', '/'])) {
        if let Some((kind, rest)) = line.split_once(" \"")
            && let Some((name, _)) = rest.split_once('"')
        {
            assert!(found.insert(format!("{kind}.{name}")), "{kind} {name} is there twice");
        }
    }
    found
}

/// The folder is one configuration: what is the same everywhere, and one file for the place where it runs.
fn alloy(place: &str) -> String {
    read("alloy/config.alloy") + &read(&format!("alloy/{place}.alloy"))
}

#[test]
fn whatever_alloy_forwards_to_is_there() {
    for place in ["docker", "kubernetes"] {
        whatever_it_forwards_to_is_there(&alloy(place));
    }
}

fn whatever_it_forwards_to_is_there(text: &str) {
    let components = components(text);
    assert!(components.len() > 10, "{components:?}");
    let mut used = BTreeSet::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c)) {
            for end in [".receiver", ".input", ".output", ".targets", ".content"] {
                if let Some(component) =
                    word.strip_suffix(end).filter(|component| component.matches('.').count() >= 2)
                {
                    assert!(components.contains(component), "{component} is nowhere: {line}");
                    used.insert(component.to_owned());
                }
            }
        }
    }
    let idle: Vec<_> = components.iter().filter(|component| !used.contains(*component)).collect();
    // They take from outside, or send there by themselves.
    let known = [
        "loki.source.docker.containers",
        "loki.source.kubernetes.pods",
        "loki.source.kubernetes_events.events",
        "loki.source.api.push",
        "otelcol.receiver.otlp.traces",
        "prometheus.scrape.machine",
        "prometheus.scrape.database",
    ];
    assert!(
        idle.iter().all(|component| known.contains(&component.as_str())),
        "nothing reaches {idle:?}"
    );
    let (open, close) = (text.matches('{').count(), text.matches('}').count());
    assert_eq!(open, close, "a block is not closed");
}

#[test]
fn every_source_of_a_panel_is_provisioned() {
    let sources = read("grafana/provisioning/datasources/revwallet.yml");
    for dashboard in dashboards::all() {
        for panel in dashboard.json()["panels"].as_array().unwrap() {
            let uid = panel["datasource"]["uid"].as_str().unwrap();
            let known = uid == "${datasource}" || sources.contains(&format!("uid: {uid}\n"));
            assert!(known, "{}: {uid} is not provisioned", dashboard.uid);
        }
    }
    // One dollar would be a variable of the environment.
    for (at, _) in sources.match_indices('$') {
        let doubled = sources[at..].starts_with("$$")
            || sources[..at].ends_with('$')
            || ["$__file{", "$__env{OBSERVER_SSLMODE}"]
                .iter()
                .any(|own| sources[at..].starts_with(own));
        assert!(doubled, "a single dollar: {}", &sources[at..at + 20]);
    }
}

#[test]
fn programs_speak_of_the_same_places() {
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

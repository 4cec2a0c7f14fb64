//! Static checks of configurations whose programs are not available to the tests: Alloy, Loki, Tempo and Grafana.

use std::collections::BTreeSet;

use crate::generated_files::root;
use crate::source::dashboards;
use crate::source::promql::TimeScale;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Every component of an Alloy configuration, as `kind.of.component.name`.
fn components(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with(['\t', ' ', '/'])) {
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
        let json = dashboard.json();
        for panel in json["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row") {
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

/// A block of an Alloy configuration, from its name to the closing brace at the start of a line.
fn block<'a>(text: &'a str, name: &str) -> &'a str {
    let start = text.find(&format!("{name} {{\n")).unwrap_or_else(|| panic!("no block {name}"));
    &text[start..start + text[start..].find("\n}\n").unwrap()]
}

#[test]
fn every_scrape_interval_fits_the_panels_and_the_rules() {
    let interval = "15s";
    let prometheus = crate::source::rules::prometheus();
    assert!(prometheus.contains(&format!("scrape_interval: {interval}\n")));
    // A rate needs two samples: `$__rate_interval` is four times this interval of the data source.
    let sources = read("grafana/provisioning/datasources/revwallet.yml");
    assert!(sources.contains(&format!("timeInterval: {interval}\n")));
    for platform in ["docker", "kubernetes"] {
        let alloy = alloy(platform);
        let scrapes =
            components(&alloy).into_iter().filter(|name| name.starts_with("prometheus.scrape."));
        for name in scrapes {
            let name = name.trim_start_matches("prometheus.scrape.");
            let scrape = block(&alloy, &format!("prometheus.scrape \"{name}\""));
            assert!(
                scrape.contains(&format!("scrape_interval = \"{interval}\"")),
                "{name}: {scrape}"
            );
        }
    }
    let rules = crate::source::rules::slos(TimeScale::REAL)
        + &crate::source::rules::alerts(TimeScale::REAL);
    for window in
        rules.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(window, _)| window)
    {
        let seconds = humantime::parse_duration(window).map_or(0, |window| window.as_secs());
        assert!(
            seconds == 0 || seconds >= 60,
            "a window of {window} holds fewer than four scrapes"
        );
    }
}

#[test]
fn the_job_of_an_exporter_is_the_one_that_dashboards_and_alerts_use() {
    let alloy = alloy("docker");
    for (name, job) in [("database", "postgres"), ("machine", "node")] {
        let relabel = block(&alloy, &format!("discovery.relabel \"{name}\""));
        assert!(
            relabel.contains("target_label = \"job\"") && relabel.contains(&format!("\"{job}\""))
        );
        let scrape = block(&alloy, &format!("prometheus.scrape \"{name}\""));
        assert!(scrape.contains(&format!("discovery.relabel.{name}.output")), "{scrape}");
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

/// Templates of rules remove these paths from the addresses of Prometheus and Grafana to get the public URL.
#[test]
fn links_of_alerts_begin_with_the_public_url() {
    let compose = read("docker-compose.yml");
    let public = "${REVWALLET_URL:-http://revwallet.com}";
    assert!(crate::source::PUBLIC_URL.contains(r#""/prometheus$" """#));
    assert!(compose.contains(&format!("- --web.external-url={public}/prometheus/\n")));
    assert!(compose.contains(&format!("- -ruler.external.url={public}/grafana\n")));
    let rules = read("loki/rules/fake/revwallet.yaml");
    let links = rules.matches(r#"_url: '{{ reReplaceAll "/grafana$" "" $externalURL }}/runbooks/"#);
    assert_eq!(links.count(), rules.matches("runbook_url: ").count());
    for (manifest, argument) in [
        ("prometheus", "--web.external-url=$(PUBLIC_URL)/prometheus/"),
        ("loki", "-ruler.external.url=$(PUBLIC_URL)/grafana"),
    ] {
        let manifest = read(&format!("kind/base/{manifest}.yaml"));
        assert!(manifest.contains(&format!("- {argument}\n")), "{argument}");
    }
}

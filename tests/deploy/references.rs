//! References between manifests and configurations: every name that one uses exists in another.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::read;
use crate::render::{Manifests, OVERLAYS, list, name, overlay, text};

/// Secrets with their keys that production expects to exist; `kind/README.md` says how to create them.
pub const EXTERNAL_SECRETS: [(&str, &[&str]); 5] = [
    ("revwallet-database", &["database_url"]),
    ("revwallet-observer", &["observer_password", "observer_url"]),
    ("grafana", &["admin_password"]),
    ("nginx", &["edge_users"]),
    ("revwallet-tls", &["tls.crt", "tls.key"]),
];

/// Collects the references of a pod: kind, name, and keys if it names some.
fn references(value: &Value, found: &mut Vec<(&'static str, String, Vec<String>)>) {
    let Some(object) = value.as_object() else {
        for member in list(value) {
            references(member, found);
        }
        return;
    };
    let keys = |source: &Value| -> Vec<String> {
        list(&source["items"]).iter().map(|item| text(&item["key"]).to_owned()).collect()
    };
    for (field, source) in object {
        match field.as_str() {
            "secretKeyRef" | "secret" if source["optional"] == true => {}
            "configMapKeyRef" | "secretKeyRef" => {
                let kind = if field.starts_with('c') { "ConfigMap" } else { "Secret" };
                let key = text(&source["key"]).to_owned();
                found.push((kind, text(&source["name"]).to_owned(), vec![key]));
            }
            "configMapRef" => found.push(("ConfigMap", text(&source["name"]).to_owned(), vec![])),
            "configMap" => {
                found.push(("ConfigMap", text(&source["name"]).to_owned(), keys(source)));
            }
            "secret" => {
                let name = if source["name"].is_null() { "secretName" } else { "name" };
                found.push(("Secret", text(&source[name]).to_owned(), keys(source)));
            }
            "persistentVolumeClaim" => {
                let name = text(&source["claimName"]).to_owned();
                found.push(("PersistentVolumeClaim", name, vec![]));
            }
            "serviceAccountName" => {
                found.push(("ServiceAccount", text(source).to_owned(), vec![]));
            }
            _ => references(source, found),
        }
    }
}

/// Returns the keys of a ConfigMap or Secret.
pub fn keys_of(manifests: &Manifests, kind: &str, name: &str) -> Option<Vec<String>> {
    if kind == "Secret" && manifests.overlay.ends_with("production") {
        let (_, keys) = EXTERNAL_SECRETS.iter().find(|(known, _)| *known == name)?;
        return Some(keys.iter().map(|key| (*key).to_owned()).collect());
    }
    let data = &manifests.find(kind, name)?["data"];
    Some(data.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect())
}

#[test]
fn every_reference_of_a_pod_exists_and_every_resource_is_used() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        let mut used = BTreeSet::new();
        for pod in manifests.pods() {
            let mut found = Vec::new();
            references(pod.spec, &mut found);
            for (kind, name, keys) in found {
                let present = keys_of(&manifests, kind, &name)
                    .unwrap_or_else(|| panic!("{}: {kind} {name} does not exist", pod.name));
                for key in keys {
                    assert!(present.contains(&key), "{}: {kind} {name} has no {key}", pod.name);
                }
                used.insert((kind, name));
            }
            assert_mounts_match_volumes(pod.spec, &pod.name);
        }
        for kind in ["ConfigMap", "Secret"] {
            for resource in manifests.of_kind(kind) {
                let name = name(resource).to_owned();
                assert!(used.contains(&(kind, name.clone())), "{kind} {name} is not used");
            }
        }
    }
}

fn assert_mounts_match_volumes(spec: &Value, pod: &str) {
    let mut volumes: BTreeSet<&str> =
        list(&spec["volumes"]).iter().map(|volume| text(&volume["name"])).collect();
    let mut used = BTreeSet::new();
    for container in [list(&spec["initContainers"]), list(&spec["containers"])].concat() {
        for mount in list(&container["volumeMounts"]) {
            used.insert(text(&mount["name"]));
        }
    }
    // A StatefulSet creates this volume itself.
    if pod.starts_with("StatefulSet") {
        volumes.insert("data");
    }
    assert_eq!(volumes, used, "{pod}");
}

#[test]
fn every_service_leads_to_a_pod_that_listens() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        let pods = manifests.pods();
        for service in manifests.of_kind("Service") {
            if service["spec"]["type"] == "ExternalName" {
                continue;
            }
            let selector = serde_json::json!({ "matchLabels": service["spec"]["selector"] });
            let selected: Vec<_> =
                pods.iter().filter(|pod| pod.is_selected_by(&selector)).collect();
            assert_eq!(selected.len(), 1, "pods of {}", name(service));
            for port in list(&service["spec"]["ports"]) {
                assert!(
                    selected[0].port(&port["targetPort"]).is_some(),
                    "{}: {port}",
                    name(service)
                );
            }
        }
    }
}

#[test]
fn every_selector_matches_one_kind_of_pod() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        let pods = manifests.pods();
        for kind in ["Deployment", "StatefulSet", "PodDisruptionBudget"] {
            for resource in manifests.of_kind(kind) {
                let selector = &resource["spec"]["selector"];
                let found = pods.iter().filter(|pod| pod.is_selected_by(selector)).count();
                assert_eq!(found, 1, "{kind} {}", name(resource));
            }
        }
        for scaler in manifests.of_kind("HorizontalPodAutoscaler") {
            let target = &scaler["spec"]["scaleTargetRef"];
            assert!(manifests.find(text(&target["kind"]), text(&target["name"])).is_some());
        }
        for set in manifests.of_kind("StatefulSet") {
            assert!(manifests.find("Service", text(&set["spec"]["serviceName"])).is_some());
        }
        for binding in manifests.of_kind("RoleBinding") {
            assert!(manifests.find("Role", text(&binding["roleRef"]["name"])).is_some());
            let subject = &binding["subjects"][0];
            assert!(manifests.find("ServiceAccount", text(&subject["name"])).is_some());
        }
    }
}

/// Returns every `host:port` of a text whose host looks like the name of a service.
fn addresses(text: &str) -> BTreeSet<(String, u64)> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '/'])) {
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && !"-.:_".contains(c)) {
            let Some((host, rest)) = word.split_once(':') else { continue };
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let is_service_name =
                host.starts_with(|c: char| c.is_ascii_lowercase()) && !host.contains('.');
            if let (true, Ok(port)) = (is_service_name && host != "localhost", port.parse()) {
                found.insert((host.to_owned(), port));
            }
        }
    }
    found
}

#[test]
fn every_service_that_a_configuration_names_exists() {
    let mut addressed = BTreeSet::new();
    for path in [
        "prometheus/prometheus.yml",
        "alertmanager/alertmanager.yml",
        "alloy/config.alloy",
        "loki/loki.yaml",
        "tempo/tempo.yaml",
        "grafana/provisioning/datasources/revwallet.yml",
        "kind/base/revwallet.env",
    ] {
        addressed.extend(addresses(&read(path)));
    }
    for known in [("revwallet-api", 9000), ("revwallet-db", 5432), ("alloy", 4317), ("loki", 3100)]
    {
        assert!(addressed.contains(&(known.0.to_owned(), known.1)), "{known:?} of {addressed:?}");
    }
    let prometheus = read("prometheus/prometheus.yml");
    for (names, port) in [("revwallet-api, revwallet-worker", 9000), ("nginx-exporter", 9113)] {
        assert!(prometheus.contains(&format!("names: [{names}]")));
        addressed.extend(names.split(", ").map(|name| (name.to_owned(), port)));
    }

    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        for (host, port) in &addressed {
            let service = manifests
                .find("Service", host)
                .unwrap_or_else(|| panic!("{overlay_name} has no Service {host}"));
            let ports = list(&service["spec"]["ports"]);
            let has_port = service["spec"]["type"] == "ExternalName"
                || ports.iter().any(|own| own["port"].as_u64() == Some(*port));
            assert!(has_port, "{overlay_name}: {host} has no port {port}");
        }
        let pods = manifests.pods();
        let edge = pods.iter().find(|pod| pod.name == "Deployment nginx").unwrap();
        let variables = list(&edge.spec["containers"][0]["env"]);
        let upstreams: Vec<_> = variables
            .iter()
            .filter_map(|variable| variable["value"].as_str())
            .flat_map(|value| value.split(' '))
            .filter_map(|address| address.split_once(".$(NAMESPACE).svc."))
            .collect();
        assert_eq!(upstreams.len(), 5);
        for (host, rest) in upstreams {
            let service = manifests.find("Service", host).unwrap();
            let (_, port) = rest.rsplit_once(':').unwrap();
            assert_eq!(service["spec"]["ports"][0]["port"].to_string(), port, "{host}");
        }
    }
}

#[test]
fn every_configuration_file_is_in_a_config_map() {
    for (folder, endings) in [
        ("prometheus/rules", &[".yml"] as &[&str]),
        ("grafana/dashboards/revwallet", &[".json"]),
        ("grafana/provisioning/datasources", &[".yml"]),
        ("grafana/provisioning/dashboards", &[".yml"]),
        ("loki/rules/fake", &[".yaml"]),
        ("nginx", &[".conf", ".awk", "start"]),
        ("nginx/pages", &[""]),
    ] {
        let manifests = overlay("demo");
        for entry in std::fs::read_dir(crate::root().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let file = entry.file_name().into_string().unwrap();
            let is_configuration = endings.iter().any(|ending| file.ends_with(ending));
            if !is_configuration || entry.path().is_dir() {
                continue;
            }
            let content = std::fs::read_to_string(entry.path()).unwrap();
            let is_mounted =
                manifests.of_kind("ConfigMap").any(|map| map["data"][&file] == content.as_str());
            assert!(is_mounted, "{folder}/{file} is in no kustomization.yaml");
        }
    }
}

#[test]
fn secrets_exist_only_in_the_demo() {
    let base = crate::render::folder("kind/base");
    assert_eq!(base.of_kind("Secret").count(), 0);
    let production = overlay("production");
    assert_eq!(production.of_kind("Secret").count(), 0);

    // Production contains no value of the demo.
    let demo: BTreeSet<String> = ["demo", "citus"]
        .map(overlay)
        .iter()
        .flat_map(|manifests| manifests.of_kind("Secret"))
        .flat_map(|secret| secret["data"].as_object().unwrap().values().cloned())
        .map(|value| text(&value).to_owned())
        .collect();
    assert!(demo.len() >= 4, "{demo:?}");
    let rendered = serde_json::to_string(&production.resources).unwrap();
    for value in ["demo", "admin:admin", "\"NodePort\"", "REVWALLET_ACCESS\":\"open"] {
        assert!(!rendered.contains(value), "production has {value}");
    }
    for value in demo {
        assert!(!rendered.contains(&value), "production has a secret of the demo");
    }
    let readme = read("kind/README.md");
    for (secret, keys) in EXTERNAL_SECRETS {
        assert!(readme.contains(secret), "kind/README.md does not document {secret}");
        for key in keys {
            assert!(readme.contains(key), "kind/README.md does not document {key} in {secret}");
        }
    }
}

//! Whatever one manifest or configuration calls by a name is there under that name.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::read;
use crate::render::{Manifests, OVERLAYS, list, name, overlay, text};

/// Secrets that are made outside for production, with their keys: `kind/README.md` says how.
pub const FROM_OUTSIDE: [(&str, &[&str]); 5] = [
    ("revwallet-database", &["database_url"]),
    ("revwallet-observer", &["observer_password", "observer_url"]),
    ("grafana", &["admin_password"]),
    ("nginx", &["edge_users"]),
    ("revwallet-tls", &["tls.crt", "tls.key"]),
];

/// What a container or a volume asks for: a kind, a name, and keys when it names some.
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
            "secretKeyRef" if source["optional"] == true => {}
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

fn keys_of(manifests: &Manifests, kind: &str, name: &str) -> Option<Vec<String>> {
    if kind == "Secret" && manifests.overlay.ends_with("production") {
        let (_, keys) = FROM_OUTSIDE.iter().find(|(known, _)| *known == name)?;
        return Some(keys.iter().map(|key| (*key).to_owned()).collect());
    }
    let data = &manifests.find(kind, name)?["data"];
    Some(data.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect())
}

#[test]
fn whatever_a_pod_asks_for_is_there() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        let mut asked = BTreeSet::new();
        for pod in manifests.pods() {
            let mut found = Vec::new();
            references(pod.spec, &mut found);
            for (kind, name, keys) in found {
                let present = keys_of(&manifests, kind, &name)
                    .unwrap_or_else(|| panic!("{}: there is no {kind} {name}", pod.name));
                for key in keys {
                    assert!(present.contains(&key), "{}: {kind} {name} has no {key}", pod.name);
                }
                asked.insert((kind, name));
            }
            mounts_are_of_volumes(pod.spec, &pod.name);
        }
        for kind in ["ConfigMap", "Secret"] {
            for resource in manifests.of_kind(kind) {
                let name = name(resource).to_owned();
                assert!(asked.contains(&(kind, name.clone())), "nobody reads {kind} {name}");
            }
        }
    }
}

fn mounts_are_of_volumes(spec: &Value, pod: &str) {
    let mut volumes: BTreeSet<&str> =
        list(&spec["volumes"]).iter().map(|volume| text(&volume["name"])).collect();
    let mut used = BTreeSet::new();
    for container in list(&spec["containers"]) {
        for mount in list(&container["volumeMounts"]) {
            used.insert(text(&mount["name"]));
        }
    }
    // A StatefulSet brings that one itself.
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
            let behind: Vec<_> = pods.iter().filter(|pod| pod.is_selected_by(&selector)).collect();
            assert_eq!(behind.len(), 1, "behind {}", name(service));
            for port in list(&service["spec"]["ports"]) {
                assert!(behind[0].port(&port["targetPort"]).is_some(), "{}: {port}", name(service));
            }
        }
    }
}

#[test]
fn whoever_keeps_pods_finds_them() {
    let manifests = overlay("demo");
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

/// Every `host:port` of a text: what stands before a colon and a number, when it looks like a name of ours.
fn addresses(text: &str) -> BTreeSet<(String, u64)> {
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', '/'])) {
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && !"-.:_".contains(c)) {
            let Some((host, rest)) = word.split_once(':') else { continue };
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            let plain = host.starts_with(|c: char| c.is_ascii_lowercase()) && !host.contains('.');
            if let (true, Ok(port)) = (plain && host != "localhost", port.parse()) {
                found.insert((host.to_owned(), port));
            }
        }
    }
    found
}

#[test]
fn services_have_the_names_that_configurations_call_them_by() {
    let mut called = BTreeSet::new();
    for path in [
        "prometheus/prometheus.yml",
        "alertmanager/alertmanager.yml",
        "alloy/config.alloy",
        "loki/loki.yaml",
        "tempo/tempo.yaml",
        "grafana/provisioning/datasources/revwallet.yml",
        "kind/base/revwallet.env",
    ] {
        called.extend(addresses(&read(path)));
    }
    for known in [("revwallet-api", 9000), ("revwallet-db", 5432), ("alloy", 4317), ("loki", 3100)]
    {
        assert!(called.contains(&(known.0.to_owned(), known.1)), "{known:?} of {called:?}");
    }
    let prometheus = read("prometheus/prometheus.yml");
    for (names, port) in [("revwallet-api, revwallet-worker", 9000), ("nginx-exporter", 9113)] {
        assert!(prometheus.contains(&format!("names: [{names}]")));
        called.extend(names.split(", ").map(|name| (name.to_owned(), port)));
    }

    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        for (host, port) in &called {
            let service = manifests
                .find("Service", host)
                .unwrap_or_else(|| panic!("{overlay_name} has no Service {host}"));
            let ports = list(&service["spec"]["ports"]);
            let there = service["spec"]["type"] == "ExternalName"
                || ports.iter().any(|own| own["port"].as_u64() == Some(*port));
            assert!(there, "{overlay_name}: {host} has no port {port}");
        }
        let pods = manifests.pods();
        let edge = pods.iter().find(|pod| pod.name == "Deployment nginx").unwrap();
        let variables = list(&edge.spec["containers"][0]["env"]);
        let places: Vec<_> = variables
            .iter()
            .filter_map(|variable| variable["value"].as_str()?.split_once(".$(NAMESPACE).svc."))
            .collect();
        assert_eq!(places.len(), 3);
        for (host, rest) in places {
            let service = manifests.find("Service", host).unwrap();
            let (_, port) = rest.rsplit_once(':').unwrap();
            assert_eq!(service["spec"]["ports"][0]["port"].to_string(), port, "{host}");
        }
    }
}

#[test]
fn every_file_of_a_configuration_is_brought() {
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
            let wanted = endings.iter().any(|ending| file.ends_with(ending));
            if !wanted || entry.path().is_dir() {
                continue;
            }
            let content = std::fs::read_to_string(entry.path()).unwrap();
            let brought =
                manifests.of_kind("ConfigMap").any(|map| map["data"][&file] == content.as_str());
            assert!(brought, "{folder}/{file} stands in no kustomization.yaml");
        }
    }
}

#[test]
fn nothing_secret_is_where_everybody_can_read_it() {
    let base = crate::render::folder("kind/base");
    assert_eq!(base.of_kind("Secret").count(), 0);
    let production = overlay("production");
    assert_eq!(production.of_kind("Secret").count(), 0);

    // Nothing of the demo is left there.
    let demo: BTreeSet<String> = overlay("demo")
        .of_kind("Secret")
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
    let told = read("kind/README.md");
    for (secret, keys) in FROM_OUTSIDE {
        assert!(told.contains(secret), "kind/README.md does not tell of {secret}");
        for key in keys {
            assert!(told.contains(key), "kind/README.md does not tell of {key} in {secret}");
        }
    }
}

//! The compose file and the Kubernetes manifests describe the same system.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::render::{Manifests, list, overlay, text};
use crate::{bash, tools};

/// Returns the compose file as JSON.
pub fn compose() -> Value {
    parsed("docker-compose.yml")
}

/// Returns a YAML file as JSON.
pub fn parsed(path: &str) -> Value {
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let python = format!("'{}/bin/python'", tools("kubernetes_tools"));
    let json = bash(&format!("{python} -c \"{script}\" '{path}'"));
    serde_json::from_str(&json.unwrap()).unwrap()
}

/// Replaces each `${NAME:-default}` by its default.
pub fn with_defaults(value: &str) -> String {
    let Some((before, rest)) = value.split_once("${") else { return value.to_owned() };
    let (variable, after) = rest.split_once('}').unwrap();
    let (_, default) = variable.split_once(":-").unwrap_or((variable, ""));
    format!("{before}{default}{}", with_defaults(after))
}

/// Returns the environment of a container as the cluster creates it.
fn environment(manifests: &Manifests, container: &Value) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for variable in list(&container["env"]) {
        let from = &variable["valueFrom"]["configMapKeyRef"];
        let value = if let Some(value) = variable["value"].as_str() {
            expanded(value, &found)
        } else {
            let map = manifests.find("ConfigMap", text(&from["name"])).unwrap();
            text(&map["data"][text(&from["key"])]).to_owned()
        };
        found.insert(text(&variable["name"]).to_owned(), value);
    }
    found
}

/// Replaces each `$(NAME)` by the value of an earlier variable, as the cluster does.
fn expanded(value: &str, known: &BTreeMap<String, String>) -> String {
    let Some((before, rest)) = value.split_once("$(") else { return value.to_owned() };
    let (variable, after) = rest.split_once(')').unwrap();
    format!("{before}{}{}", known[variable], expanded(after, known))
}

#[test]
fn compose_and_manifests_run_the_same_images() {
    let images = |compose: &Value| -> BTreeSet<String> {
        let services = compose["services"].as_object().unwrap().values();
        let images = services.filter_map(|service| service["image"].as_str()).map(with_defaults);
        images.filter(|image| !image.contains("revwallet")).collect()
    };
    let plain = images(&compose());
    let with_citus = &plain | &images(&parsed("docker-compose.citus.yml"));
    for (name, images) in [("demo", plain), ("citus", with_citus)] {
        let manifests = overlay(name);
        for container in manifests.pods().iter().flat_map(crate::render::Pod::containers) {
            let image = text(&container["image"]);
            let is_own = image.starts_with("revwallet:");
            assert!(is_own || images.contains(image), "{image} is not one of {images:?}");
        }
    }
}

#[test]
fn compose_and_manifests_pass_the_same_settings() {
    let compose = compose();
    let manifests = overlay("demo");
    let pods = manifests.pods();
    for name in ["prometheus", "alertmanager", "loki", "tempo"] {
        let pod = pods.iter().find(|pod| pod.name == format!("StatefulSet {name}")).unwrap();
        let in_compose: BTreeSet<String> = list(&compose["services"][name]["command"])
            .iter()
            .map(|argument| with_defaults(text(argument)))
            .collect();
        let container = &pod.spec["containers"][0];
        let known = environment(&manifests, container);
        let in_manifest: BTreeSet<String> = list(&container["args"])
            .iter()
            .map(|argument| expanded(text(argument), &known))
            .collect();
        assert_eq!(in_manifest, in_compose, "{name}");
    }

    let alertmanager = pods.iter().find(|pod| pod.name == "StatefulSet alertmanager").unwrap();
    let source = &alertmanager.spec["containers"][0]["envFrom"][0]["configMapRef"];
    let settings = manifests.find("ConfigMap", text(&source["name"])).unwrap();
    let in_compose = &compose["services"]["alertmanager"]["environment"];
    for (name, value) in in_compose.as_object().unwrap() {
        assert_eq!(settings["data"][name], with_defaults(text(value)), "{name}");
    }

    let grafana = pods.iter().find(|pod| pod.name == "StatefulSet grafana").unwrap();
    let mut in_manifest = environment(&manifests, &grafana.spec["containers"][0]);
    in_manifest.remove("PUBLIC_URL");
    let mut in_compose: BTreeMap<String, String> = compose["services"]["grafana"]["environment"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), with_defaults(text(value))))
        .collect();
    // Addresses of pods are not fixed; in the cluster, network policies restrict access to Grafana.
    assert!(in_compose.remove("GF_AUTH_PROXY_WHITELIST").is_some());
    assert_eq!(in_manifest, in_compose);
}

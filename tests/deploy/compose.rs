//! The compose file and the manifests are two descriptions of one system.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::render::{Manifests, list, overlay, text};
use crate::{bash, tools};

fn compose() -> Value {
    let script =
        "import json, sys, yaml; json.dump(yaml.safe_load(open('docker-compose.yml')), sys.stdout)";
    let python = format!("'{}/bin/python'", tools("kubernetes_tools"));
    let printed = bash(&format!("{python} -c \"{script}\""));
    serde_json::from_str(&printed.unwrap()).unwrap()
}

/// `${NAME:-usual}` as it is when nobody has set it.
fn usual(value: &str) -> String {
    let Some((before, rest)) = value.split_once("${") else { return value.to_owned() };
    let (variable, after) = rest.split_once('}').unwrap();
    let (_, usual_value) = variable.split_once(":-").unwrap_or((variable, ""));
    format!("{before}{usual_value}{}", usual(after))
}

/// What a container finds in its environment, as the cluster makes it.
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

/// `$(NAME)` as a cluster reads it, by what stands before it.
fn expanded(value: &str, known: &BTreeMap<String, String>) -> String {
    let Some((before, rest)) = value.split_once("$(") else { return value.to_owned() };
    let (variable, after) = rest.split_once(')').unwrap();
    format!("{before}{}{}", known[variable], expanded(after, known))
}

#[test]
fn the_same_images_run() {
    let images: BTreeSet<String> = compose()["services"]
        .as_object()
        .unwrap()
        .values()
        .map(|service| usual(text(&service["image"])))
        .filter(|image| !image.contains("revwallet"))
        .collect();
    let manifests = overlay("demo");
    for container in manifests.pods().iter().flat_map(crate::render::Pod::containers) {
        let image = text(&container["image"]);
        let own = image.starts_with("revwallet:");
        assert!(own || images.contains(image), "{image} is none of {images:?}");
    }
}

#[test]
fn they_are_told_the_same() {
    let compose = compose();
    let manifests = overlay("demo");
    let pods = manifests.pods();
    for name in ["prometheus", "alertmanager", "loki", "tempo"] {
        let pod = pods.iter().find(|pod| pod.name == format!("StatefulSet {name}")).unwrap();
        let there: BTreeSet<String> = list(&compose["services"][name]["command"])
            .iter()
            .map(|word| usual(text(word)))
            .collect();
        let container = &pod.spec["containers"][0];
        let known = environment(&manifests, container);
        let here: BTreeSet<String> =
            list(&container["args"]).iter().map(|word| expanded(text(word), &known)).collect();
        assert_eq!(here, there, "{name}");
    }

    let grafana = pods.iter().find(|pod| pod.name == "StatefulSet grafana").unwrap();
    let mut here = environment(&manifests, &grafana.spec["containers"][0]);
    here.remove("PUBLIC_URL");
    let mut there: BTreeMap<String, String> = compose["services"]["grafana"]["environment"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), usual(text(value))))
        .collect();
    // Addresses of pods are nobody's choice: there, the policies of the network say who may speak to it.
    assert!(there.remove("GF_AUTH_PROXY_WHITELIST").is_some());
    assert_eq!(here, there);
}

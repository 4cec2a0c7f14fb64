//! The manifests as rendered by kustomize.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

use crate::{bash, root, tools};

/// Kubernetes version of the nodes in `kind/cluster.yaml`.
const KUBERNETES_VERSION: &str = "1.37.0";

pub const OVERLAYS: [&str; 3] = ["demo", "citus", "production"];

/// Resources of an overlay.
#[derive(Clone)]
pub struct Manifests {
    pub overlay: String,
    pub resources: Vec<Value>,
}

/// The pod template of a workload.
pub struct Pod<'a> {
    /// Kind and name, such as `Deployment revwallet-api`.
    pub name: String,
    pub kind: &'a str,
    pub labels: BTreeMap<String, String>,
    pub spec: &'a Value,
}

/// Renders and validates a kustomization; each folder is rendered once.
pub fn folder(path: &str) -> Manifests {
    static RENDERED: OnceLock<Mutex<HashMap<String, Manifests>>> = OnceLock::new();
    let mut rendered = RENDERED.get_or_init(Mutex::default).lock().unwrap();
    rendered
        .entry(path.to_owned())
        .or_insert_with(|| {
            let (kubectl, tools) = (tools("kubectl_tool"), tools("kubernetes_tools"));
            let command = format!(
                "'{kubectl}' kustomize '{path}' | '{tools}/bin/python' tests/deploy/validate.py {KUBERNETES_VERSION}"
            );
            let json = bash(&command).unwrap_or_else(|error| panic!("{path}: {error}"));
            let resources = serde_json::from_str(&json).unwrap();
            Manifests { overlay: path.to_owned(), resources }
        })
        .clone()
}

pub fn overlay(name: &str) -> Manifests {
    folder(&format!("kind/overlays/{name}"))
}

impl Manifests {
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.resources.iter().filter(move |resource| resource["kind"] == kind)
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.resources
            .iter()
            .find(|resource| resource["kind"] == kind && resource["metadata"]["name"] == name)
    }

    pub fn pods(&self) -> Vec<Pod<'_>> {
        let mut pods = Vec::new();
        for resource in &self.resources {
            let kind = resource["kind"].as_str().unwrap();
            let template = match kind {
                "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => &resource["spec"]["template"],
                "CronJob" => &resource["spec"]["jobTemplate"]["spec"]["template"],
                _ => continue,
            };
            pods.push(Pod {
                name: format!("{kind} {}", name(resource)),
                kind,
                labels: labels(&template["metadata"]["labels"]),
                spec: &template["spec"],
            });
        }
        assert!(pods.len() > 8, "{}: {} pods", self.overlay, pods.len());
        pods
    }
}

impl<'a> Pod<'a> {
    pub fn containers(&self) -> Vec<&'a Value> {
        [list(&self.spec["initContainers"]), list(&self.spec["containers"])].concat()
    }

    /// Returns whether the pod runs to completion, and so has no probes.
    pub fn is_job(&self) -> bool {
        ["Job", "CronJob"].contains(&self.kind)
    }

    pub fn is_selected_by(&self, selector: &Value) -> bool {
        let labels_match = labels(&selector["matchLabels"])
            .iter()
            .all(|(key, value)| self.labels.get(key) == Some(value));
        labels_match
            && list(&selector["matchExpressions"]).iter().all(|expression| {
                assert_eq!(expression["operator"], "In", "{expression}");
                let value = self.labels.get(text(&expression["key"]));
                list(&expression["values"])
                    .iter()
                    .any(|allowed| value.map(String::as_str) == allowed.as_str())
            })
    }

    /// Returns the number of a port that is given by name or number, if a container declares it.
    pub fn port(&self, port: &Value) -> Option<u64> {
        self.containers().iter().flat_map(|container| list(&container["ports"])).find_map(|own| {
            let is_match = own["name"] == *port || own["containerPort"] == *port;
            is_match.then(|| own["containerPort"].as_u64().unwrap())
        })
    }
}

pub fn name(resource: &Value) -> &str {
    text(&resource["metadata"]["name"])
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string"))
}

/// Returns the items of a list, or none if the value is not a list.
pub fn list(value: &Value) -> Vec<&Value> {
    value.as_array().into_iter().flatten().collect()
}

pub fn labels(value: &Value) -> BTreeMap<String, String> {
    let object = value.as_object().into_iter().flatten();
    object.map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}

#[test]
fn every_manifest_is_valid() {
    for name in OVERLAYS {
        assert!(overlay(name).resources.len() > 40);
    }
}

#[test]
fn an_ingress_can_replace_the_load_balancer() {
    let folder_name = "target/tests/deploy-ingress";
    let path = root().join(folder_name);
    std::fs::create_dir_all(&path).unwrap();
    let lines = "resources: [../../../kind/base]\ncomponents: [../../../kind/components/ingress]\n";
    std::fs::write(path.join("kustomization.yaml"), lines).unwrap();

    let manifests = folder(folder_name);

    let ingress = manifests.find("Ingress", "revwallet").unwrap();
    for rule in list(&ingress["spec"]["rules"]) {
        let backend = &rule["http"]["paths"][0]["backend"]["service"];
        let service = manifests.find("Service", text(&backend["name"])).unwrap();
        let ports = list(&service["spec"]["ports"]);
        assert!(ports.iter().any(|port| port["name"] == backend["port"]["name"]), "{backend}");
    }
}

#[test]
fn manifests_are_validated_for_the_version_of_the_cluster() {
    let cluster = crate::read("kind/cluster.yaml");
    let images: Vec<_> = cluster.lines().filter(|line| line.contains("image:")).collect();
    assert_eq!(images.len(), 2);
    for image in images {
        let (_, rest) =
            image.split_once(&format!("kindest/node:v{KUBERNETES_VERSION}@sha256:")).unwrap();
        assert!(rest.len() == 64 && rest.chars().all(|c| c.is_ascii_hexdigit()), "{image}");
    }
}

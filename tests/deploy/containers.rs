//! Privileges, limits, probes and images of each pod.

use serde_json::Value;

use crate::render::{OVERLAYS, Pod, list, name, overlay, text};

/// The only pod that uses the Kubernetes API: it lists pods to read their logs.
const USES_KUBERNETES_API: &str = "Deployment alloy";

/// Calls `check` with each pod of each overlay.
fn for_each_pod(check: impl Fn(&Pod<'_>)) {
    for name in OVERLAYS {
        let manifests = overlay(name);
        manifests.pods().iter().for_each(&check);
    }
}

#[test]
fn no_pod_has_more_rights_than_it_needs() {
    for_each_pod(|pod| {
        let (name, spec) = (&pod.name, pod.spec);
        let context = &spec["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{name}");
        assert!(context["runAsUser"].as_u64().is_some_and(|user| user > 0), "{name}");
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for shared in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            assert!(spec[shared].is_null(), "{name} has {shared}");
        }
        let has_token = spec["automountServiceAccountToken"].as_bool();
        assert_eq!(has_token, Some(name == USES_KUBERNETES_API), "{name}");
        assert_eq!(spec["enableServiceLinks"], false, "{name}");
        for volume in list(&spec["volumes"]) {
            assert!(volume["hostPath"].is_null(), "{name} mounts a folder of its node");
        }
    });
}

#[test]
fn every_container_is_hardened_and_has_resource_limits() {
    for_each_pod(|pod| {
        for container in pod.containers() {
            let name = format!("{}, {}", pod.name, text(&container["name"]));
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
            assert!(context["capabilities"]["add"].is_null(), "{name}");
            assert!(context["privileged"].is_null(), "{name}");
            let resources = &container["resources"];
            for pointer in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
                assert!(resources.pointer(pointer).is_some(), "{name} has no {pointer}");
            }
        }
    });
}

#[test]
fn every_long_running_container_has_probes() {
    for_each_pod(|pod| {
        for container in list(&pod.spec["containers"]) {
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                let (name, probe) = (format!("{} {probe}", pod.name), &container[probe]);
                if pod.is_job() {
                    assert!(probe.is_null(), "{name}");
                    continue;
                }
                let port = probe
                    .pointer("/httpGet/port")
                    .or_else(|| probe.pointer("/tcpSocket/port"))
                    .unwrap_or(&Value::Null);
                let has_target = !probe["exec"].is_null() || pod.port(port).is_some();
                assert!(has_target, "{name} has no valid target: {probe}");
            }
        }
    });
}

#[test]
fn probes_of_the_program_use_the_internal_port() {
    let manifests = overlay("demo");
    for pod in manifests.pods().iter().filter(|pod| !pod.is_job()) {
        if pod.labels["app.kubernetes.io/name"] != "revwallet" {
            continue;
        }
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            let request = &pod.spec["containers"][0][probe]["httpGet"];
            assert_eq!(request["path"], path, "{}", pod.name);
            assert_eq!(pod.port(&request["port"]), Some(9000), "{}", pod.name);
        }
    }
}

#[test]
fn every_image_is_pinned() {
    for_each_pod(|pod| {
        for container in pod.containers() {
            let image = text(&container["image"]);
            let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
            assert!(tag != "latest" && !tag.is_empty(), "{image}");
            let is_own = image.starts_with("revwallet:");
            let is_number = tag.trim_start_matches('v').chars().next().unwrap().is_ascii_digit();
            assert!(
                is_number || (is_own && tag == "demo") || image.contains("@sha256:"),
                "{image}"
            );
        }
    });
    let production = overlay("production");
    let pods = production.pods();
    let own = pods.iter().flat_map(Pod::containers).filter(|container| {
        let image = text(&container["image"]);
        image.contains("revwallet") && image.contains("@sha256:")
    });
    assert_eq!(own.count(), 3, "production must pin our image by its digest");
}

#[test]
fn an_update_keeps_every_pod_until_its_replacement_is_ready() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        for deployment in manifests.of_kind("Deployment") {
            let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
            let name = name(deployment);
            if name == "alloy" {
                assert_eq!(deployment["spec"]["strategy"]["type"], "Recreate");
                continue;
            }
            assert_eq!(rolling["maxUnavailable"], 0, "{name}");
            assert_eq!(rolling["maxSurge"], 1, "{name}");
            let budget = manifests.find("PodDisruptionBudget", name).unwrap();
            assert_eq!(budget["spec"]["maxUnavailable"], 1, "{name}");
            assert_eq!(budget["spec"]["selector"], deployment["spec"]["selector"], "{name}");
            let spread = list(&deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]);
            assert!(!spread.is_empty(), "all pods of {name} may be on one node");
            for constraint in spread {
                assert_eq!(constraint["labelSelector"], deployment["spec"]["selector"], "{name}");
            }
        }
        let scaler = manifests.find("HorizontalPodAutoscaler", "revwallet-api").unwrap();
        assert_eq!(scaler["spec"]["minReplicas"], 3);
        let deployment = manifests.find("Deployment", "revwallet-api").unwrap();
        assert!(
            deployment["spec"]["replicas"].is_null(),
            "the deployment and the autoscaler both set the number of replicas"
        );
    }
}

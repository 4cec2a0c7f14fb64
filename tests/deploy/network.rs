//! Network policies: each selects existing pods, and ingress and egress rules agree.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::render::{Manifests, OVERLAYS, Pod, list, name, overlay};

/// A permitted connection: source, target and port.
type Connection = (String, String, u64);

/// Returns the pods that a selector matches.
fn selected<'a, 'b>(pods: &'b [Pod<'a>], selector: &Value) -> Vec<&'b Pod<'a>> {
    pods.iter().filter(|pod| pod.is_selected_by(selector)).collect()
}

/// Returns the connections that policies of one direction permit; `*` stands for a peer outside of the namespace.
fn connections(manifests: &Manifests, direction: &str) -> BTreeSet<Connection> {
    let pods = manifests.pods();
    let mut found = BTreeSet::new();
    for policy in manifests.of_kind("NetworkPolicy") {
        let own = selected(&pods, &policy["spec"]["podSelector"]);
        assert!(!own.is_empty(), "{} selects no pod", name(policy));
        let (field, side) =
            if direction == "Ingress" { ("ingress", "from") } else { ("egress", "to") };
        for rule in list(&policy["spec"][field]) {
            let mut peers = Vec::new();
            for peer in list(&rule[side]) {
                if !peer["namespaceSelector"].is_null() || !peer["ipBlock"].is_null() {
                    peers.push("*".to_owned());
                    continue;
                }
                let others = selected(&pods, &peer["podSelector"]);
                assert!(!others.is_empty(), "{}: {peer} selects no pod", name(policy));
                peers.extend(others.iter().map(|pod| pod.name.clone()));
            }
            if rule[side].is_null() {
                peers.push("*".to_owned());
            }
            assert!(!list(&rule["ports"]).is_empty(), "{} permits every port", name(policy));
            for port in list(&rule["ports"]) {
                let port = port["port"].as_u64().unwrap();
                for (mine, other) in
                    own.iter().flat_map(|pod| peers.iter().map(|peer| (*pod, peer)))
                {
                    let (from, to) = if direction == "Ingress" {
                        assert!(mine.port(&port.into()).is_some(), "{} has no {port}", mine.name);
                        (other.clone(), mine.name.clone())
                    } else {
                        (mine.name.clone(), other.clone())
                    };
                    found.insert((from, to, port));
                }
            }
        }
    }
    found
}

#[test]
fn connections_are_denied_by_default() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        let default = manifests.find("NetworkPolicy", "default").unwrap();
        assert_eq!(default["spec"]["podSelector"], serde_json::json!({}));
        assert_eq!(default["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
        assert!(default["spec"]["ingress"].is_null());
        for rule in list(&default["spec"]["egress"]) {
            assert!(list(&rule["ports"]).iter().all(|port| port["port"] == 53), "{rule}");
        }
    }
}

#[test]
fn ingress_and_egress_rules_agree() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        let (ingress, egress) =
            (connections(&manifests, "Ingress"), connections(&manifests, "Egress"));
        // Rules for any peer name no pod, so the other direction has no counterpart.
        let is_between_pods = |(from, to, port): &Connection| {
            let from_any = ("*".to_owned(), to.clone(), *port);
            from != "*" && to != "*" && !ingress.contains(&from_any)
        };
        let egress: BTreeSet<Connection> = egress.into_iter().filter(is_between_pods).collect();
        let ingress: BTreeSet<Connection> =
            ingress.iter().filter(|connection| is_between_pods(connection)).cloned().collect();
        assert!(ingress.len() > 20, "{ingress:?}");
        let differences: Vec<_> = ingress.symmetric_difference(&egress).collect();
        assert!(
            differences.is_empty(),
            "{overlay_name}: only one direction permits {differences:?}"
        );
    }
}

#[test]
fn only_the_edge_is_reachable_from_outside() {
    for overlay_name in OVERLAYS {
        for (from, to, port) in connections(&overlay(overlay_name), "Ingress") {
            let is_edge = to == "Deployment nginx" && [8080, 8443].contains(&port);
            assert!(from != "*" || is_edge, "{overlay_name}: any peer reaches {to} at {port}");
            if port == 9000 {
                let is_permitted = [
                    "Deployment nginx",
                    "Deployment revwallet-api",
                    "Deployment revwallet-worker",
                    "StatefulSet prometheus",
                    "StatefulSet alertmanager",
                ];
                assert!(
                    is_permitted.contains(&from.as_str()),
                    "{from} reaches the internal port of {to}"
                );
            }
            let is_api = to == "Deployment revwallet-api" && port == 8080;
            assert!(!is_api || from == "Deployment nginx", "{from} bypasses the edge");
            let is_database = to == "StatefulSet revwallet-db";
            let is_permitted =
                ["revwallet", "grafana", "alloy"].iter().any(|name| from.contains(name));
            assert!(!is_database || is_permitted, "{from} reaches the database");
        }
    }
}

#[test]
fn only_servers_of_the_cluster_reach_the_workers_of_citus() {
    let manifests = overlay("citus");
    let connections = &connections(&manifests, "Ingress") | &connections(&manifests, "Egress");
    let is_worker = |pod: &str| pod == "StatefulSet citus-worker";
    let of_workers: Vec<_> = connections
        .iter()
        .filter(|(from, to, port)| (is_worker(from) || is_worker(to)) && *port != 53)
        .map(|(from, to, port)| (from.as_str(), to.as_str(), *port))
        .collect();
    assert_eq!(
        of_workers,
        [
            ("StatefulSet citus-worker", "StatefulSet citus-worker", 5432),
            ("StatefulSet revwallet-db", "StatefulSet citus-worker", 5432),
        ]
    );
}

#[test]
fn only_worker_and_collector_connect_outside_the_namespace() {
    for (from, to, port) in connections(&overlay("demo"), "Egress") {
        if to != "*" || port == 53 {
            continue;
        }
        let is_permitted = (from == "Deployment revwallet-worker" && [80, 443].contains(&port))
            || (from == "Deployment alloy" && [443, 6443].contains(&port));
        assert!(is_permitted, "{from} connects to port {port} outside the namespace");
    }
}

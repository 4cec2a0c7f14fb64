//! Who may reach whom: every policy is about pods that are there, and both ends agree.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::render::{Manifests, OVERLAYS, Pod, list, name, overlay};

/// A way from one pod to a port of another.
type Way = (String, String, u64);

fn selected<'a, 'b>(pods: &'b [Pod<'a>], selector: &Value) -> Vec<&'b Pod<'a>> {
    pods.iter().filter(|pod| pod.is_selected_by(selector)).collect()
}

/// The ways that policies of one direction allow between pods, and peers outside as `*`.
fn ways(manifests: &Manifests, direction: &str) -> BTreeSet<Way> {
    let pods = manifests.pods();
    let mut found = BTreeSet::new();
    for policy in manifests.of_kind("NetworkPolicy") {
        let own = selected(&pods, &policy["spec"]["podSelector"]);
        assert!(!own.is_empty(), "{} is about nobody", name(policy));
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
                assert!(!others.is_empty(), "{}: {peer} is nobody", name(policy));
                peers.extend(others.iter().map(|pod| pod.name.clone()));
            }
            if rule[side].is_null() {
                peers.push("*".to_owned());
            }
            assert!(!list(&rule["ports"]).is_empty(), "{} opens every port", name(policy));
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
fn nobody_reaches_anybody_unless_it_is_said() {
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
fn what_one_end_allows_the_other_does_too() {
    for overlay_name in OVERLAYS {
        let manifests = overlay(overlay_name);
        let (into, out) = (ways(&manifests, "Ingress"), ways(&manifests, "Egress"));
        // Where everybody may go in, nobody is named; and who goes out to anywhere names nobody.
        let named = |(from, to, port): &Way| {
            let everybody = ("*".to_owned(), to.clone(), *port);
            from != "*" && to != "*" && !into.contains(&everybody)
        };
        let out: BTreeSet<Way> = out.into_iter().filter(named).collect();
        let into: BTreeSet<Way> = into.iter().filter(|way| named(way)).cloned().collect();
        assert!(into.len() > 20, "{into:?}");
        let differ: Vec<_> = into.symmetric_difference(&out).collect();
        assert!(differ.is_empty(), "{overlay_name}: only one end allows {differ:?}");
    }
}

#[test]
fn from_outside_one_reaches_the_edge_and_nothing_else() {
    for overlay_name in OVERLAYS {
        for (from, to, port) in ways(&overlay(overlay_name), "Ingress") {
            let edge = to == "Deployment nginx" && [8080, 8443].contains(&port);
            assert!(from != "*" || edge, "{overlay_name}: everybody reaches {to} at {port}");
            if port == 9000 {
                assert!(
                    from.ends_with(" prometheus") || from.ends_with(" alertmanager"),
                    "{from} reaches the inside of {to}"
                );
            }
            let api = to == "Deployment revwallet-api" && port == 8080;
            assert!(!api || from == "Deployment nginx", "{from} goes around the edge");
            let database = to == "StatefulSet revwallet-db";
            let known = ["revwallet", "grafana", "alloy"].iter().any(|name| from.contains(name));
            assert!(!database || known, "{from} reaches the database");
        }
    }
}

#[test]
fn only_who_has_to_leaves_the_namespace() {
    for (from, to, port) in ways(&overlay("demo"), "Egress") {
        if to != "*" || port == 53 {
            continue;
        }
        let known = (from == "Deployment revwallet-worker" && [80, 443].contains(&port))
            || (from == "Deployment alloy" && [443, 6443].contains(&port));
        assert!(known, "{from} leaves to port {port}");
    }
}

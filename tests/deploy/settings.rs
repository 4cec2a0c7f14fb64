//! Settings in the manifests against the settings of the programs.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use revwallet::cli::Cli;
use serde_json::Value;

use crate::render::{Manifests, OVERLAYS, list, overlay, text};

/// Returns the environment of a container; a value is `None` if it comes from a secret. Fields of the pod are left out:
/// they are parts of other values.
fn environment(manifests: &Manifests, container: &Value) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    for source in list(&container["envFrom"]) {
        let name = text(&source["configMapRef"]["name"]);
        let map = manifests.find("ConfigMap", name).unwrap();
        for (key, value) in map["data"].as_object().unwrap() {
            found.insert(key.clone(), Some(text(value).to_owned()));
        }
    }
    let variables = list(&container["env"]).into_iter();
    for variable in variables.filter(|variable| variable["valueFrom"]["fieldRef"].is_null()) {
        let value = variable["value"].as_str().map(str::to_owned);
        found.insert(text(&variable["name"]).to_owned(), value);
    }
    found
}

/// Returns a file that stands for a secret file of the cluster.
fn secret_file() -> std::path::PathBuf {
    let file = crate::root().join("kind/overlays/demo/secrets/edge_users");
    assert!(file.exists());
    file
}

/// Asserts that a path is the key of a mounted secret.
fn assert_mounted(manifests: &Manifests, spec: &Value, container: &Value, path: &str) {
    let overlay = &manifests.overlay;
    let (folder, key) = path.rsplit_once('/').unwrap();
    let mounts = list(&container["volumeMounts"]);
    let mount = mounts.iter().find(|mount| mount["mountPath"] == folder);
    let mount = mount.unwrap_or_else(|| panic!("{overlay}: no volume is mounted at {folder}"));
    let volumes = list(&spec["volumes"]);
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    let secrets: Vec<&str> = std::iter::once(&volume["secret"]["secretName"])
        .chain(list(&volume["projected"]["sources"]).iter().map(|source| &source["secret"]["name"]))
        .filter_map(Value::as_str)
        .collect();
    let has_key = |name: &&str| {
        let keys = crate::references::keys_of(manifests, "Secret", name);
        keys.is_some_and(|keys| keys.iter().any(|known| known == key))
    };
    assert!(secrets.iter().any(has_key), "{overlay}: none of {secrets:?} has {key}");
}

/// Returns every container of the program with its grace period and parsed settings.
fn programs(manifests: &Manifests) -> Vec<(String, u64, Cli)> {
    let command = Cli::command();
    let mut found = Vec::new();
    for pod in manifests.pods() {
        let is_own = |container: &&Value| {
            let image = text(&container["image"]);
            image.split([':', '@']).next().unwrap().ends_with("revwallet")
        };
        for container in pod.containers().into_iter().filter(is_own) {
            let mut arguments = vec!["revwallet".to_owned()];
            arguments
                .extend(list(&container["args"]).into_iter().map(|word| text(word).to_owned()));
            for (variable, value) in environment(manifests, container) {
                let setting = command
                    .get_arguments()
                    .find(|argument| argument.get_env().is_some_and(|name| *name == *variable))
                    .unwrap_or_else(|| {
                        panic!("{}: the program does not know {variable}", pod.name)
                    });
                let flag = setting.get_long().unwrap();
                match value {
                    Some(path) if variable.ends_with("_FILE") => {
                        assert_mounted(manifests, pod.spec, container, &path);
                        arguments.push(format!("--{flag}={}", secret_file().display()));
                    }
                    Some(value) if setting.get_action().takes_values() => {
                        arguments.push(format!("--{flag}={value}"));
                    }
                    Some(value) if value == "true" => arguments.push(format!("--{flag}")),
                    Some(value) => panic!("{}: {variable}={value} is not a boolean", pod.name),
                    None => arguments.push(format!("--{flag}=postgres://a:b@c/d")),
                }
            }
            let cli = Cli::try_parse_from(&arguments)
                .unwrap_or_else(|error| panic!("{}: {arguments:?}: {error}", pod.name));
            let grace = pod.spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            found.push((pod.name.clone(), grace, cli));
        }
    }
    // On Citus, a second migration distributes the books.
    let count = if manifests.overlay.ends_with("citus") { 4 } else { 3 };
    assert_eq!(found.len(), count, "expected the migration, the API and the worker");
    found
}

#[test]
fn the_program_accepts_its_settings() {
    for name in OVERLAYS {
        for (pod, _, cli) in programs(&overlay(name)) {
            assert!(cli.config.database.database_url_file.is_some(), "{pod} has no database URL");
            let migrates = pod.contains("migrate");
            assert_eq!(cli.config.database.no_migrate, !migrates, "{pod}");
        }
    }
}

#[test]
fn the_grace_period_covers_a_graceful_shutdown() {
    for (pod, grace, cli) in programs(&overlay("production")) {
        let lifecycle = &cli.config.lifecycle;
        // Draining and background work may each take the shutdown timeout.
        let longest = lifecycle.shutdown_delay + 2 * lifecycle.shutdown_timeout;
        let grace = Duration::from_secs(grace);
        assert!(pod.contains("migrate") || grace > longest, "{pod}: {grace:?} < {longest:?}");
        // DNS caches an address for 30 s, the edge for another 5 s.
        let is_api = pod.contains("api");
        assert!(!is_api || lifecycle.shutdown_delay > Duration::from_secs(35), "{pod}");
    }
}

#[test]
fn the_edge_accepts_its_settings() {
    let start = crate::read("nginx/start");
    for name in OVERLAYS {
        let manifests = overlay(name);
        let pods = manifests.pods();
        let edge = pods.iter().find(|pod| pod.name == "Deployment nginx").unwrap();
        let container = &edge.spec["containers"][0];
        for (variable, _) in environment(&manifests, container) {
            let is_known = start.contains(&format!("\n#   {variable} "));
            assert!(is_known, "nginx/start does not read {variable}");
        }
        assert_eq!(list(&container["command"]), ["/etc/edge/start"]);
    }
}

#[test]
fn access_is_closed_in_production() {
    let manifests = overlay("production");
    for (pod, _, cli) in programs(&manifests) {
        assert!(pod.contains("migrate") || cli.config.access.access.is_some(), "{pod}");
    }
    let settings = manifests.of_kind("ConfigMap").find(|map| {
        map["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("revwallet-"))
    });
    assert_eq!(settings.unwrap()["data"]["REVWALLET_ACCESS"], "closed");
}

#[test]
fn the_database_allows_the_connections_of_a_rolling_update() {
    for name in ["demo", "citus"] {
        assert_enough_connections(&overlay(name));
    }
}

fn assert_enough_connections(manifests: &Manifests) {
    let connections_of = |part: &str| {
        let (_, _, cli) = programs(manifests)
            .into_iter()
            .find(|(pod, ..)| pod == &format!("Deployment revwallet-{part}"))
            .unwrap();
        // The writer, the listener and the election of the leader have one connection each; background work has four
        // more. Several books have a writer each, and a connection for the transfers between them.
        let books = cli.config.ledger.books.map_or(0, |books| u64::try_from(books).unwrap());
        let others = if part == "api" { 3 } else { 7 };
        u64::from(cli.config.database.database_connections_max) + others + books
    };
    let scaler = manifests.find("HorizontalPodAutoscaler", "revwallet-api").unwrap();
    let apis = scaler["spec"]["maxReplicas"].as_u64().unwrap();
    let workers =
        manifests.find("Deployment", "revwallet-worker").unwrap()["spec"]["replicas"].as_u64();
    // During an update, old and new processes run at the same time.
    let processes =
        2 * (apis * connections_of("api") + workers.unwrap() * connections_of("worker"));
    let sources = crate::read("grafana/provisioning/datasources/revwallet.yml");
    let (_, grafana) = sources.split_once("maxOpenConns: ").unwrap();
    let grafana: u64 = grafana.lines().next().unwrap().parse().unwrap();
    // The exporter, the migration, the backup, and the connections reserved for superusers.
    let others = grafana + 1 + 2 + 1 + 3;

    let pods = manifests.pods();
    let database = pods.iter().find(|pod| pod.name == "StatefulSet revwallet-db").unwrap();
    let allowed = list(&database.spec["containers"][0]["args"])
        .iter()
        .find_map(|word| text(word).strip_prefix("-cmax_connections=")?.parse::<u64>().ok())
        .unwrap();
    assert!(processes + others <= allowed, "{processes} + {others} > {allowed}");
}

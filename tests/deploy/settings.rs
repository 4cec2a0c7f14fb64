//! What the manifests tell the programs, held against what these understand.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use revwallet::cli::Cli;
use serde_json::Value;

use crate::render::{Manifests, OVERLAYS, list, overlay, text};

/// What a container finds in its environment; `None` where a secret says it.
fn environment(manifests: &Manifests, container: &Value) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    for source in list(&container["envFrom"]) {
        let name = text(&source["configMapRef"]["name"]);
        let map = manifests.find("ConfigMap", name).unwrap();
        for (key, value) in map["data"].as_object().unwrap() {
            found.insert(key.clone(), Some(text(value).to_owned()));
        }
    }
    for variable in list(&container["env"]) {
        let value = variable["value"].as_str().map(str::to_owned);
        found.insert(text(&variable["name"]).to_owned(), value);
    }
    found
}

/// A file that a secret is read from, in place of the one in the cluster.
fn a_secret() -> std::path::PathBuf {
    let file = crate::root().join("kind/overlays/demo/secrets/edge_users");
    assert!(file.exists());
    file
}

/// The file is a key of a secret that is mounted there.
fn is_mounted(overlay: &str, spec: &Value, container: &Value, path: &str) {
    let (folder, key) = path.rsplit_once('/').unwrap();
    let mounts = list(&container["volumeMounts"]);
    let mount = mounts.iter().find(|mount| mount["mountPath"] == folder);
    let mount = mount.unwrap_or_else(|| panic!("{overlay}: nothing is mounted at {folder}"));
    let volumes = list(&spec["volumes"]);
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap();
    let secrets: Vec<&str> = std::iter::once(&volume["secret"]["secretName"])
        .chain(list(&volume["projected"]["sources"]).iter().map(|each| &each["secret"]["name"]))
        .filter_map(Value::as_str)
        .collect();
    let has = |name: &&str| {
        let name = name
            .rsplit_once('-')
            .filter(|(_, hash)| hash.len() == 10)
            .map_or(*name, |(name, _)| name);
        let keys = crate::names::FROM_OUTSIDE.iter().find(|(known, _)| *known == name);
        keys.is_some_and(|(_, keys)| keys.contains(&key))
    };
    assert!(secrets.iter().any(has), "{overlay}: none of {secrets:?} has {key}");
}

/// Every container of ours, with its settings as the program reads them.
fn programs(manifests: &Manifests) -> Vec<(String, u64, Cli)> {
    let command = Cli::command();
    let mut found = Vec::new();
    for pod in manifests.pods() {
        let own = |container: &&Value| {
            let image = text(&container["image"]);
            image.split([':', '@']).next().unwrap().ends_with("revwallet")
        };
        for container in pod.containers().into_iter().filter(own) {
            let mut line = vec!["revwallet".to_owned()];
            line.extend(list(&container["args"]).into_iter().map(|word| text(word).to_owned()));
            for (variable, value) in environment(manifests, container) {
                let known = command
                    .get_arguments()
                    .find(|argument| argument.get_env().is_some_and(|name| *name == *variable))
                    .unwrap_or_else(|| panic!("{}: nobody knows {variable}", pod.name));
                let flag = known.get_long().unwrap();
                match value {
                    Some(path) if variable.ends_with("_FILE") => {
                        is_mounted(&manifests.overlay, pod.spec, container, &path);
                        line.push(format!("--{flag}={}", a_secret().display()));
                    }
                    Some(value) if known.get_action().takes_values() => {
                        line.push(format!("--{flag}={value}"));
                    }
                    Some(value) if value == "true" => line.push(format!("--{flag}")),
                    Some(value) => panic!("{}: {variable}={value} is neither", pod.name),
                    None => line.push(format!("--{flag}=postgres://a:b@c/d")),
                }
            }
            let cli = Cli::try_parse_from(&line)
                .unwrap_or_else(|fault| panic!("{}: {line:?}: {fault}", pod.name));
            let grace = pod.spec["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            found.push((pod.name.clone(), grace, cli));
        }
    }
    assert_eq!(found.len(), 3, "those that migrate, serve and work");
    found
}

#[test]
fn the_program_understands_its_settings() {
    for name in OVERLAYS {
        for (pod, _, cli) in programs(&overlay(name)) {
            assert!(cli.config.database.database_url_file.is_some(), "{pod} has no database");
            let migrates = pod.contains("migrate");
            assert_eq!(cli.config.database.no_migrate, !migrates, "{pod}");
        }
    }
}

#[test]
fn a_process_has_time_to_end_what_it_began() {
    for (pod, grace, cli) in programs(&overlay("production")) {
        let lifecycle = &cli.config.lifecycle;
        // The edge of the program, the work behind it, the pool: each has that long.
        let longest = lifecycle.shutdown_delay + 2 * lifecycle.shutdown_timeout;
        let killed = Duration::from_secs(grace);
        assert!(pod.contains("migrate") || killed > longest, "{pod}: {killed:?} < {longest:?}");
        // Name servers keep an answer for 30 s, the edge for 5 s more.
        let api = pod.contains("api");
        assert!(!api || lifecycle.shutdown_delay > Duration::from_secs(35), "{pod}");
    }
}

#[test]
fn the_edge_understands_its_settings() {
    let start = crate::read("nginx/start");
    for name in OVERLAYS {
        let manifests = overlay(name);
        let pods = manifests.pods();
        let edge = pods.iter().find(|pod| pod.name == "Deployment nginx").unwrap();
        let container = &edge.spec["containers"][0];
        for (variable, _) in environment(&manifests, container) {
            let known = start.contains(&format!("\n#   {variable} ")) || variable == "NAMESPACE";
            assert!(known, "nginx/start knows no {variable}");
        }
        assert_eq!(list(&container["command"]), ["/etc/edge/start"]);
    }
}

#[test]
fn all_of_the_access_is_closed_in_production() {
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
fn the_database_allows_as_many_connections_as_an_update_opens() {
    let manifests = overlay("demo");
    let most_of = |part: &str| {
        let (_, _, cli) = programs(&manifests)
            .into_iter()
            .find(|(pod, ..)| pod == &format!("Deployment revwallet-{part}"))
            .unwrap();
        // The writer and the listener have one each; what is behind the API has four more.
        u64::from(cli.config.database.database_connections_max) + if part == "api" { 2 } else { 6 }
    };
    let scaler = manifests.find("HorizontalPodAutoscaler", "revwallet-api").unwrap();
    let apis = scaler["spec"]["maxReplicas"].as_u64().unwrap();
    let workers =
        manifests.find("Deployment", "revwallet-worker").unwrap()["spec"]["replicas"].as_u64();
    // Those that end are still there while those that replace them are.
    let processes = 2 * (apis * most_of("api") + workers.unwrap() * most_of("worker"));
    let sources = crate::read("grafana/provisioning/datasources/revwallet.yml");
    let (_, grafana) = sources.split_once("maxOpenConns: ").unwrap();
    let grafana: u64 = grafana.lines().next().unwrap().parse().unwrap();
    // The exporter, the migration, the backup, and what the server keeps for itself.
    let others = grafana + 1 + 2 + 1 + 3;

    let pods = manifests.pods();
    let database = pods.iter().find(|pod| pod.name == "StatefulSet revwallet-db").unwrap();
    let allowed = list(&database.spec["containers"][0]["args"])
        .iter()
        .find_map(|word| text(word).strip_prefix("-cmax_connections=")?.parse::<u64>().ok())
        .unwrap();
    assert!(processes + others <= allowed, "{processes} + {others} > {allowed}");
}

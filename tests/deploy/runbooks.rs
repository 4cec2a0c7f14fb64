//! Commands of the runbooks against the compose file, the manifests, and the options of `kubectl`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::render::{Manifests, OVERLAYS, overlay, text};
use crate::{root, tools};

/// Options of `docker compose` with a value in the next word.
const COMPOSE_VALUES: [&str; 6] = ["--tail", "--since", "--scale", "--wait-timeout", "-f", "-n"];

/// Kinds of the objects that the commands name, as `kubectl` spells them.
const KINDS: [(&str, &str); 10] = [
    ("deployment", "Deployment"),
    ("statefulset", "StatefulSet"),
    ("job", "Job"),
    ("cronjob", "CronJob"),
    ("service", "Service"),
    ("services", "Service"),
    ("horizontalpodautoscaler", "HorizontalPodAutoscaler"),
    ("networkpolicy", "NetworkPolicy"),
    ("secret", "Secret"),
    ("persistentvolumeclaim", "PersistentVolumeClaim"),
];

/// Returns each command of the runbooks with the name of its runbook; a line with `|` or `&&` has several.
fn commands() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("docs/runbooks")).unwrap() {
        let path = entry.unwrap().path();
        let runbook = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let content = std::fs::read_to_string(&path).unwrap();
        for block in content.split("```sh\n").skip(1) {
            let lines = block.split("```").next().unwrap().lines().map(str::trim);
            for line in lines.filter(|line| !line.starts_with('#')) {
                let parts = line.split(" | ").flat_map(|part| part.split(" && "));
                found.extend(parts.map(|part| (runbook.clone(), part.trim().to_owned())));
            }
        }
    }
    assert!(found.len() > 300, "{}", found.len());
    found
}

#[test]
fn every_compose_command_names_a_service() {
    let compose = crate::compose::compose();
    let services = compose["services"].as_object().unwrap();
    let mut named = BTreeSet::new();
    for (runbook, command) in commands() {
        let Some((_, rest)) = command.split_once("docker compose ") else { continue };
        let mut words = rest.split(' ').peekable();
        let mut positionals = Vec::new();
        while let Some(word) = words.next() {
            if COMPOSE_VALUES.contains(&word) {
                let value = words.next().unwrap();
                let scaled = value.split('=').next().unwrap();
                let is_service = word != "--scale" || services.contains_key(scaled);
                assert!(is_service, "{runbook}: {command}");
            } else if !word.starts_with('-') {
                positionals.push(word);
            }
        }
        let (subcommand, operands) = positionals.split_first().unwrap();
        let operands = match *subcommand {
            // The rest is the command that runs in the container.
            "exec" | "run" => &operands[..1],
            "build" | "config" | "logs" | "ps" | "restart" | "stop" | "top" | "up" => operands,
            other => panic!("{runbook}: docker compose {other} is not known to this test"),
        };
        for service in operands {
            assert!(services.contains_key(*service), "{runbook}: {command}: no service {service}");
            named.insert((*service).to_owned());
        }
    }
    assert!(named.len() > 8, "{named:?}");
}

/// Returns whether an object exists in one of the overlays; Postgres is only in the demo.
fn exists(manifests: &[Manifests], kind: &str, object: &str) -> bool {
    let is_external = crate::references::EXTERNAL_SECRETS.iter().any(|(known, _)| *known == object);
    let optional = ["revwallet-probe", "alertmanager"];
    manifests.iter().any(|overlay| overlay.find(kind, object).is_some())
        || kind == "Secret" && (is_external || optional.contains(&object))
        // A StatefulSet creates the claim and the pod of each replica.
        || object.strip_prefix("data-").and_then(|rest| rest.strip_suffix("-0")).is_some_and(|set| {
            manifests.iter().any(|overlay| overlay.find("StatefulSet", set).is_some())
        })
}

#[test]
fn every_kubectl_command_names_an_object() {
    let manifests = OVERLAYS.map(overlay);
    let labels: BTreeSet<String> = manifests
        .iter()
        .flat_map(Manifests::pods)
        .flat_map(|pod| pod.labels.clone())
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    let containers: BTreeSet<String> = manifests
        .iter()
        .flat_map(Manifests::pods)
        .flat_map(|pod| {
            let names =
                pod.containers().into_iter().map(|container| text(&container["name"]).to_owned());
            names.collect::<Vec<_>>()
        })
        .collect();
    let mut named = BTreeSet::new();
    for (runbook, command) in commands() {
        let Some((_, rest)) = command.split_once("kubectl --namespace revwallet ") else {
            continue;
        };
        // After `--`, the command that runs in the container.
        let words: Vec<&str> = rest.split(' ').take_while(|word| *word != "--").collect();
        let created = words.windows(3).find(|words| words[0] == "create").map(|words| words[2]);
        for (at, word) in words.iter().enumerate() {
            let next = words.get(at + 1).copied().unwrap_or_default();
            if *word == "--selector" && next.starts_with("app.kubernetes.io/") {
                assert!(labels.contains(next), "{runbook}: no pod has {next}");
            } else if *word == "--container" {
                assert!(containers.contains(next), "{runbook}: no container {next}");
            }
            let object = match word.split_once('/') {
                Some(object) => Some(object),
                None => Some((*word, next))
                    .filter(|(_, name)| !name.is_empty() && !name.starts_with('-')),
            };
            let Some((kind, object)) = object else { continue };
            let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == kind) else { continue };
            let is_new = Some(object) == created || object == "generic" || object == "evidence";
            assert!(
                is_new || exists(&manifests, kind, object),
                "{runbook}: {command}: no {kind} {object}"
            );
            named.insert(object.to_owned());
        }
    }
    assert!(named.len() > 12, "{named:?}");
}

#[test]
fn kubectl_knows_every_option() {
    let kubectl = tools("kubectl_tool");
    let help = |arguments: &[&str]| {
        let output = Command::new(&kubectl).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let global = help(&["options"]);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for (runbook, command) in commands() {
        let Some((_, rest)) = command.split_once("kubectl ") else { continue };
        let rest = rest.strip_prefix("--namespace revwallet ").unwrap_or(rest);
        let words: Vec<&str> = rest.split(' ').take_while(|word| *word != "--").collect();
        let depth = match (words[0], words[1]) {
            ("create", "secret") => 3,
            ("rollout" | "create" | "set", _) => 2,
            _ => 1,
        };
        let subcommand = words[..depth].to_vec();
        let own = known
            .entry(subcommand.join(" "))
            .or_insert_with(|| help(&[&subcommand[..], &["--help"]].concat()));
        assert!(own.contains("Usage:"), "{runbook}: kubectl has no {subcommand:?}");
        for option in words.iter().filter(|word| word.starts_with("--")) {
            let option = option.split('=').next().unwrap();
            let is_known = [&*own, &global].iter().any(|help| help.contains(&format!("{option}=")));
            assert!(is_known, "{runbook}: kubectl {subcommand:?} has no {option}");
        }
    }
    assert!(known.len() > 8, "{:?}", known.keys());
}

//! The compose files against the rules of the project, the files that they mount, and the settings of the program.

use std::collections::BTreeSet;
use std::process::Command;

use clap::CommandFactory;
use revwallet::cli::Cli;
use serde_json::Value;

use crate::files::{read, root};
use crate::nginx::tool;

/// Reads a YAML file as JSON.
fn yaml(path: &str) -> Value {
    let script = format!(
        "source scripts/lib/setup.sh && need_python && \"$(python_tools yaml PyYAML==6.0.3)/bin/python\" -c \
         'import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))' {path}"
    );
    let output = Command::new("bash").args(["-c", &script]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn compose() -> Value {
    yaml("docker-compose.yml")
}

fn services(compose: &Value) -> impl Iterator<Item = (&str, &Value)> {
    compose["services"].as_object().unwrap().iter().map(|(name, service)| (name.as_str(), service))
}

/// Returns the strings of a list, or an empty list.
fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|text| text.as_str().unwrap()).collect()
}

/// Returns the keys of a map, or the items of a list.
fn keys(map: &Value) -> BTreeSet<&str> {
    match map {
        Value::Object(map) => map.keys().map(String::as_str).collect(),
        other => texts(other).into_iter().collect(),
    }
}

/// Returns the flags that the compose file passes to Prometheus.
pub fn prometheus_flags() -> Vec<String> {
    let compose = compose();
    let flags = texts(&compose["services"]["prometheus"]["command"]);
    flags
        .iter()
        .map(|flag| flag.replace("${REVWALLET_URL:-http://revwallet.com}", "http://revwallet.com"))
        .collect()
}

/// Returns the `pg_hba.conf` of the compose file, with the given network for the observer role.
pub fn pg_hba(network: &str) -> String {
    let compose = compose();
    let rules = compose["configs"]["pg_hba"]["content"].as_str().unwrap();
    rules.replace("${REVWALLET_OBSERVE_NET:-10.231.47.0/28}", network)
}

#[test]
fn only_nginx_publishes_a_port() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let ports = texts(&service["ports"]);
        if name == "nginx" {
            assert_eq!(ports, ["${REVWALLET_ADDRESS:-127.0.0.1}:${REVWALLET_PORT:-80}:8080"]);
        } else {
            assert!(ports.is_empty(), "{name} publishes a port");
        }
        assert_ne!(service["network_mode"], "host", "{name}");
        assert!(service["privileged"].is_null(), "{name}");
    }
    // The development file publishes more ports, on the loopback address only.
    for (name, service) in services(&yaml("docker-compose.dev.yml")) {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn every_service_has_limits_a_health_check_and_a_pinned_image() {
    let text = read("docker-compose.yml");
    let compose = compose();
    let mut count = 0;
    for (name, service) in services(&compose) {
        count += 1;
        let memory =
            service["mem_limit"].as_str().unwrap_or_else(|| panic!("{name} has no memory limit"));
        assert!(memory.ends_with('m') || memory.ends_with('g'), "{name}: {memory}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name}");

        let check = &service["healthcheck"];
        if check["disable"] == true {
            let part = text.split(&format!("\n  {name}:\n")).nth(1).unwrap();
            let line = part.lines().find(|line| line.contains("disable: true")).unwrap();
            assert!(line.contains("} # "), "{name} gives no reason for its missing health check");
        } else if check.is_null() {
            let part = text.split(&format!("\n  {name}:\n")).nth(1).unwrap();
            let service = part.split("\n\n").next().unwrap();
            assert!(
                service.contains("# No health check: "),
                "{name} gives no reason for its missing health check"
            );
        } else {
            assert!(texts(&check["test"]).len() > 1, "{name} has no health check");
        }

        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        assert!(!tag.contains("latest"), "{image}");
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{image}");
    }
    assert!(count >= 14, "{count}");
    let image = format!(
        "ghcr.io/revwallet/revwallet:${{REVWALLET_VERSION:-{}}}",
        env!("CARGO_PKG_VERSION")
    );
    for name in ["revwallet_api", "revwallet_worker", "migrate"] {
        assert_eq!(compose["services"][name]["image"], image, "{name} has another version");
        assert_eq!(compose["services"][name]["build"]["context"], ".");
    }
    // A fixed name would prevent a second replica.
    assert!(compose["services"]["revwallet_api"]["container_name"].is_null());
}

#[test]
fn services_have_no_unneeded_privileges() {
    let compose = compose();
    for (name, service) in services(&compose) {
        // The Postgres image starts as root and drops its privileges itself.
        if name != "revwallet_db" {
            assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
            assert!(service["cap_add"].is_null(), "{name}");
        }
        if !["revwallet_db", "secrets"].contains(&name) {
            assert_eq!(service["read_only"], true, "{name}");
        }
    }
}

#[test]
fn the_compose_file_contains_no_secret() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            assert!(!value.contains("://") || !value.contains('@'), "{name}: {variable}={value}");
            let secret_words = ["PASSWORD", "SECRET", "TOKEN", "KEY"];
            if secret_words.iter().any(|word| variable.contains(word)) {
                let is_from_outside = value.starts_with("${") && value.ends_with(":-}");
                let is_file = value.starts_with("/run/");
                assert!(is_file || is_from_outside, "{name}: {variable}={value}");
            }
        }
        for word in texts(&service["command"]) {
            assert!(!word.to_lowercase().contains("password="), "{name}: {word}");
        }
    }
}

#[test]
fn every_mounted_path_exists() {
    let mut count = 0;
    for file in [
        "docker-compose.yml",
        "docker-compose.dev.yml",
        "docker-compose.tls.yml",
        "docker-compose.citus.yml",
    ] {
        let compose = yaml(file);
        for (name, service) in services(&compose) {
            for volume in texts(&service["volumes"]) {
                let (source, rest) = volume.split_once(':').unwrap();
                if let Some(path) = source.strip_prefix("./") {
                    count += 1;
                    assert!(root().join(path).exists(), "{name}: {path} does not exist");
                    assert!(rest.ends_with(":ro"), "{name} mounts {path} writable");
                } else if !source.starts_with(['/', '$']) {
                    let volumes = compose["volumes"].as_object().unwrap();
                    assert!(
                        volumes.contains_key(source),
                        "{name}: {source} is not a declared volume"
                    );
                } else {
                    assert!(rest.ends_with(":ro"), "{name} mounts {source} writable");
                }
            }
        }
    }
    assert!(count > 12, "{count}");
}

#[test]
fn the_program_accepts_every_argument_and_setting() {
    let command = Cli::command();
    let variables: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect();
    for file in ["docker-compose.yml", "docker-compose.dev.yml"] {
        for (name, service) in services(&yaml(file)) {
            let is_program = ["revwallet_api", "revwallet_worker", "migrate"].contains(&name);
            for variable in keys(&service["environment"]) {
                assert_eq!(is_program, variables.contains(variable), "{file}: {name}: {variable}");
                let start = match name {
                    "nginx" => read("nginx/start"),
                    "alertmanager" => read("alertmanager/start"),
                    _ => continue,
                };
                assert!(start.contains(&format!("\n#   {variable} ")), "{variable}");
            }
            if is_program && !service["command"].is_null() {
                let arguments = texts(&service["command"]);
                let arguments = std::iter::once("revwallet").chain(arguments);
                Cli::command().try_get_matches_from(arguments).unwrap();
            }
        }
    }
    let settings = &compose()["services"]["revwallet_api"]["environment"];
    let flags: Vec<String> = settings
        .as_object()
        .unwrap()
        .iter()
        .filter(|(variable, _)| !variable.ends_with("_FILE"))
        .map(|(variable, value)| {
            let flag = variable.trim_start_matches("REVWALLET_").to_lowercase().replace('_', "-");
            let value = value.as_str().unwrap();
            let default = value.split(":-").nth(1).map_or(value, |rest| rest.trim_end_matches('}'));
            if flag == "no-migrate" { format!("--{flag}") } else { format!("--{flag}={default}") }
        })
        .collect();
    let arguments = ["revwallet".to_owned(), "serve".to_owned()].into_iter().chain(flags);
    Cli::command().try_get_matches_from(arguments).unwrap();
    let health = Cli::command().try_get_matches_from(["revwallet", "health"]);
    assert!(health.is_ok(), "the program lacks the command of the health check");
}

#[test]
fn grafana_has_the_variables_and_secrets_of_its_configuration() {
    let compose = compose();
    let grafana = &compose["services"]["grafana"];
    // A link to a trace opens Explore, which a viewer may not use.
    assert_eq!(grafana["environment"]["GF_USERS_AUTO_ASSIGN_ORG_ROLE"], "Editor");
    let text = read("grafana/provisioning/datasources/revwallet.yml");
    let references: Vec<&str> = text.split("$__env{").skip(1).collect();
    assert!(!references.is_empty());
    for variable in references.iter().map(|rest| rest.split('}').next().unwrap()) {
        assert!(grafana["environment"][variable].is_string(), "{variable} is not set");
    }
    // `compose/secrets` creates every secret file that the configuration reads.
    for file in text.split("$__file{/run/secrets/").skip(1) {
        let name = file.split('}').next().unwrap();
        assert!(read("compose/secrets").contains(&format!("/grafana/{name}\"")), "{name}");
    }
    assert!(read("compose/secrets").contains("/alloy/observer_url\""));
    assert!(read("alloy/config.alloy").contains("/run/secrets/observer_url"));
}

#[test]
fn networks_connect_only_services_that_need_each_other() {
    let compose = compose();
    let networks_of = |name: &str| keys(&compose["services"][name]["networks"]);
    let can_reach = |one: &str, other: &str| {
        networks_of(one).intersection(&networks_of(other)).next().is_some()
    };
    let networks = compose["networks"].as_object().unwrap();
    for (name, network) in networks {
        let leads_outside = ["front", "pager"].contains(&name.as_str());
        assert_eq!(network["internal"] == true, !leads_outside, "{name}");
    }
    // Grafana and the exporter share only the network on which the database accepts the observer role alone.
    for observer in ["grafana", "alloy"] {
        let shared: Vec<_> =
            networks_of(observer).intersection(&networks_of("revwallet_db")).copied().collect();
        assert_eq!(shared, ["observe"], "{observer}");
    }
    for service in
        ["nginx", "prometheus", "loki", "tempo", "mail", "alertmanager", "nginx_exporter"]
    {
        assert!(!can_reach(service, "revwallet_db"), "{service} reaches the database");
    }
    for (one, other) in [
        ("nginx", "revwallet_api"),
        ("nginx", "grafana"),
        ("nginx", "prometheus"),
        ("nginx_exporter", "nginx"),
        ("prometheus", "nginx_exporter"),
        ("prometheus", "revwallet_api"),
        ("prometheus", "revwallet_worker"),
        ("alertmanager", "revwallet_api"),
        ("alertmanager", "mail"),
        ("revwallet_api", "alloy"),
        ("revwallet_worker", "mail"),
        ("revwallet_worker", "nginx"),
        ("grafana", "loki"),
        ("grafana", "tempo"),
        ("grafana", "prometheus"),
        ("grafana", "alertmanager"),
        ("migrate", "revwallet_db"),
    ] {
        assert!(can_reach(one, other), "{one} does not reach {other}");
    }
    // With two shared networks, a name would resolve to two addresses per replica and be scraped twice.
    let shared: Vec<_> =
        networks_of("prometheus").intersection(&networks_of("revwallet_api")).copied().collect();
    assert_eq!(shared, ["telemetry"]);
    let hba = compose["configs"]["pg_hba"]["content"].as_str().unwrap().to_owned();
    let subnet = compose["networks"]["observe"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
    let rules: Vec<_> = hba.lines().filter(|line| line.contains(subnet)).collect();
    assert!(rules[0].starts_with("host revwallet revwallet_observer "), "{rules:?}");
    assert!(rules[1].starts_with("host all all ") && rules[1].ends_with(" reject"), "{rules:?}");
    let console = &compose["networks"]["console"]["ipam"]["config"][0]["subnet"];
    assert_eq!(&compose["services"]["grafana"]["environment"]["GF_AUTH_PROXY_WHITELIST"], console);
    assert_eq!(
        networks_of("grafana").intersection(&networks_of("nginx")).copied().collect::<Vec<_>>(),
        ["console"]
    );
    let on_console: Vec<_> =
        services(&compose).filter(|(name, _)| networks_of(name).contains("console")).collect();
    assert_eq!(on_console.len(), 2, "only nginx may set the user of a Grafana request");
}

#[test]
fn every_host_name_in_a_configuration_exists() {
    let compose = compose();
    let mut names = BTreeSet::new();
    for (name, service) in services(&compose) {
        names.insert(name.to_owned());
        for network in service["networks"].as_object().into_iter().flatten() {
            names.extend(texts(&network.1["aliases"]).into_iter().map(str::to_owned));
        }
    }
    let files = [
        "prometheus/prometheus.yml",
        "alertmanager/alertmanager.yml",
        "alloy/config.alloy",
        "alloy/docker.alloy",
        "loki/loki.yaml",
        "tempo/tempo.yaml",
        "grafana/provisioning/datasources/revwallet.yml",
        "compose/secrets",
        "docker-compose.yml",
        "nginx/start",
    ];
    let mut references = BTreeSet::new();
    for file in files {
        let text = read(file);
        // A `name:port`, as in `http://loki:3100/` or in a list of targets.
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c)) {
            let mut parts = word.rsplitn(3, ':');
            let (Some(port), Some(name)) = (parts.next(), parts.next()) else { continue };
            let is_name = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.');
            if port.len() >= 4 && port.parse::<u16>().is_ok() && is_name && name != "localhost" {
                references.insert((name.to_owned(), file));
            }
        }
    }
    assert!(references.len() > 15, "{references:?}");
    for (name, file) in references {
        assert!(names.contains(&name), "{file} names the unknown host {name}");
    }
    for name in ["revwallet-api", "revwallet-worker"] {
        assert!(read("prometheus/prometheus.yml").contains(name) && names.contains(name));
    }
}

#[test]
fn compose_accepts_every_combination_of_files() {
    for files in [
        vec!["docker-compose.yml"],
        vec!["docker-compose.yml", "docker-compose.dev.yml"],
        vec!["docker-compose.yml", "docker-compose.tls.yml"],
        vec!["docker-compose.yml", "docker-compose.backup.yml"],
        vec!["docker-compose.yml", "docker-compose.citus.yml"],
    ] {
        // The JSON schema of the Compose specification.
        let script = format!(
            "source scripts/lib/setup.sh && \"$(python_tools compose check-jsonschema==0.39.0)/bin/check-jsonschema\" \
             --builtin-schema vendor.compose-spec {}",
            files.join(" ")
        );
        let output =
            Command::new("bash").args(["-c", &script]).current_dir(root()).output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
        // Docker Compose itself, if it is available.
        let Some(compose) = tool("docker-compose") else { continue };
        let mut command = Command::new(compose);
        for file in &files {
            command.args(["-f", file]);
        }
        let output = command
            .args(["config", "--format", "json"])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs([("REVWALLET_TLS", "/tmp"), ("REVWALLET_URL", "https://revwallet.com")])
            .current_dir(root())
            .output()
            .unwrap();
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{files:?}: {warnings}");
        let merged: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(merged["name"], "revwallet");
        let port = &merged["services"]["nginx"]["ports"][0];
        assert_eq!((&port["host_ip"], &port["published"]), (&"127.0.0.1".into(), &"80".into()));
        assert_eq!(merged["services"]["revwallet_api"]["environment"]["REVWALLET_ACCESS"], "open");
        let hba = merged["configs"]["pg_hba"]["content"].as_str().unwrap();
        assert!(!hba.contains('$'), "{hba}");
    }
}

//! The compose file: what it promises, held against the file, the files it mounts, and the program that it starts.

use std::collections::BTreeSet;
use std::process::Command;

use clap::CommandFactory;
use revwallet::cli::Cli;
use serde_json::Value;

use crate::files::{read, root};
use crate::nginx::tool;

/// A file of YAML as JSON.
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

/// The texts of a list, or none.
fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(|text| text.as_str().unwrap()).collect()
}

fn keys(map: &Value) -> BTreeSet<&str> {
    match map {
        Value::Object(map) => map.keys().map(String::as_str).collect(),
        other => texts(other).into_iter().collect(),
    }
}

/// The flags that Prometheus gets there.
pub fn prometheus_words() -> Vec<String> {
    let compose = compose();
    let words = texts(&compose["services"]["prometheus"]["command"]);
    words
        .iter()
        .map(|word| word.replace("${REVWALLET_URL:-http://revwallet.com}", "http://revwallet.com"))
        .collect()
}

/// Who may sign in to the database, with the network of those who only look.
pub fn rules_of_sign_in(network: &str) -> String {
    let compose = compose();
    let rules = compose["configs"]["pg_hba"]["content"].as_str().unwrap();
    rules.replace("${REVWALLET_OBSERVE_NET:-10.231.47.0/28}", network)
}

#[test]
fn only_nginx_is_published_and_on_port_80() {
    let compose = compose();
    for (name, service) in services(&compose) {
        let ports = texts(&service["ports"]);
        if name == "nginx" {
            assert_eq!(ports, ["${REVWALLET_PORT:-80}:8080"]);
        } else {
            assert!(ports.is_empty(), "{name} is published");
        }
        assert_ne!(service["network_mode"], "host", "{name}");
        assert!(service["privileged"].is_null(), "{name}");
    }
    // Whoever needs more asks for it, and gets it on this machine only.
    for (name, service) in services(&yaml("docker-compose.dev.yml")) {
        for port in texts(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn every_service_is_limited_watched_and_pinned() {
    let text = read("docker-compose.yml");
    let compose = compose();
    let mut count = 0;
    for (name, service) in services(&compose) {
        count += 1;
        let memory = service["mem_limit"].as_str().unwrap_or_else(|| panic!("{name} has no limit"));
        assert!(memory.ends_with('m') || memory.ends_with('g'), "{name}: {memory}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        assert_eq!(service["logging"]["options"]["max-size"], "10m", "{name}");

        let check = &service["healthcheck"];
        if check["disable"] == true {
            let part = text.split(&format!("\n  {name}:\n")).nth(1).unwrap();
            let line = part.lines().find(|line| line.contains("disable: true")).unwrap();
            assert!(line.contains("} # "), "{name} gives no reason");
        } else if check.is_null() {
            let part = text.split(&format!("\n  {name}:\n")).nth(1).unwrap();
            let own = part.split("\n\n").next().unwrap();
            assert!(own.contains("# No health check: "), "{name} gives no reason");
        } else {
            assert!(texts(&check["test"]).len() > 1, "{name} has no health check");
        }

        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{image} has no tag"));
        assert!(!tag.contains("latest"), "{image}");
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{image}");
    }
    assert!(count >= 14, "{count}");
    let ours = format!(
        "ghcr.io/revwallet/revwallet:${{REVWALLET_VERSION:-{}}}",
        env!("CARGO_PKG_VERSION")
    );
    for name in ["revwallet_api", "revwallet_worker", "migrate"] {
        assert_eq!(compose["services"][name]["image"], ours, "of the version that is here");
        assert_eq!(compose["services"][name]["build"]["context"], ".");
    }
    // Any number of them may run.
    assert!(compose["services"]["revwallet_api"]["container_name"].is_null());
}

#[test]
fn whoever_needs_no_right_has_none() {
    let compose = compose();
    for (name, service) in services(&compose) {
        // The image of Postgres becomes another user by itself.
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
fn no_secret_stands_in_it() {
    let compose = compose();
    for (name, service) in services(&compose) {
        for (variable, value) in service["environment"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap();
            assert!(!value.contains("://") || !value.contains('@'), "{name}: {variable}={value}");
            let secret = ["PASSWORD", "SECRET", "TOKEN", "KEY"];
            if secret.iter().any(|word| variable.contains(word)) {
                assert!(value.starts_with("/run/"), "{name}: {variable}={value}");
            }
        }
        for word in texts(&service["command"]) {
            assert!(!word.to_lowercase().contains("password="), "{name}: {word}");
        }
    }
}

#[test]
fn every_path_that_is_mounted_is_there() {
    let mut count = 0;
    for file in ["docker-compose.yml", "docker-compose.dev.yml", "docker-compose.tls.yml"] {
        let compose = yaml(file);
        for (name, service) in services(&compose) {
            for volume in texts(&service["volumes"]) {
                let (source, rest) = volume.split_once(':').unwrap();
                if let Some(path) = source.strip_prefix("./") {
                    count += 1;
                    assert!(root().join(path).exists(), "{name}: {path} is not there");
                    assert!(rest.ends_with(":ro"), "{name} may write {path}");
                } else if !source.starts_with(['/', '$']) {
                    let volumes = compose["volumes"].as_object().unwrap();
                    assert!(volumes.contains_key(source), "{name}: {source} is no volume");
                } else {
                    assert!(rest.ends_with(":ro"), "{name} may write {source}");
                }
            }
        }
    }
    assert!(count > 12, "{count}");
}

#[test]
fn the_program_knows_every_word_and_every_setting() {
    let command = Cli::command();
    let variables: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect();
    for file in ["docker-compose.yml", "docker-compose.dev.yml"] {
        for (name, service) in services(&yaml(file)) {
            let ours = ["revwallet_api", "revwallet_worker", "migrate"].contains(&name);
            for variable in keys(&service["environment"]) {
                assert_eq!(ours, variables.contains(variable), "{file}: {name}: {variable}");
                if name == "nginx" {
                    assert!(
                        read("nginx/start").contains(&format!("\n#   {variable} ")),
                        "{variable}"
                    );
                }
            }
            if ours && !service["command"].is_null() {
                let words = texts(&service["command"]);
                let words = std::iter::once("revwallet").chain(words);
                Cli::command().try_get_matches_from(words).unwrap();
            }
        }
    }
    let settings = &compose()["services"]["revwallet_api"]["environment"];
    let words: Vec<String> = settings
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
    let words = ["revwallet".to_owned(), "serve".to_owned()].into_iter().chain(words);
    Cli::command().try_get_matches_from(words).unwrap();
    let health = Cli::command().try_get_matches_from(["revwallet", "health"]);
    assert!(health.is_ok(), "the health check asks for a command that is not there");
}

#[test]
fn grafana_finds_what_its_files_ask_for() {
    let compose = compose();
    let grafana = &compose["services"]["grafana"];
    let text = read("grafana/provisioning/datasources/revwallet.yml");
    let asked: Vec<&str> = text.split("$__env{").skip(1).collect();
    assert!(!asked.is_empty());
    for variable in asked.iter().map(|rest| rest.split('}').next().unwrap()) {
        assert!(grafana["environment"][variable].is_string(), "{variable} is not given");
    }
    // A file of the folder of secrets is one that is made.
    for file in text.split("$__file{/run/secrets/").skip(1) {
        let name = file.split('}').next().unwrap();
        assert!(read("compose/secrets").contains(&format!("/grafana/{name}\"")), "{name}");
    }
    assert!(read("compose/secrets").contains("/alloy/observer_url\""));
    assert!(read("alloy/config.alloy").contains("/run/secrets/observer_url"));
}

#[test]
fn networks_let_nobody_further_than_they_need() {
    let compose = compose();
    let of = |name: &str| keys(&compose["services"][name]["networks"]);
    let meets = |one: &str, other: &str| of(one).intersection(&of(other)).next().is_some();
    let nets = compose["networks"].as_object().unwrap();
    for (name, net) in nets {
        assert_eq!(net["internal"] == true, name != "front", "{name}");
    }
    // Grafana and the exporter meet the database where it takes one role only, and nowhere else.
    for watcher in ["grafana", "alloy"] {
        let shared: Vec<_> = of(watcher).intersection(&of("revwallet_db")).copied().collect();
        assert_eq!(shared, ["observe"], "{watcher}");
    }
    for stranger in
        ["nginx", "prometheus", "loki", "tempo", "mail", "alertmanager", "nginx_exporter"]
    {
        assert!(!meets(stranger, "revwallet_db"), "{stranger} reaches the database");
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
        ("revwallet_api", "alloy"),
        ("revwallet_worker", "mail"),
        ("revwallet_worker", "nginx"),
        ("grafana", "loki"),
        ("grafana", "tempo"),
        ("grafana", "prometheus"),
        ("grafana", "alertmanager"),
        ("migrate", "revwallet_db"),
    ] {
        assert!(meets(one, other), "{one} does not reach {other}");
    }
    // A name leads to one address of each replica: two networks in common would be two samples of everything.
    let twice: Vec<_> = of("prometheus").intersection(&of("revwallet_api")).copied().collect();
    assert_eq!(twice, ["telemetry"]);
    let hba = compose["configs"]["pg_hba"]["content"].as_str().unwrap().to_owned();
    let subnet = compose["networks"]["observe"]["ipam"]["config"][0]["subnet"].as_str().unwrap();
    let rules: Vec<_> = hba.lines().filter(|line| line.contains(subnet)).collect();
    assert!(rules[0].starts_with("host revwallet revwallet_observer "), "{rules:?}");
    assert!(rules[1].starts_with("host all all ") && rules[1].ends_with(" reject"), "{rules:?}");
    let console = &compose["networks"]["console"]["ipam"]["config"][0]["subnet"];
    assert_eq!(&compose["services"]["grafana"]["environment"]["GF_AUTH_PROXY_WHITELIST"], console);
    assert_eq!(of("grafana").intersection(&of("nginx")).copied().collect::<Vec<_>>(), ["console"]);
    let on_console: Vec<_> =
        services(&compose).filter(|(name, _)| of(name).contains("console")).collect();
    assert_eq!(on_console.len(), 2, "nobody else can say who somebody is");
}

#[test]
fn whoever_is_asked_for_by_name_has_that_name() {
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
    let mut asked = BTreeSet::new();
    for file in files {
        let text = read(file);
        // name:port, as in http://loki:3100/ or in a list of targets.
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && !"-_:.".contains(c)) {
            let mut parts = word.rsplitn(3, ':');
            let (Some(port), Some(name)) = (parts.next(), parts.next()) else { continue };
            let is_name = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.');
            if port.len() >= 4 && port.parse::<u16>().is_ok() && is_name && name != "localhost" {
                asked.insert((name.to_owned(), file));
            }
        }
    }
    assert!(asked.len() > 15, "{asked:?}");
    for (name, file) in asked {
        assert!(names.contains(&name), "{file} asks for {name}, which nobody is called");
    }
    for name in ["revwallet-api", "revwallet-worker"] {
        assert!(read("prometheus/prometheus.yml").contains(name) && names.contains(name));
    }
}

#[test]
fn compose_reads_it_as_it_is_meant() {
    for files in [
        vec!["docker-compose.yml"],
        vec!["docker-compose.yml", "docker-compose.dev.yml"],
        vec!["docker-compose.yml", "docker-compose.tls.yml"],
        vec!["docker-compose.yml", "docker-compose.backup.yml"],
    ] {
        // The schema, wherever Python's packages can be had.
        let script = format!(
            "source scripts/lib/setup.sh && \"$(python_tools compose check-jsonschema==0.39.0)/bin/check-jsonschema\" \
             --builtin-schema vendor.compose-spec {}",
            files.join(" ")
        );
        let output =
            Command::new("bash").args(["-c", &script]).current_dir(root()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        // Compose itself, where it can be had.
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
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{files:?}: {complaints}");
        let whole: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(whole["name"], "revwallet");
        assert_eq!(whole["services"]["nginx"]["ports"][0]["published"], "80");
        assert_eq!(whole["services"]["revwallet_api"]["environment"]["REVWALLET_ACCESS"], "open");
        let hba = whole["configs"]["pg_hba"]["content"].as_str().unwrap();
        assert!(!hba.contains('$'), "{hba}");
    }
}

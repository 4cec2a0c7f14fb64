//! Citus: the compose overlay and the Kubernetes overlay run a coordinator and two workers, and distribute the books over
//! the workers before a process of the program starts.

use std::collections::BTreeSet;

use clap::Parser;
use revwallet::cli::{Cli, Command};
use serde_json::{Value, json};

use crate::bash;
use crate::compose::{compose, parsed, with_defaults};
use crate::render::{Manifests, list, name, overlay, text};

const WORKERS: [&str; 2] = ["citus_worker_1", "citus_worker_2"];

/// Services that sign in to the coordinator as the superuser.
const ONE_SHOTS: [&str; 2] = ["distribute", "citus_nodes"];

fn citus() -> Value {
    parsed("docker-compose.citus.yml")
}

/// Returns the value of a setting that the arguments of a server contain.
fn setting<'a>(arguments: &'a Value, name: &str) -> &'a str {
    let prefix = format!("-c{name}=");
    let mut values =
        list(arguments).into_iter().filter_map(|word| text(word).strip_prefix(&prefix));
    values.next().unwrap_or_else(|| panic!("no {name} in {arguments}"))
}

/// Asserts that a coordinator and a worker form a cluster, and that both keep the settings of the server without Citus.
fn assert_settings(plain: &Value, coordinator: &Value, worker: &Value) {
    for server in [coordinator, worker] {
        assert_eq!(setting(server, "shared_preload_libraries"), "citus");
        let arguments = list(server);
        for word in list(plain) {
            let is_raised = text(word).starts_with("-cmax_connections=");
            assert!(is_raised || arguments.contains(&word), "{word} is not in {server}");
        }
    }
    let number = |server, name| setting(server, name).parse::<u64>().unwrap();
    // The coordinator opens as many connections to a worker as it accepts, and each may have an open commit.
    let connections = number(worker, "max_connections");
    assert!(connections > number(coordinator, "max_connections") + 3, "{connections}");
    assert!(number(worker, "max_prepared_transactions") >= connections);
    assert_eq!(setting(coordinator, "citus.recover_2pc_interval"), "5s");
    assert_eq!(setting(coordinator, "citus.node_conninfo"), "sslmode=prefer");
    // A worker would try to connect to the coordinator, which refuses it.
    for name in ["citus.recover_2pc_interval", "citus.distributed_deadlock_detection_factor"] {
        assert_eq!(setting(worker, name), "-1", "{name}");
    }
}

/// Asserts that a server stores its data in a volume, apart from the data of another major version and from the folder in
/// which the image declares a volume.
fn assert_data_folder(folder: &str) {
    let below = folder.strip_prefix("/var/lib/postgresql/").unwrap();
    assert!(!below.starts_with("18") && !below.starts_with("data"), "{folder}");
}

/// Returns the fields of each rule of a `pg_hba.conf`.
fn rules(hba: &str) -> Vec<Vec<&str>> {
    let lines = hba.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().collect()).collect()
}

/// Asserts that workers trust the roles that run statements, from these addresses, and that they accept no other role.
fn assert_worker_rules(hba: &str, addresses: &str) {
    let (local, network): (Vec<_>, Vec<_>) =
        rules(hba).into_iter().partition(|rule| rule[0] == "local");
    assert!(!local.is_empty());
    let roles = "postgres,revwallet,revwallet_app";
    assert_eq!(network, [["host", "revwallet", roles, addresses, "trust"]]);
}

/// Asserts that a coordinator trusts only itself, and that its first rules are those of the server without Citus.
fn assert_coordinator_rules(plain: &[Vec<&str>], coordinator: &[Vec<&str>]) {
    assert!(coordinator.starts_with(plain), "{coordinator:?}");
    for rule in coordinator.iter().filter(|rule| rule.contains(&"trust")) {
        assert!(rule[0] == "local" || rule[3] == "samehost", "{rule:?}");
    }
    let is_superuser = |rule: &&Vec<&str>| rule[0] == "host" && rule[2].contains("postgres");
    let superuser: Vec<_> = coordinator.iter().filter(is_superuser).collect();
    assert_eq!(superuser.len(), 1, "{coordinator:?}");
    assert_eq!(superuser[0].last(), Some(&"scram-sha-256"));
    assert!(coordinator.contains(&vec!["host", "revwallet", "all", "samehost", "trust"]));
}

/// Asserts that a command of `psql` names the coordinator and adds each worker.
fn assert_adds(command: &str, coordinator: &str, workers: &[&str]) {
    assert!(command.contains(&format!("citus_set_coordinator_host('{coordinator}')")), "{command}");
    assert_eq!(command.matches("citus_add_node(").count(), workers.len(), "{command}");
    for worker in workers {
        assert!(command.contains(&format!("citus_add_node('{worker}', 5432)")), "{command}");
    }
}

/// Asserts that the program distributes the books with these arguments.
fn assert_distributes(arguments: &Value) {
    let words = list(arguments).into_iter().map(text);
    let cli = Cli::try_parse_from(std::iter::once("revwallet").chain(words)).unwrap();
    assert!(matches!(cli.command, Some(Command::Migrate { citus: true })), "{arguments}");
}

#[test]
fn compose_runs_a_coordinator_and_two_workers() {
    let (plain, citus) = (&compose()["services"]["revwallet_db"], citus());
    let coordinator = &citus["services"]["revwallet_db"];
    let mut volumes = BTreeSet::new();
    for name in WORKERS {
        let worker = &citus["services"][name];
        assert_settings(&plain["command"], &coordinator["command"], &worker["command"]);
        assert_eq!(worker["image"], coordinator["image"], "{name}");
        for field in [
            "restart",
            "security_opt",
            "logging",
            "depends_on",
            "healthcheck",
            "shm_size",
            "stop_signal",
            "stop_grace_period",
            "mem_limit",
        ] {
            assert_eq!(worker[field], plain[field], "{name}: {field}");
        }
        for (variable, value) in plain["environment"].as_object().unwrap() {
            assert_eq!(worker["environment"][variable], *value, "{name}: {variable}");
        }
        // The same roles, by the same script and the same passwords.
        let shared =
            list(&plain["volumes"]).into_iter().filter(|volume| text(volume).ends_with(":ro"));
        assert_eq!(list(&worker["volumes"])[1..], shared.collect::<Vec<_>>(), "{name}");
    }
    for name in [&WORKERS[..], &["revwallet_db"]].concat() {
        let server = &citus["services"][name];
        assert_data_folder(text(&server["environment"]["PGDATA"]));
        // In place of the volume of the server without Citus, which has the same target.
        let volume = text(&server["volumes"][0]).strip_suffix(":/var/lib/postgresql").unwrap();
        assert!(citus["volumes"].as_object().unwrap().contains_key(volume), "{volume}");
        assert_ne!(volume, "database");
        assert!(volumes.insert(volume), "two servers have the volume {volume}");
    }
}

#[test]
fn compose_connects_the_workers_with_the_coordinator_only() {
    let (plain, citus) = (compose(), citus());
    assert_eq!(citus["networks"], json!({ "citus": { "internal": true } }));
    let is_on_cluster = |service: &Value| match &service["networks"] {
        Value::Object(networks) => networks.contains_key("citus"),
        networks => list(networks).contains(&&json!("citus")),
    };
    let services = citus["services"].as_object().unwrap().iter();
    let services = services.chain(plain["services"].as_object().unwrap());
    let on_cluster: Vec<_> =
        services.filter(|(_, service)| is_on_cluster(service)).map(|(name, _)| name).collect();
    assert_eq!(on_cluster, ["citus_worker_1", "citus_worker_2", "revwallet_db"]);
    for name in WORKERS {
        let worker = &citus["services"][name];
        assert_eq!(worker["networks"], json!(["citus"]), "{name} is on another network");
        assert!(worker["ports"].is_null(), "{name} publishes a port");
        assert_eq!(worker["configs"][0]["source"], "pg_hba_worker");
    }
    let networks = &citus["services"]["revwallet_db"]["networks"];
    assert_eq!(*networks, json!({ "citus": { "aliases": ["citus_coordinator"] } }));

    assert_worker_rules(text(&citus["configs"]["pg_hba_worker"]["content"]), "samenet");
    let plain_rules = rules(text(&plain["configs"]["pg_hba"]["content"]));
    let (owner, before) = plain_rules.split_last().unwrap();
    let coordinator = rules(text(&citus["configs"]["pg_hba"]["content"]));
    assert_coordinator_rules(before, &coordinator);
    assert_eq!(owner.join(" "), "host revwallet revwallet samenet scram-sha-256");
    let last = coordinator.last().unwrap().join(" ");
    assert_eq!(last, "host revwallet revwallet,postgres samenet scram-sha-256");
}

#[test]
fn compose_distributes_the_books_before_a_process_starts() {
    let (plain, citus) = (compose(), citus());
    let condition = |service: &str, of: &str| {
        text(&citus["services"][service]["depends_on"][of]["condition"]).to_owned()
    };
    for worker in WORKERS {
        assert_eq!(condition("citus_nodes", worker), "service_healthy");
    }
    for (service, of) in [
        ("citus_nodes", "migrate"),
        ("distribute", "citus_nodes"),
        ("revwallet_api", "distribute"),
        ("revwallet_worker", "distribute"),
    ] {
        assert_eq!(condition(service, of), "service_completed_successfully", "{service}");
    }
    let migrate = &plain["services"]["migrate"];
    assert_eq!(migrate["depends_on"]["revwallet_db"]["condition"], "service_healthy");

    let distribute = &citus["services"]["distribute"];
    assert_distributes(&distribute["command"]);
    for field in ["image", "environment", "mem_limit"] {
        assert_eq!(distribute[field], migrate[field], "{field}");
    }
    let command = text(&citus["services"]["citus_nodes"]["command"][0]);
    assert_adds(command, "citus_coordinator", &WORKERS);
    for name in ONE_SHOTS {
        let service = &citus["services"][name];
        for field in [
            "restart",
            "security_opt",
            "logging",
            "cap_drop",
            "read_only",
            "networks",
            "healthcheck",
        ] {
            assert_eq!(service[field], migrate[field], "{name}: {field}");
        }
        assert_eq!(service["volumes"], json!(["secrets_superuser:/run/secrets:ro"]), "{name}");
    }
    for name in ["revwallet_api", "revwallet_worker"] {
        let books = text(&citus["services"][name]["environment"]["REVWALLET_BOOKS"]);
        assert_eq!(with_defaults(books), "8", "{name}");
    }
}

#[test]
fn only_one_shot_services_read_the_password_of_the_superuser() {
    let citus = citus();
    let services = citus["services"].as_object().unwrap().iter();
    let readers: BTreeSet<&str> = services
        .filter(|(_, service)| {
            let volumes = list(&service["volumes"]);
            volumes.iter().any(|volume| text(volume).starts_with("secrets_superuser:"))
        })
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(readers, BTreeSet::from(["citus_nodes", "distribute", "secrets"]));

    // Each line is a file with the password: with the folder that the overlay mounts, and without it.
    let find = "compose/secrets $folder && cd $folder && grep -rl \"$(cat db/postgres_password)\" . | sort";
    let found = |prepare: &str| {
        let command = "folder=$(mktemp -d) && trap 'rm -r $folder' EXIT";
        bash(&format!("{command} && {prepare} && {find}")).unwrap()
    };
    assert_eq!(found("true"), "./db/postgres_password\n");
    let with_folder = found("mkdir $folder/superuser");
    assert_eq!(with_folder, "./db/postgres_password\n./superuser/database_url\n");
    let url = bash(
        "folder=$(mktemp -d) && trap 'rm -r $folder' EXIT && mkdir $folder/superuser && compose/secrets $folder && \
         sed \"s/$(cat $folder/db/postgres_password)/PASSWORD/\" $folder/superuser/database_url",
    );
    assert_eq!(url.unwrap(), "postgres://postgres:PASSWORD@revwallet-db:5432/revwallet\n");
}

/// Returns the pod specification of a workload.
fn pod<'a>(manifests: &'a Manifests, kind: &str, name: &str) -> &'a Value {
    &manifests.find(kind, name).unwrap()["spec"]["template"]["spec"]
}

/// Returns the `pg_hba.conf` of a server.
fn hba<'a>(manifests: &'a Manifests, spec: &Value) -> &'a str {
    let access = list(&spec["volumes"]).into_iter().find(|volume| volume["name"] == "access");
    let map = text(&access.unwrap()["configMap"]["name"]);
    text(&manifests.find("ConfigMap", map).unwrap()["data"]["pg_hba.conf"])
}

#[test]
fn kubernetes_runs_a_coordinator_and_two_workers() {
    let (demo, citus) = (overlay("demo"), overlay("citus"));
    let plain = pod(&demo, "StatefulSet", "revwallet-db");
    let coordinator = pod(&citus, "StatefulSet", "revwallet-db");
    let worker = pod(&citus, "StatefulSet", "citus-worker");
    let [plain_server, coordinator_server, worker_server] =
        [plain, coordinator, worker].map(|spec| &spec["containers"][0]);
    assert_settings(&plain_server["args"], &coordinator_server["args"], &worker_server["args"]);
    assert_eq!(worker_server["image"], coordinator_server["image"]);
    for server in [coordinator_server, worker_server] {
        let folder = list(&server["env"]).into_iter().find(|variable| variable["name"] == "PGDATA");
        assert_data_folder(text(&folder.unwrap()["value"]));
        for variable in list(&plain_server["env"]) {
            assert!(list(&server["env"]).contains(&variable), "{variable}");
        }
    }
    for field in [
        "resources",
        "securityContext",
        "startupProbe",
        "livenessProbe",
        "readinessProbe",
        "volumeMounts",
        "ports",
    ] {
        assert_eq!(worker_server[field], plain_server[field], "{field}");
    }
    assert_eq!(worker["terminationGracePeriodSeconds"], plain["terminationGracePeriodSeconds"]);
    for secret in ["init", "secrets"] {
        let volume = |spec: &Value| {
            let volumes = list(&spec["volumes"]).into_iter();
            volumes.filter(|volume| volume["name"] == secret).cloned().collect::<Vec<_>>()
        };
        assert_eq!(volume(worker), volume(coordinator), "{secret}");
    }

    assert_worker_rules(hba(&citus, worker), "all");
    let plain_rules = rules(hba(&demo, plain));
    let coordinator_rules = rules(hba(&citus, coordinator));
    assert_coordinator_rules(&plain_rules[..2], &coordinator_rules);
    assert!(plain_rules.iter().all(|rule| coordinator_rules.contains(rule)), "{plain_rules:?}");
}

#[test]
fn kubernetes_distributes_the_books_before_a_process_starts() {
    let manifests = overlay("citus");
    let job = pod(&manifests, "Job", "revwallet-migrate");
    // Kubernetes runs them in this order, each after the one before it has succeeded.
    let steps = list(&job["initContainers"]);
    let names: Vec<_> = steps.iter().map(|step| text(&step["name"])).collect();
    assert_eq!(names, ["migrate", "nodes", "distribute"]);
    assert_distributes(&steps[2]["args"]);
    assert_eq!(steps[2]["image"], steps[0]["image"]);
    let workers = manifests.find("StatefulSet", "citus-worker").unwrap();
    assert_eq!(workers["spec"]["replicas"], 2);
    let workers = ["citus-worker-0.citus-worker", "citus-worker-1.citus-worker"];
    assert_adds(text(&steps[1]["command"][2]), "citus-coordinator", &workers);
    // Only a headless service gives a pod a name, and leads to the address that the pod itself has.
    for (service, set) in [("citus-worker", "citus-worker"), ("citus-coordinator", "revwallet-db")]
    {
        let service = manifests.find("Service", service).unwrap();
        assert_eq!(service["spec"]["clusterIP"], "None");
        let labels =
            &manifests.find("StatefulSet", set).unwrap()["spec"]["selector"]["matchLabels"];
        assert_eq!(service["spec"]["selector"], *labels, "{}", name(service));
    }
    for (container, volume) in [(0, "secrets"), (1, "superuser"), (2, "superuser")] {
        assert_eq!(steps[container]["volumeMounts"][0]["name"], volume, "{}", names[container]);
    }

    for deployment in ["revwallet-api", "revwallet-worker"] {
        let spec = pod(&manifests, "Deployment", deployment);
        let settings = text(&spec["containers"][0]["envFrom"][0]["configMapRef"]["name"]);
        let settings = manifests.find("ConfigMap", settings).unwrap();
        assert_eq!(settings["data"]["REVWALLET_BOOKS"], "8");
        assert_waits(text(&spec["initContainers"][0]["command"][2]));
    }
}

/// Asserts that a script asks the database until the books are distributed.
fn assert_waits(script: &str) {
    assert!(
        script
            .contains("from pg_dist_partition where logicalrelid = to_regclass('ledger.transfer')")
    );
    // The database cannot be reached at first, then has no distributed table, then has one.
    let answers = "psql() { echo asked >>$asked; case $(wc -l <$asked) in 1) return 2 ;; 2) echo 0 ;; *) echo 1 ;; esac; }";
    let command = format!(
        "asked=$(mktemp) && trap 'rm $asked' EXIT && export asked && \
         sh -ec \"$(cat <<'SCRIPT'\n{answers}\ncat() {{ :; }}\nsleep() {{ :; }}\n{script}\nSCRIPT\n)\" && wc -l <$asked"
    );
    assert_eq!(bash(&command).unwrap().trim(), "3");
}

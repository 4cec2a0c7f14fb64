//! The floors of `docs/architecture.md`: a module imports only from floors below its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use super::{assert_section_up_to_date, files};

/// Modules of each floor, from top to bottom.
const FLOORS: &[(&str, &[&str])] = &[
    ("the command line", &["main", "cli"]),
    ("the composition root, and the commands for a server", &["app", "client"]),
    ("slices that use wallets and users", &["webhook", "play", "games", "exchange"]),
    ("users and API keys", &["users", "api_keys"]),
    (
        "wallets, the audit log, operations",
        &["wallet", "audit_log", "ops", "realtime", "grpc", "saga"],
    ),
    ("the ledger and the HTTP layer", &["ledger", "http"]),
    ("the job queue and the throttle", &["jobs", "throttle"]),
    ("the base of both", &["db", "auth", "idempotency_key", "combiner"]),
    (
        "modules without dependencies",
        &[
            "telemetry",
            "tasks",
            "error",
            "secret",
            "cache",
            "ids",
            "output",
            "settings",
            "striped_lock",
            "web",
        ],
    ),
];

/// The modules that each module may import.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    (
        "main",
        &[
            "cli",
            "client",
            "app",
            "play",
            "games",
            "exchange",
            "users",
            "api_keys",
            "audit_log",
            "ops",
            "ledger",
            "db",
            "telemetry",
            "tasks",
            "output",
        ],
    ),
    (
        "cli",
        &[
            "client",
            "app",
            "play",
            "games",
            "exchange",
            "users",
            "api_keys",
            "audit_log",
            "ledger",
            "output",
        ],
    ),
    ("client", &["webhook", "output", "secret"]),
    (
        "app",
        &[
            "webhook",
            "play",
            "games",
            "exchange",
            "saga",
            "users",
            "api_keys",
            "wallet",
            "audit_log",
            "ops",
            "realtime",
            "grpc",
            "ledger",
            "http",
            "db",
            "jobs",
            "auth",
            "telemetry",
            "tasks",
            "error",
            "secret",
            "settings",
            "web",
            "output",
        ],
    ),
    (
        "webhook",
        &[
            "wallet",
            "realtime",
            "ledger",
            "http",
            "db",
            "jobs",
            "auth",
            "idempotency_key",
            "telemetry",
            "tasks",
            "error",
            "secret",
            "ids",
            "settings",
        ],
    ),
    (
        "play",
        &[
            "wallet",
            "realtime",
            "grpc",
            "ledger",
            "http",
            "db",
            "jobs",
            "auth",
            "idempotency_key",
            "telemetry",
            "tasks",
            "error",
            "secret",
            "cache",
            "ids",
            "output",
        ],
    ),
    (
        "games",
        &[
            "wallet",
            "realtime",
            "ledger",
            "http",
            "db",
            "auth",
            "idempotency_key",
            "telemetry",
            "throttle",
            "error",
            "secret",
            "cache",
            "ids",
            "settings",
            "striped_lock",
            "output",
        ],
    ),
    (
        "exchange",
        &[
            "users",
            "wallet",
            "audit_log",
            "realtime",
            "saga",
            "ledger",
            "http",
            "db",
            "auth",
            "idempotency_key",
            "telemetry",
            "error",
            "secret",
            "ids",
            "settings",
            "striped_lock",
            "combiner",
            "output",
        ],
    ),
    ("saga", &["ledger", "db", "telemetry", "tasks", "error", "combiner", "ids"]),
    ("grpc", &["http", "auth", "idempotency_key", "error"]),
    (
        "users",
        &[
            "audit_log",
            "http",
            "db",
            "auth",
            "combiner",
            "idempotency_key",
            "telemetry",
            "throttle",
            "error",
            "secret",
            "ids",
            "settings",
            "output",
        ],
    ),
    (
        "api_keys",
        &[
            "audit_log",
            "http",
            "db",
            "auth",
            "telemetry",
            "error",
            "secret",
            "cache",
            "ids",
            "output",
        ],
    ),
    (
        "wallet",
        &[
            "ledger",
            "http",
            "db",
            "auth",
            "idempotency_key",
            "telemetry",
            "error",
            "secret",
            "cache",
            "ids",
            "striped_lock",
        ],
    ),
    ("audit_log", &["http", "db", "auth", "telemetry", "error", "output"]),
    (
        "ops",
        &["ledger", "http", "db", "telemetry", "tasks", "error", "secret", "settings", "output"],
    ),
    (
        "realtime",
        &["ledger", "http", "auth", "telemetry", "tasks", "error", "secret", "ids", "settings"],
    ),
    (
        "ledger",
        &[
            "db",
            "idempotency_key",
            "telemetry",
            "tasks",
            "error",
            "secret",
            "cache",
            "settings",
            "output",
        ],
    ),
    ("http", &["db", "auth", "telemetry", "tasks", "error", "settings", "web", "ids"]),
    ("db", &["telemetry", "error", "secret", "settings"]),
    ("throttle", &["db", "auth", "error"]),
    ("jobs", &["db", "telemetry", "tasks", "error"]),
    ("auth", &["telemetry", "error", "secret", "ids"]),
    ("idempotency_key", &["error", "secret"]),
    ("telemetry", &[]),
    ("tasks", &[]),
    ("error", &[]),
    ("secret", &[]),
    ("cache", &[]),
    ("combiner", &["error"]),
    ("ids", &[]),
    ("output", &[]),
    ("settings", &[]),
    ("striped_lock", &[]),
    ("web", &[]),
];

/// Returns the floor of a module; 1 is the lowest.
fn floor(module: &str) -> usize {
    let index = FLOORS.iter().position(|(_, modules)| modules.contains(&module));
    FLOORS.len() - index.unwrap_or_else(|| panic!("the module {module} has no floor"))
}

/// Returns the top-level module of a file of `src/`.
fn module_of(path: &Path) -> String {
    let first = path.components().nth(1).unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Returns the names after `crate::` or `revwallet::` in a line of code, including those in braces.
fn imports(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "revwallet::"] {
        for (start, _) in line.match_indices(root) {
            let rest = &line[start + root.len()..];
            let list = rest.strip_prefix('{').and_then(|list| list.split('}').next());
            for path in list.unwrap_or(rest).split(',').take(if list.is_some() { 99 } else { 1 }) {
                let name: String =
                    path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn modules_import_only_from_floors_below_their_own() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut used = BTreeSet::new();
    let mut violations = String::new();
    for (path, text) in files("src", "rs") {
        let module = module_of(&path);
        if ["lib", "bin"].contains(&module.as_str()) {
            continue;
        }
        let may = allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not listed"));
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            for name in imports(line).into_iter().filter(|name| *name != module) {
                if may.contains(&name.as_str()) {
                    used.insert((module.clone(), name));
                } else {
                    writeln!(
                        violations,
                        "{}:{}: {module} imports {name}",
                        path.display(),
                        number + 1
                    )
                    .unwrap();
                }
            }
        }
    }
    assert!(violations.is_empty(), "a module imports one that it may not import:\n{violations}");
    for (module, may) in MAY_IMPORT {
        for name in *may {
            let is_used = used.contains(&((*module).to_owned(), (*name).to_owned()));
            assert!(is_used, "{module} may import {name}, but does not");
        }
    }
}

#[test]
fn every_permitted_import_is_from_a_lower_floor() {
    for (module, may) in MAY_IMPORT {
        for name in *may {
            let is_command_line = (*module, *name) == ("main", "cli");
            assert!(
                is_command_line || floor(name) < floor(module),
                "{module} (floor {}) may import {name} (floor {})",
                floor(module),
                floor(name)
            );
        }
    }
}

#[test]
fn the_documentation_shows_the_floors() {
    let mut picture = String::from("```mermaid\ngraph TD\n");
    for (index, (title, modules)) in FLOORS.iter().enumerate() {
        let number = FLOORS.len() - index;
        writeln!(picture, "  subgraph floor{number}[\"{number}: {title}\"]\n    direction LR")
            .unwrap();
        for module in *modules {
            writeln!(picture, "    {module}").unwrap();
        }
        writeln!(picture, "  end").unwrap();
    }
    for number in (2..=FLOORS.len()).rev() {
        writeln!(picture, "  floor{number} --> floor{}", number - 1).unwrap();
    }
    picture.push_str("```\n\n| floor | module | imports |\n|---|---|---|\n");
    let allowed: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    for (index, (_, modules)) in FLOORS.iter().enumerate() {
        for module in *modules {
            let imports: Vec<String> =
                allowed[module].iter().map(|name| format!("`{name}`")).collect();
            let number = FLOORS.len() - index;
            writeln!(picture, "| {number} | `{module}` | {} |", imports.join(" ")).unwrap();
        }
    }
    assert_section_up_to_date("docs/architecture.md", "floors", &picture);
}

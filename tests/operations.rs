//! Documents for operators against the code: commands, options, settings, files, links, log events.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use revwallet::cli::Cli;

/// Documents whose commands must work unchanged.
const DOCUMENTS: [&str; 2] = ["docs/operations.md", "README.md"];

/// Folders whose files documents may name.
const FOLDERS: [&str; 14] = [
    "alertmanager/",
    "alloy/",
    "compose/",
    "docs/",
    "grafana/",
    "kind/",
    "loki/",
    "migrations/",
    "nginx/",
    "prometheus/",
    "scripts/",
    "src/",
    "tests/",
    ".github/",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} does not exist", path.display()))
}

/// Returns the code of a Markdown text: inline code, and the lines of code blocks.
fn code(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            block = !block;
        } else if block {
            // A comment contains no command.
            let line = line.split(" #").next().unwrap_or_default();
            match found.last_mut() {
                Some(before) if before.ends_with('\\') => {
                    before.pop();
                    before.push_str(line);
                }
                _ => found.push(line.to_owned()),
            }
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// Splits code into words.
fn words(code: &str) -> Vec<&str> {
    let is_separator = |c: char| c.is_whitespace() || "()'\",;".contains(c);
    code.split(is_separator).filter(|word| !word.is_empty()).collect()
}

/// Returns the options of a command, global ones included, and whether each takes a value.
fn options(command: &Command) -> BTreeMap<String, bool> {
    let program = Cli::command();
    let mut found = BTreeMap::from([("--help".to_owned(), false)]);
    for argument in command.get_arguments().chain(program.get_arguments()) {
        if let Some(name) = argument.get_long() {
            found.insert(format!("--{name}"), argument.get_action().takes_values());
        }
    }
    found
}

/// Asserts that the program accepts the words after `revwallet`.
fn assert_accepted_by_program(place: &str, words: &[&str]) {
    let mut command = &Cli::command();
    let mut known = options(command);
    let mut words = words.iter().take_while(|word| !["|", "&&", "=", ">"].contains(*word));
    while let Some(word) = words.next() {
        if word.starts_with("--") {
            let option = word.split('=').next().unwrap();
            let takes_value = known.get(option).copied();
            let takes_value =
                takes_value.unwrap_or_else(|| panic!("{place}: {option} does not exist"));
            if takes_value && !word.contains('=') {
                words.next();
            }
        } else if let Some(next) = command.find_subcommand(word) {
            command = next;
            // Options of the commands above are global.
            known.extend(options(command));
        } else {
            let has_positionals = command.get_positionals().next().is_some();
            assert!(has_positionals, "{place}: the command {word} does not exist");
        }
    }
}

/// Returns whether the words after `revwallet` are a command, rather than prose.
fn is_command(words: &[&str]) -> bool {
    let first = words.first().unwrap_or(&"");
    first.starts_with("--") || Cli::command().find_subcommand(first).is_some()
}

#[test]
fn commands_of_the_program_exist() {
    for document in DOCUMENTS {
        let mut seen = 0;
        for line in code(&read(document)) {
            let words = words(&line);
            for (at, word) in words.iter().enumerate() {
                let following = &words[at + 1..];
                if (*word == "revwallet" && is_command(following)) || *word == "migrate" && at > 0 {
                    assert_accepted_by_program(&format!("{document}: {line}"), following);
                    seen += 1;
                }
            }
        }
        assert!(seen > 0, "{document} names no command");
    }
}

#[test]
fn an_unknown_command_is_detected() {
    let is_refused = |line: &'static str| {
        let words = words(line);
        std::panic::catch_unwind(|| assert_accepted_by_program("a test", &words[1..])).is_err()
    };
    assert!(is_refused("revwallet verify --anchors 1:2"));
    assert!(is_refused("revwallet verfy"));
    assert!(!is_refused("revwallet api-key revoke 5"));
    assert!(!is_refused("revwallet verify --anchor=1:2 --data-dir x"));
}

#[test]
fn scripts_exist_and_accept_their_options() {
    for document in DOCUMENTS {
        for line in code(&read(document)) {
            let words = words(&line);
            let Some(at) = words.iter().position(|word| word.starts_with("scripts/")) else {
                continue;
            };
            let script = words[at].split('{').next().unwrap();
            if script.ends_with('/') {
                continue;
            }
            // Some scripts pass their options to a library function.
            let mut text = read(script);
            for lib in files("scripts/lib") {
                text.push_str(&std::fs::read_to_string(lib).unwrap());
            }
            let program_options = options(&Cli::command());
            for word in words[at + 1..].iter().filter(|word| word.starts_with("--")) {
                let option = word.split('=').next().unwrap();
                let known = text.contains(option)
                    || script == "scripts/run" && program_options.contains_key(option);
                assert!(known, "{document}: {script} does not accept {option}: {line}");
            }
        }
    }
}

#[test]
fn every_script_answers_help_without_doing_anything() {
    let folder = std::env::temp_dir().join(format!("revwallet-help-{}", std::process::id()));
    let (programs, home) = (folder.join("bin"), folder.join("home"));
    std::fs::create_dir_all(&programs).unwrap();
    std::fs::create_dir_all(&home).unwrap();
    // All that the answer needs: anything else that a script runs is missing, and fails it.
    for name in ["bash", "dirname", "env", "python3", "sed"] {
        let found = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
        let found = found.iter().find(|path| path.exists()).unwrap();
        std::os::unix::fs::symlink(found, programs.join(name)).unwrap();
    }
    for script in files("scripts") {
        let name = script.file_name().unwrap().to_str().unwrap();
        for option in ["--help", "-h"] {
            let mut command = std::process::Command::new(&script);
            command.arg(option).env_clear().env("PATH", &programs).env("HOME", &home);
            let output = command.current_dir(&home).output().unwrap();

            let (stdout, stderr) = (output.stdout, String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success() && stderr.is_empty(), "{name} {option}: {stderr}");
            let usage = format!("Usage: scripts/{name}");
            assert!(String::from_utf8_lossy(&stdout).contains(&usage), "{name} {option}");
        }
    }
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0, "a script left a file");
    std::fs::remove_dir_all(&folder).unwrap();
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// Returns the settings of the program, and those that scripts and compose files read.
fn settings() -> BTreeSet<String> {
    let command = Cli::command();
    let variables = command.get_arguments().filter_map(clap::Arg::get_env);
    let mut known: BTreeSet<String> =
        variables.map(|name| name.to_str().unwrap().to_owned()).collect();
    let compose = files(".")
        .into_iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("docker-compose"));
    for path in compose.chain(files("scripts")).chain(files("scripts/lib")) {
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        known.extend(named_settings(&text));
    }
    known
}

/// Returns every word that starts like a setting.
fn named_settings(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    words.filter(|word| word.starts_with("REVWALLET_") && !word.ends_with('_')).map(str::to_owned)
}

#[test]
fn settings_exist() {
    let known = settings();
    for document in DOCUMENTS {
        for name in named_settings(&read(document)) {
            assert!(known.contains(&name), "{document}: {name} is not a setting");
        }
    }
}

#[test]
fn files_and_links_exist() {
    for document in documents() {
        let text = std::fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        let place = document.strip_prefix(root()).unwrap().display();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") || link.starts_with('/') {
                continue;
            }
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { folder.join(path) };
            assert!(target.exists(), "{place}: the target of {link} does not exist");
            if !heading.is_empty() {
                let target = std::fs::read_to_string(&target).unwrap();
                assert!(
                    headings(&target).contains(heading),
                    "{place}: the target of {link} does not exist"
                );
            }
        }
        for line in code(&text) {
            for word in words(&line) {
                let word = word.split([':', '{', '*', '<']).next().unwrap().trim_end_matches('.');
                let is_path = FOLDERS.iter().any(|folder| word.starts_with(folder));
                assert!(!is_path || root().join(word).exists(), "{place}: {word} does not exist");
            }
        }
    }
}

fn documents() -> Vec<PathBuf> {
    let mut documents: Vec<PathBuf> = DOCUMENTS.iter().map(|path| root().join(path)).collect();
    documents.extend(files("docs/runbooks"));
    for path in [
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/architecture.md",
        "docs/security.md",
        "docs/observability.md",
        "kind/README.md",
    ] {
        documents.extend(Some(root().join(path)).filter(|path| path.exists()));
    }
    documents
}

/// Returns the anchors of all headings.
fn headings(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('#'));
    lines
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|line| line.replace(' ', "-").replace(|c: char| !c.is_alphanumeric() && c != '-', ""))
        .collect()
}

#[test]
fn log_events_exist() {
    let known = read("docs/observability.md");
    for document in DOCUMENTS {
        for event in read(document).split("event=\"").skip(1) {
            let event = event.split('"').next().unwrap();
            assert!(
                known.contains(&format!("| `{event}` |")),
                "{document}: the event {event} does not exist"
            );
        }
    }
}

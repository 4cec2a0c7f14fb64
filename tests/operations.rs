//! Documents against the code: commands, options, settings, files, links, log events.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use revwallet::cli::Cli;

/// Folders of documents.
const DOCUMENTS: [&str; 4] = ["docs", "docs/guides", "docs/runbooks", "kind"];

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

/// Joins the words of each quoted value, so that it counts as one word.
fn with_quoted_words(line: &str) -> String {
    let parts = line.split('"').enumerate();
    let parts =
        parts.map(|(n, part)| if n % 2 == 1 { part.replace(' ', "_") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("\"")
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
    for document in documents() {
        let mut seen = 0;
        for line in code(&read(&document)) {
            // SQL compares with the name of the program.
            let line = with_quoted_words(&line).replace("'revwallet'", "''");
            let words = words(&line);
            for (at, word) in words.iter().enumerate() {
                let following = &words[at + 1..];
                // Such as `--namespace revwallet`.
                let is_value = at > 0 && words[at - 1].starts_with("--");
                // The compose file has a service `migrate`.
                let is_service = *word == "migrate" && at > 0 && words[at - 1] != "revwallet";
                if *word == "revwallet" && !is_value && is_command(following) || is_service {
                    assert_accepted_by_program(&format!("{document}: {line}"), following);
                    seen += 1;
                }
            }
        }
        let is_for_operators = ["docs/operations.md", "README.md"].contains(&document.as_str());
        assert!(seen > 0 || !is_for_operators, "{document} names no command");
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

/// Options of other programs that documents name by themselves, with the program.
const OTHER_OPTIONS: [(&str, &str); 4] = [
    ("--cap-drop", "docker"),
    ("--env-file", "docker"),
    ("--storage", "prometheus"),
    ("--web", "prometheus"),
];

/// Adds the options of a command and of all its subcommands.
fn add_options(command: &Command, found: &mut BTreeSet<String>) {
    found.extend(options(command).into_keys());
    for subcommand in command.get_subcommands() {
        add_options(subcommand, found);
    }
}

#[test]
fn options_of_the_program_exist() {
    let mut known = BTreeSet::new();
    add_options(&Cli::command(), &mut known);
    let mut others = String::new();
    for path in files("scripts").into_iter().chain(files("scripts/lib")) {
        others.push_str(&std::fs::read_to_string(path).unwrap());
    }
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        // An option without a command, as in prose and tables.
        for option in text.split("`--").skip(1) {
            let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '-';
            let option = format!("--{}", option.split(is_end).next().unwrap());
            let is_other = OTHER_OPTIONS.iter().any(|(name, _)| *name == option);
            let is_known = known.contains(&option) || others.contains(&option) || is_other;
            assert!(is_known, "{document}: {option} does not exist");
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen} options in all documents");
}

#[test]
fn scripts_exist_and_accept_their_options() {
    for document in documents() {
        for line in code(&read(&document)) {
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

/// Adds the environment variables of a command and of all its subcommands.
fn add_variables(command: &Command, found: &mut BTreeSet<String>) {
    let variables = command.get_arguments().filter_map(clap::Arg::get_env);
    found.extend(variables.map(|name| name.to_str().unwrap().to_owned()));
    for subcommand in command.get_subcommands() {
        add_variables(subcommand, found);
    }
}

/// Returns the settings of the program, and those that scripts and compose files read.
fn settings() -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    add_variables(&Cli::command(), &mut known);
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
    for document in documents() {
        for name in named_settings(&read(&document)) {
            assert!(known.contains(&name), "{document}: {name} is not a setting");
        }
    }
}

#[test]
fn files_and_links_exist() {
    for place in documents() {
        let document = root().join(&place);
        let text = read(&place);
        let folder = document.parent().unwrap();
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

/// Returns the paths of all documents.
fn documents() -> Vec<String> {
    let single = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root().join(name));
    let found = DOCUMENTS.into_iter().flat_map(files).chain(single);
    let found = found.filter(|path| path.extension().is_some_and(|own| own == "md"));
    let found = found.map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    found.collect()
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
    for document in documents() {
        for event in read(&document).split("event=\"").skip(1) {
            let event = event.split('"').next().unwrap();
            assert!(
                known.contains(&format!("| `{event}` |")),
                "{document}: the event {event} does not exist"
            );
        }
    }
}

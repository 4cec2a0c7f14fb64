//! The runbooks: the same sections in each, and commands, queries, panels, settings and log events that exist.

use std::collections::BTreeSet;
use std::fmt::Write;

use clap::{CommandFactory, error::ErrorKind};
use revwallet::cli::Cli;

use crate::generated_files::root;
use crate::harness::program::Folder;
use crate::lint::is_known;
use crate::source::alerts;
use crate::source::dashboards;
use crate::source::promql;
use crate::tools;

/// Sections of each runbook.
const SECTIONS: [&str; 4] =
    ["What it means", "What to look at first", "What to do", "How to know that it is over"];

/// Runbooks of faults that occur neither with Compose nor on Kubernetes.
const LOCAL_ONLY: [&str; 1] = ["EmbeddedPostgresRestarted"];

struct Runbook {
    name: String,
    text: String,
}

fn runbooks() -> Vec<Runbook> {
    let entries = std::fs::read_dir(root().join("docs/runbooks")).unwrap();
    let runbook = |path: std::path::PathBuf| Runbook {
        name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
        text: std::fs::read_to_string(&path).unwrap(),
    };
    entries.map(|entry| runbook(entry.unwrap().path())).collect()
}

impl Runbook {
    /// Text of a section.
    fn section(&self, title: &str) -> &str {
        let (_, rest) = self.text.split_once(&format!("\n## {title}\n")).unwrap();
        rest.split("\n## ").next().unwrap()
    }

    /// Lines of the code blocks in this language.
    fn code(&self, language: &str) -> Vec<String> {
        let fence = format!("```{language}\n");
        let mut lines = Vec::new();
        for block in self.text.split(&fence).skip(1) {
            let block = block.split("```").next().unwrap();
            lines.extend(block.lines().map(|line| line.trim().to_owned()));
        }
        lines.retain(|line| !line.is_empty());
        lines
    }
}

/// Text without its code, in blocks and inline.
fn prose(text: &str) -> String {
    let outside_blocks: String = text.split("```").step_by(2).collect();
    outside_blocks.split('`').step_by(2).collect()
}

/// Inline code of a text.
fn inline_code(text: &str) -> Vec<String> {
    let outside_blocks: String = text.split("```").step_by(2).collect();
    outside_blocks.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Words of a shell command up to a pipe or the next command; quoted words keep their spaces.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            (' ', None) => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words.into_iter().take_while(|word| !["|", "&&"].contains(&word.as_str())).collect()
}

#[test]
fn every_runbook_has_the_same_sections() {
    for runbook in runbooks() {
        let name = &runbook.name;
        assert!(runbook.text.starts_with(&format!("# {name}\n\n## ")), "{name}");
        let sections: Vec<&str> =
            runbook.text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(sections, SECTIONS, "{name}");
        for section in SECTIONS {
            assert!(runbook.section(section).trim().len() > 30, "{name}: {section} is too short");
        }
        let is_measured = runbook.section(SECTIONS[3]).contains("```promql\n");
        assert!(is_measured || name == "CredentialInLogs", "{name} has no query for its end");
    }
}

#[test]
fn every_runbook_leads_to_the_dashboard_of_its_alert() {
    let titles: BTreeSet<&str> = dashboards::all()
        .iter()
        .flat_map(|dashboard| dashboard.panels.iter().map(|panel| panel.title))
        .collect();
    for runbook in runbooks() {
        let name = &runbook.name;
        let first = runbook.section(SECTIONS[1]);
        let alert = alerts::all().find(|alert| alert.name == name.as_str());
        let own = match name.as_str() {
            "ErrorBudgetBurn" => "revwallet-slo",
            "CredentialInLogs" => "revwallet-logs",
            _ => alert.unwrap_or_else(|| panic!("no alert links to {name}")).dashboard,
        };
        assert!(first.contains(&format!("(/grafana/d/{own}")), "{name} does not link to {own}");
        for title in prose(first).split('"').skip(1).step_by(2) {
            assert!(titles.contains(title), "{name}: the panel {title:?} does not exist");
        }
        for (before, after) in runbook
            .text
            .match_indices("](/grafana/d/")
            .map(|(at, mark)| (&runbook.text[..at], &runbook.text[at + mark.len()..]))
        {
            let uid = after.split([')', '?']).next().unwrap();
            let dashboard = dashboards::all().into_iter().find(|dashboard| dashboard.uid == uid);
            let dashboard = dashboard.unwrap_or_else(|| panic!("{name}: {uid} does not exist"));
            let (before, _) = before.rsplit_once('[').unwrap();
            let Some(before) = before
                .strip_suffix("\" on the dashboard ")
                .or_else(|| before.strip_suffix("\" on "))
            else {
                continue;
            };
            let (_, title) = before.rsplit_once('"').unwrap();
            let has_panel = dashboard.panels.iter().any(|panel| panel.title == title);
            assert!(has_panel, "{name}: {uid} has no panel {title:?}");
        }
    }
}

#[test]
fn every_runbook_has_commands_for_compose_and_for_kubernetes() {
    for runbook in runbooks() {
        let name = &runbook.name;
        let commands = runbook.code("sh");
        let has = |program: &str| commands.iter().any(|command| command.contains(program));
        if LOCAL_ONLY.contains(&name.as_str()) {
            assert!(!has("docker compose ") && !has("kubectl "), "{name}");
            continue;
        }
        assert!(has("docker compose ") && has("kubectl --namespace revwallet "), "{name}");
        // A block for one of them without the other leaves half of the operators without a command.
        for block in runbook.text.split("```sh\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let (compose, kubernetes) =
                (block.contains("# Docker Compose"), block.contains("# Kubernetes"));
            assert_eq!(compose, kubernetes, "{name}: {block}");
            let is_named = compose || !block.contains("docker ") && !block.contains("kubectl ");
            assert!(is_named, "{name}: {block}");
        }
    }
}

#[test]
fn every_command_is_accepted_by_the_program() {
    let mut count = 0;
    for runbook in runbooks() {
        for command in runbook.code("sh").iter().chain(&inline_code(&runbook.text)) {
            let words = shell_words(command);
            let starts =
                ["/usr/local/bin/revwallet", "target/release/revwallet", "revwallet", "migrate"];
            let Some(at) = words.iter().position(|word| starts.contains(&word.as_str())) else {
                continue;
            };
            let is_name = words[at] == "revwallet" && at > 0;
            let follows_options = words[at] == "migrate" && !command.contains(" run --rm migrate");
            if is_name || follows_options {
                continue;
            }
            let words = words[at + 1..].iter().map(|word| match word.as_str() {
                "N" | "ID" => "1".to_owned(),
                "SEQ:HASH" => format!("1:{}", "0".repeat(64)),
                _ => word.clone(),
            });
            let parsed = Cli::command()
                .try_get_matches_from(std::iter::once("revwallet".to_owned()).chain(words));
            if let Err(error) = parsed {
                assert_eq!(error.kind(), ErrorKind::DisplayVersion, "{}: {error}", runbook.name);
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
}

#[test]
fn every_flag_and_setting_exists() {
    let command = Cli::command();
    let flags: BTreeSet<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
    let compose = std::fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let mut known: BTreeSet<String> = command
        .get_arguments()
        .filter_map(|argument| Some(argument.get_env()?.to_str()?.to_owned()))
        .collect();
    known.extend(settings(&compose));
    for Runbook { name, text } in runbooks() {
        for code in inline_code(&text) {
            let Some(flag) = code.strip_prefix("--").and_then(|flag| flag.split(' ').next()) else {
                continue;
            };
            let is_known = flags.contains(flag) || compose.contains(&format!("- --{flag}="));
            assert!(is_known, "{name}: unknown flag --{flag}");
        }
        for setting in settings(&text) {
            assert!(known.contains(&setting), "{name}: unknown setting {setting}");
        }
    }
}

/// Every word that begins like a setting.
fn settings(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
    words.filter(|word| word.starts_with("REVWALLET_") && !word.ends_with('_')).map(str::to_owned)
}

#[test]
fn every_log_event_exists() {
    let events = crate::doc_tables::events();
    for Runbook { name, text } in runbooks() {
        let quoted = text.split("\"event\":\"").chain(text.split("event=\""));
        for event in quoted.filter(|rest| !rest.starts_with('#')) {
            let event = event.split('"').next().unwrap();
            assert!(events.contains(&format!("`{event}`")), "{name}: unknown log event {event}");
        }
    }
}

#[test]
fn every_query_is_valid_and_reads_known_metrics() {
    let mut rules = String::from("groups:\n  - name: runbooks\n    rules:\n");
    for runbook in runbooks() {
        for query in runbook.code("promql") {
            for metric in promql::metric_names(&query) {
                assert!(is_known(&metric), "{}: unknown metric {metric}", runbook.name);
            }
            let query = serde_json::to_string(&query).unwrap();
            let name = &runbook.name;
            writeln!(rules, "      - {{ record: 'runbook:{name}', expr: {query} }}").unwrap();
        }
    }
    let folder = Folder::new();
    let file = folder.0.join("queries.yml");
    std::fs::write(&file, rules).unwrap();
    // Duplicates are a lint: several runbooks end with the same query.
    let checked =
        tools::run("promtool", &["check", "rules", "--lint=none", file.to_str().unwrap()]);
    assert!(checked.is_ok(), "{}", checked.unwrap_err());
}

//! The tables of `docs/observability.md`: promises, alerts, panels; and from the code, log events and spans.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::files::root;
use crate::source::alerts::ALERTS;
use crate::source::dashboards;
use crate::source::slos::SLOS;

/// In a table, a pipe would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace("{{ ", "").replace(" }}", "").replace("$labels.", "")
}

pub fn promises() -> String {
    let mut out = String::from("| promise | what it means | over thirty days |\n|---|---|---|\n");
    for slo in SLOS {
        writeln!(out, "| `{}` | {} | {} % |", slo.name, slo.meaning, round(slo.objective * 100.0))
            .unwrap();
    }
    out
}

fn round(percent: f64) -> String {
    let text = format!("{percent:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub fn alerts() -> String {
    let mut out = String::from("| alert | | when | what it says |\n|---|---|---|---|\n");
    for alert in ALERTS {
        let after = if alert.lasts == "0s" {
            "at once".to_owned()
        } else {
            format!("after {}", alert.lasts)
        };
        writeln!(
            out,
            "| [{0}](runbooks/{0}.md) | {1} | {after} | {2} |",
            alert.name,
            alert.severity,
            cell(alert.summary)
        )
        .unwrap();
    }
    out.push_str("| [ErrorBudgetBurn](runbooks/ErrorBudgetBurn.md) | page, ticket | after 2m, 15m | a promise burns its budget of thirty days too fast |\n");
    out.push_str(
        "| Watchdog | none | always | the way of alerts works, as long as this arrives |\n",
    );
    out
}

/// What to read when somebody is called, the most urgent first: as the alerts are ordered.
pub fn runbooks() -> String {
    let mut out = String::from("| runbook | | what it means |\n|---|---|---|\n");
    let mut row = |name: &str, severity: &str| {
        let text =
            std::fs::read_to_string(root().join(format!("docs/runbooks/{name}.md"))).unwrap();
        let meaning = text.split("## What it means\n\n").nth(1).unwrap();
        let sentence = meaning.split_inclusive(". ").next().unwrap().lines().next().unwrap().trim();
        writeln!(out, "| [{name}](runbooks/{name}.md) | {severity} | {} |", cell(sentence))
            .unwrap();
    };
    for severity in ["page", "ticket"] {
        for alert in ALERTS.iter().filter(|alert| alert.severity == severity) {
            row(alert.name, severity);
        }
        match severity {
            "page" => row("ErrorBudgetBurn", "page, ticket"),
            _ => row("CredentialInLogs", "ticket"),
        }
    }
    out
}

pub fn panels() -> String {
    let mut out = String::from("| dashboard | what it is for | panels |\n|---|---|---|\n");
    for dashboard in dashboards::all() {
        let titles: Vec<&str> = dashboard.panels.iter().map(|panel| panel.title).collect();
        writeln!(
            out,
            "| {} (`{}`) | {} | {} |",
            dashboard.title,
            dashboard.uid,
            dashboard.description,
            titles.join(", ")
        )
        .unwrap();
    }
    out
}

/// Every `event = "..."` in the code, and where it is said.
pub fn events() -> String {
    let mut out = String::from("| event | said in |\n|---|---|\n");
    for (event, place) in found("event = \"") {
        writeln!(out, "| `{event}` | `{place}` |").unwrap();
    }
    out
}

/// Every span that the code opens, and where.
pub fn spans() -> String {
    let mut out = String::from("| span | opened in |\n|---|---|\n");
    for (span, place) in found("span!(") {
        writeln!(out, "| `{span}` | `{place}` |").unwrap();
    }
    out
}

/// The quoted text that follows behind a mark, with the file it is in; what a file's own tests say is not the program's.
fn found(mark: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(&root().join("src"), &mut |path, text| {
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (at, _) in program.match_indices(mark) {
            let behind = &program[at + mark.len()..];
            let name = if mark.ends_with('"') {
                behind.split('"').next()
            } else {
                behind.split('"').nth(1)
            };
            let name = name.unwrap_or_default();
            let is_name = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
            if is_name {
                let place = path.strip_prefix(root()).unwrap().display().to_string();
                found.entry(name.to_owned()).or_insert(place);
            }
        }
    });
    found
}

fn walk(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            walk(&path, see);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            see(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

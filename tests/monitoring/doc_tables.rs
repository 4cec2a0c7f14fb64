//! Tables of `docs/observability.md`: objectives, alerts and panels from their source; log events and spans from the code.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::generated_files::root;
use crate::source::alerts;
use crate::source::dashboards;
use crate::source::rules::WATCHDOG_SUMMARY;
use crate::source::slos::SLOS;

/// Escapes text for a table cell, where a pipe would end it, and strips the template syntax of Prometheus.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace("{{ ", "").replace(" }}", "").replace("$labels.", "")
}

pub fn slos() -> String {
    let mut out =
        String::from("| objective | good events | target over 30 days |\n|---|---|---|\n");
    for slo in SLOS {
        writeln!(
            out,
            "| `{}` | {} | {} % |",
            slo.name,
            slo.description,
            round(slo.objective * 100.0)
        )
        .unwrap();
    }
    out
}

fn round(percent: f64) -> String {
    let text = format!("{percent:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub fn alerts() -> String {
    let mut out = String::from("| alert | severity | fires | summary |\n|---|---|---|---|\n");
    for alert in alerts::all() {
        let after = if alert.pending_for == "0s" {
            "immediately".to_owned()
        } else {
            format!("after {}", alert.pending_for)
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
    out.push_str("| [ErrorBudgetBurn](runbooks/ErrorBudgetBurn.md) | page, ticket | after 2m, 15m | an objective burns its 30-day error budget too fast |\n");
    writeln!(out, "| Watchdog | none | always | {WATCHDOG_SUMMARY} |").unwrap();
    out
}

/// Runbooks in the order of the alerts, the most urgent first.
pub fn runbooks() -> String {
    let mut out = String::from("| runbook | severity | meaning |\n|---|---|---|\n");
    let mut row = |name: &str, severity: &str| {
        let text =
            std::fs::read_to_string(root().join(format!("docs/runbooks/{name}.md"))).unwrap();
        let meaning = text.split("## What it means\n\n").nth(1).unwrap();
        let sentence = meaning.split_inclusive(". ").next().unwrap().lines().next().unwrap().trim();
        writeln!(out, "| [{name}](runbooks/{name}.md) | {severity} | {} |", cell(sentence))
            .unwrap();
    };
    for severity in ["page", "ticket"] {
        for alert in alerts::all().filter(|alert| alert.severity == severity) {
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
    let mut out = String::from("| dashboard | purpose | panels |\n|---|---|---|\n");
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

/// Every `event = "..."` in the code, with its source file.
pub fn events() -> String {
    let mut out = String::from("| event | logged in |\n|---|---|\n");
    for (event, file) in quoted_names("event = \"") {
        writeln!(out, "| `{event}` | `{file}` |").unwrap();
    }
    out
}

/// Every span that the code opens, with its source file.
pub fn spans() -> String {
    let mut out = String::from("| span | opened in |\n|---|---|\n");
    for (span, file) in quoted_names("span!(") {
        writeln!(out, "| `{span}` | `{file}` |").unwrap();
    }
    out
}

/// Quoted names that follow a mark in the source, each with its first file. Unit tests are left out.
fn quoted_names(mark: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    visit_sources(&root().join("src"), &mut |path, text| {
        let program = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (at, _) in program.match_indices(mark) {
            let rest = &program[at + mark.len()..];
            let name =
                if mark.ends_with('"') { rest.split('"').next() } else { rest.split('"').nth(1) };
            let name = name.unwrap_or_default();
            let is_name = !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || b"._".contains(&byte));
            if is_name {
                let file = path.strip_prefix(root()).unwrap().display().to_string();
                found.entry(name.to_owned()).or_insert(file);
            }
        }
    });
    found
}

/// Calls `visit` with each source file below a folder and its text; unit tests in files of their own are left out.
fn visit_sources(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            visit_sources(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && path.file_name().is_some_and(|name| name != "tests.rs")
        {
            visit(&path, &std::fs::read_to_string(&path).unwrap());
        }
    }
}

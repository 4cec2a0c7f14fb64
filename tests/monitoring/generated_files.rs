//! Comparison of the committed files with their source; `BLESS=1` regenerates them.

use std::path::{Path, PathBuf};

use crate::doc_tables;
use crate::rule_tests;
use crate::source::dashboards;
use crate::source::promql::TimeScale;
use crate::source::rules;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every generated file, with its expected content.
fn generated() -> Vec<(PathBuf, String)> {
    let mut files = vec![
        (PathBuf::from("prometheus/prometheus.yml"), rules::prometheus()),
        (PathBuf::from("prometheus/rules/slos.yml"), rules::slos(TimeScale::REAL)),
        (PathBuf::from("prometheus/rules/alerts.yml"), rules::alerts(TimeScale::REAL)),
        (PathBuf::from("prometheus/tests/alerts.yml"), rule_tests::alerts()),
        (PathBuf::from("prometheus/tests/slos.yml"), rule_tests::slos()),
    ];
    for dashboard in dashboards::all() {
        let path = format!("grafana/dashboards/{}/{}.json", dashboard.folder, dashboard.uid);
        files.push((path.into(), format!("{:#}\n", dashboard.json())));
    }
    files
}

#[test]
fn committed_files_match_their_source() {
    let bless = std::env::var_os("BLESS").is_some();
    for (path, expected) in generated() {
        let file = root().join(&path);
        if std::fs::read_to_string(&file).unwrap_or_default() == expected {
            continue;
        }
        assert!(
            bless,
            "{} is out of date; run: BLESS=1 cargo test --test monitoring",
            path.display()
        );
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, expected).unwrap();
    }
}

/// Compares the section of a document between two markers with its source, or regenerates it.
fn check_section(document: &str, section: &str, expected: &str) {
    let path = root().join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->"));
    let start = text.find(&begin).unwrap_or_else(|| panic!("{document} has no section {section}"))
        + begin.len();
    let stop = text.find(&end).unwrap();
    if text[start..stop] != *expected {
        let bless = std::env::var_os("BLESS").is_some();
        assert!(
            bless,
            "section {section} of {document} is out of date; run: BLESS=1 cargo test --test monitoring"
        );
        std::fs::write(&path, format!("{}{expected}{}", &text[..start], &text[stop..])).unwrap();
    }
}

/// A single test for all sections, since most of them are in the same document.
#[test]
fn documented_tables_match_their_source() {
    for (section, expected) in [
        ("slos", doc_tables::slos()),
        ("alerts", doc_tables::alerts()),
        ("panels", doc_tables::panels()),
        ("events", doc_tables::events()),
        ("spans", doc_tables::spans()),
    ] {
        check_section("docs/observability.md", section, &expected);
    }
    check_section("docs/operations.md", "runbooks", &doc_tables::runbooks());
}

#[test]
fn no_stale_generated_file_remains() {
    let known: Vec<PathBuf> = generated().into_iter().map(|(path, _)| path).collect();
    for folder in ["prometheus/rules", "prometheus/tests", "grafana/dashboards/revwallet"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path().strip_prefix(root()).unwrap().to_owned();
            assert!(
                known.contains(&path),
                "{} is not generated: remove it, or add it to the source",
                path.display()
            );
        }
    }
}

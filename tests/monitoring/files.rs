//! The files that are committed are what the source says, or `BLESS=1` makes them so.

use std::path::{Path, PathBuf};

use crate::source::dashboards;
use crate::source::promql::Pace;
use crate::source::rules;
use crate::tables;
use crate::units;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that is written, and its text.
fn written() -> Vec<(PathBuf, String)> {
    let mut files = vec![
        (PathBuf::from("prometheus/prometheus.yml"), rules::prometheus()),
        (PathBuf::from("prometheus/rules/slos.yml"), rules::slos(Pace::REAL)),
        (PathBuf::from("prometheus/rules/alerts.yml"), rules::alerts(Pace::REAL)),
        (PathBuf::from("prometheus/tests/alerts.yml"), units::alerts()),
        (PathBuf::from("prometheus/tests/slos.yml"), units::slos()),
    ];
    for dashboard in dashboards::all() {
        let path = format!("grafana/dashboards/{}/{}.json", dashboard.folder, dashboard.uid);
        files.push((path.into(), format!("{:#}\n", dashboard.json())));
    }
    files
}

#[test]
fn what_is_committed_is_what_the_source_says() {
    let bless = std::env::var_os("BLESS").is_some();
    for (path, expected) in written() {
        let place = root().join(&path);
        if std::fs::read_to_string(&place).unwrap_or_default() == expected {
            continue;
        }
        let told = "is not what tests/monitoring says; run: BLESS=1 cargo test --test monitoring";
        assert!(bless, "{} {told}", path.display());
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, expected).unwrap();
    }
}

/// Holds the part of a document between two markers against the source, or writes it.
fn part_held_against(document: &str, part: &str, expected: &str) {
    let path = root().join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {part} -->\n"), format!("<!-- end of {part} -->"));
    let start = text.find(&begin).unwrap_or_else(|| panic!("no part {part}")) + begin.len();
    let stop = text.find(&end).unwrap();
    if text[start..stop] != *expected {
        let bless = std::env::var_os("BLESS").is_some();
        assert!(
            bless,
            "{document} does not say what {part} there are; run: BLESS=1 cargo test --test monitoring"
        );
        std::fs::write(&path, format!("{}{expected}{}", &text[..start], &text[stop..])).unwrap();
    }
}

/// One test, since most parts are in one document.
#[test]
fn the_documentation_knows_everything() {
    for (part, expected) in [
        ("promises", tables::promises()),
        ("alerts", tables::alerts()),
        ("panels", tables::panels()),
        ("events", tables::events()),
        ("spans", tables::spans()),
    ] {
        part_held_against("docs/observability.md", part, &expected);
    }
    part_held_against("docs/operations.md", "runbooks", &tables::runbooks());
}

#[test]
fn nothing_is_left_of_what_was_written_before() {
    let known: Vec<PathBuf> = written().into_iter().map(|(path, _)| path).collect();
    for folder in ["prometheus/rules", "prometheus/tests", "grafana/dashboards/revwallet"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path().strip_prefix(root()).unwrap().to_owned();
            assert!(known.contains(&path), "{} is written by nobody", path.display());
        }
    }
}

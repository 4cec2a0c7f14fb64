//! Rules that the compiler does not check: layout of the source tree, and documents against the code.
//!
//! `BLESS=1 cargo test --test tidy` regenerates the parts of documents that come from the code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/floors.rs"]
mod floors;
#[path = "tidy/names.rs"]
mod names;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use revwallet::cli::Cli;
use revwallet::error::PROBLEMS;
use revwallet::telemetry::Metrics;

/// Maximum number of lines of a source file. A file should be split long before, where it has a second purpose.
const LINES_MAX: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns path and text of every file below `folder` with the given extension.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|own| own == extension) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file below {folder}");
    found
}

/// Returns path and text of every Rust file.
fn sources() -> Vec<(PathBuf, String)> {
    [files("src", "rs"), files("tests", "rs")].concat()
}

/// Asserts that a document is up to date, or writes it with `BLESS=1`.
fn assert_up_to_date(document: &str, current: &str, expected: &str) {
    if current == expected {
        return;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch of the test, not a setting of the program"
    )]
    let bless = std::env::var("BLESS").is_ok();
    assert!(bless, "{document} is out of date; run: BLESS=1 cargo test --test tidy");
    std::fs::write(root().join(document), expected).unwrap();
}

/// Asserts that a section of a document, between two markers, is up to date, or writes it with `BLESS=1`.
fn assert_section_up_to_date(document: &str, section: &str, expected: &str) {
    let current = std::fs::read_to_string(root().join(document)).unwrap();
    let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->"));
    let from =
        current.find(&begin).unwrap_or_else(|| panic!("no {begin} in {document}")) + begin.len();
    let to = current.find(&end).unwrap_or_else(|| panic!("no {end} in {document}"));
    let updated = format!("{}{expected}{}", &current[..from], &current[to..]);
    assert_up_to_date(document, &current, &updated);
}

#[test]
fn every_file_starts_with_a_doc_comment() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not start with `//! `", path.display());
    }
}

#[test]
fn no_file_is_too_long() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn sql_is_only_in_its_files() {
    let marks = ["sqlx::query", "insert into ", "delete from ", "for update"];
    for (path, text) in files("src", "rs") {
        let in_place = path.file_name().unwrap() == "sql.rs" || path.starts_with("src/db");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let code: String = code.collect::<Vec<_>>().join("\n");
        for mark in marks {
            assert!(in_place || !code.contains(mark), "{} contains `{mark}`", path.display());
        }
    }
}

#[test]
fn no_file_contains_unfinished_work() {
    for (path, text) in sources().into_iter().filter(|(path, _)| path != Path::new("tests/tidy.rs"))
    {
        for marker in ["TODO", "FIXME", "todo!(", "unimplemented!(", "#[ignore", "should_panic"] {
            assert!(!text.contains(marker), "{} contains {marker}", path.display());
        }
    }
}

#[test]
fn migrations_are_numbered_without_a_gap() {
    for (index, (path, _)) in files("migrations", "sql").iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(&format!("{:04}_", index + 1)), "{name}");
    }
}

#[test]
fn every_setting_is_in_the_example_file() {
    let mut text = String::from(
        "# Every setting with its default. Copy this file to .env and change what you need:\n\
         # scripts/run reads it. Each is also a flag, see `revwallet --help`.\n",
    );
    let command = Cli::command();
    let mut heading = "";
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env() else { continue };
        if argument.get_help_heading().unwrap_or_default() != heading {
            heading = argument.get_help_heading().unwrap();
            writeln!(text, "\n## {heading}").unwrap();
        }
        let default =
            argument.get_default_values().first().map_or("", |value| value.to_str().unwrap());
        writeln!(
            text,
            "\n# {}\n#{}={default}",
            argument.get_help().unwrap(),
            variable.to_str().unwrap()
        )
        .unwrap();
    }

    let current = std::fs::read_to_string(root().join(".env.example")).unwrap_or_default();
    assert_up_to_date(".env.example", &current, &text);
}

#[test]
fn every_setting_is_named_after_its_flag() {
    for argument in Cli::command().get_arguments().filter(|argument| argument.get_env().is_some()) {
        let flag = argument.get_long().unwrap();
        let variable = argument.get_env().unwrap().to_str().unwrap();
        let expected = format!("REVWALLET_{}", flag.replace('-', "_").to_uppercase());
        assert!(variable == expected || variable == "DATABASE_URL", "--{flag} has {variable}");
    }
}

#[test]
fn every_metric_is_in_the_documentation() {
    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in Metrics::DECLARED {
        let labels = metric.labels.join(", ");
        writeln!(
            table,
            "| `{}` | {} | {labels} | {} |",
            metric.name,
            metric.kind,
            metric.help.trim()
        )
        .unwrap();
    }
    assert_section_up_to_date("docs/observability.md", "metrics", &table);
}

#[test]
fn every_problem_is_in_the_documentation() {
    let mut table = String::from("| status | type | what to do |\n|---|---|---|\n");
    for problem in PROBLEMS {
        let status = problem.status.as_u16();
        writeln!(table, "| {status} | `/problems/{}` | {} |", problem.slug, problem.advice)
            .unwrap();
    }
    assert_section_up_to_date("docs/api.md", "problems", &table);
}

#[test]
fn the_readme_is_short() {
    let lines = std::fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines < 120, "README.md has {lines} lines");
}

#[test]
fn the_documentation_shows_the_states_of_an_order() {
    assert_section_up_to_date("docs/exchange.md", "states", &revwallet::saga::mermaid());
}

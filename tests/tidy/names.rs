//! Names and English: public type names are unique, and texts name the actor.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{files, sources};

/// Names that may exist in several modules, with the reason.
const SHARED_NAMES: &[(&str, &str)] = &[];

/// Openings of doc comments that name neither a thing nor an action.
const OPENINGS: &[&str] =
    &["What ", "Who ", "Whom ", "Where ", "Which ", "One ", "As ", "Nothing ", "Whoever "];

/// Words that stand for an actor without naming it.
const ACTORS: &[&str] = &["nobody", "somebody", "whoever", "whomever", "anybody's", "everybody"];

/// Name of the unprivileged account of most systems, which is not an actor.
const ACCOUNT: &str = "\"nobody\"";

/// Returns the types that a file declares with `pub`.
fn public_types(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix("pub") else { continue };
        let rest = rest.trim_start();
        let rest = if let Some(scope) = rest.strip_prefix('(') {
            scope.split_once(')').map_or("", |(_, rest)| rest).trim_start()
        } else {
            rest
        };
        for keyword in ["struct ", "enum ", "trait ", "type "] {
            if let Some(rest) = rest.strip_prefix(keyword) {
                names.push(rest.chars().take_while(|c| is_name(*c)).collect());
            }
        }
    }
    names
}

#[test]
fn public_type_names_are_unique() {
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (path, text) in files("src", "rs") {
        for name in public_types(&text) {
            places.entry(name).or_default().push(path.clone());
        }
    }
    let mut duplicates = String::new();
    for (name, paths) in places.iter().filter(|(_, paths)| paths.len() > 1) {
        let is_listed = SHARED_NAMES.iter().any(|(listed, _)| listed == name);
        if !is_listed {
            writeln!(duplicates, "{name}: {paths:?}").unwrap();
        }
    }
    assert!(duplicates.is_empty(), "give each type a more specific name:\n{duplicates}");
    for (name, reason) in SHARED_NAMES {
        let count = places.get(*name).map_or(0, Vec::len);
        assert!(count > 1 && !reason.is_empty(), "{name} is listed, but exists only once");
    }
}

/// Returns the doc comments of a file, each with the number of its first line.
fn doc_comments(text: &str) -> Vec<(usize, String)> {
    let mut comments: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let doc = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        match (doc, open) {
            (Some(doc), true) => {
                let (_, comment) = comments.last_mut().unwrap();
                comment.push('\n');
                comment.push_str(doc.trim());
            }
            (Some(doc), false) => comments.push((index + 1, doc.trim().to_owned())),
            (None, _) => {}
        }
        open = doc.is_some();
    }
    comments
}

#[test]
fn doc_comments_begin_with_a_noun_or_a_verb() {
    let mut violations = String::new();
    for (path, text) in sources() {
        for (line, comment) in doc_comments(&text) {
            if OPENINGS.iter().any(|opening| comment.starts_with(opening)) {
                let first = comment.lines().next().unwrap_or_default();
                writeln!(violations, "{}:{line}: {first}", path.display()).unwrap();
            }
        }
    }
    assert!(violations.is_empty(), "see CONTRIBUTING.md, \"English\":\n{violations}");
}

#[test]
fn texts_name_the_actor() {
    let documents = ["docs", "kind"].into_iter().flat_map(|folder| files(folder, "md"));
    let sources = sources().into_iter().filter(|(path, _)| !path.starts_with("tests/tidy"));
    let root = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| {
        let text = std::fs::read_to_string(super::root().join(name)).unwrap();
        (Path::new(name).to_owned(), text)
    });
    let mut violations = String::new();
    for (path, text) in documents.chain(sources).chain(root) {
        for (index, line) in text.lines().enumerate() {
            let lower = line.to_lowercase().replace(ACCOUNT, "");
            let words = lower.split(|c: char| !c.is_alphanumeric() && c != '\'');
            for word in words.filter(|word| ACTORS.contains(word)) {
                writeln!(violations, "{}:{}: {word}: {}", path.display(), index + 1, line.trim())
                    .unwrap();
            }
        }
    }
    assert!(violations.is_empty(), "name the client, the process, the owner ...:\n{violations}");
}

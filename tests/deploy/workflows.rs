//! Workflows: read by the programs that know them, and held against our own rules.

use std::os::unix::fs::PermissionsExt;

use crate::{bash, read, root, tools};

fn workflows() -> Vec<(String, String)> {
    let folder = root().join(".github/workflows");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| format!(".github/workflows/{}", entry.unwrap().file_name().display()))
        .map(|path| (path.clone(), read(&path)))
        .collect();
    found.sort();
    found
}

#[test]
fn actionlint_finds_nothing() {
    let said = bash(
        "tools=$(workflow_tools) && \"$tools/bin/actionlint\" -shellcheck= .github/workflows/*",
    );
    assert_eq!(said, Ok(String::new()));
}

#[test]
fn zizmor_finds_no_weakness() {
    let tools = tools("workflow_tools");
    let said =
        bash(&format!("'{tools}/bin/zizmor' --offline --no-progress --persona=pedantic .github"));
    assert!(said.is_ok(), "{}", said.unwrap_err());
}

#[test]
fn files_are_of_the_shape_that_github_wants() {
    let check = format!("'{}/bin/check-jsonschema' --builtin-schema", tools("workflow_tools"));
    let said = bash(&format!(
        "{check} vendor.github-workflows .github/workflows/* && \
         {check} vendor.dependabot .github/dependabot.yml"
    ));
    assert!(said.is_ok(), "{}", said.unwrap_err());
}

#[test]
fn every_action_is_pinned_by_its_hash() {
    let mut seen = 0;
    for (path, text) in workflows() {
        for line in text.lines().filter(|line| line.contains("uses:")) {
            let (_, action) = line.split_once("uses:").unwrap();
            // A workflow of this repository is as old as the one that calls it.
            if action.trim().starts_with("./") {
                continue;
            }
            let (name, rest) = action.trim().split_once('@').unwrap();
            let (hash, version) = rest
                .split_once(" # v")
                .unwrap_or_else(|| panic!("{path}: {name} does not say which version its hash is"));
            let hexadecimal = hash.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
            assert!(hash.len() == 40 && hexadecimal, "{path}: {name}@{hash}");
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{path}: {name}");
            seen += 1;
        }
    }
    assert!(seen > 3);
}

#[test]
fn a_workflow_has_no_right_but_those_a_job_asks_for() {
    for (path, text) in workflows() {
        let (_, rest) = text.split_once("\npermissions:").unwrap_or_else(|| panic!("{path}"));
        let first = rest.lines().next().unwrap().trim();
        let next = rest.lines().nth(1).unwrap().trim();
        assert!(first == "{}" || next == "contents: read", "{path}: {first}{next}");
        for line in text.lines().filter(|line| line.contains(": write")) {
            assert!(path.ends_with("cd.yml") && line.contains(" # to "), "{path}: {line}");
        }
        let jobs = text.matches("runs-on:").count();
        assert_eq!(text.matches("timeout-minutes:").count(), jobs, "{path}: a job has no end");
    }
}

#[test]
fn every_script_that_a_workflow_runs_is_there() {
    let mut seen = 0;
    for (path, text) in workflows() {
        for word in text.split(|c: char| c.is_whitespace() || "'\"()".contains(c)) {
            if !word.starts_with("scripts/") {
                continue;
            }
            let meta = std::fs::metadata(root().join(word))
                .unwrap_or_else(|_| panic!("{path}: there is no {word}"));
            assert!(meta.permissions().mode() & 0o111 != 0, "{word} cannot be run");
            seen += 1;
        }
    }
    assert!(seen > 4);
}

fn names(reference: &str) -> Result<String, String> {
    bash(&format!(
        "GITHUB_REPOSITORY=Some/Wallet GITHUB_SHA=1 GITHUB_ACTOR=a GITHUB_REF={reference} scripts/publish --dry-run"
    ))
}

#[test]
fn an_image_is_named_after_what_was_pushed() {
    let version = env!("CARGO_PKG_VERSION");
    let (minor, _) = version.rsplit_once('.').unwrap();
    let image = "--tag\nghcr.io/some/wallet";

    assert_eq!(names("refs/heads/main"), Ok(format!("{image}:main\n")));
    assert_eq!(
        names(&format!("refs/tags/v{version}")),
        Ok(format!("{image}:{version}\n{image}:{minor}\n{image}:latest\n"))
    );
    let other = names("refs/tags/v99.0.0").unwrap_err();
    assert!(other.contains("is not the version in Cargo.toml"), "{other}");
    assert!(names("refs/heads/feature").is_err(), "a branch is not published");
}

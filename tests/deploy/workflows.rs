//! GitHub workflows: linters, and rules of the project.

use std::os::unix::fs::PermissionsExt;

use crate::{bash, read, root, tools};

/// Returns the path and the text of each workflow.
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
fn actionlint_reports_no_problem() {
    let output = bash(
        "tools=$(workflow_tools) && \"$tools/bin/actionlint\" -shellcheck= .github/workflows/*",
    );
    assert_eq!(output, Ok(String::new()));
}

#[test]
fn zizmor_reports_no_weakness() {
    let tools = tools("workflow_tools");
    let output =
        bash(&format!("'{tools}/bin/zizmor' --offline --no-progress --persona=pedantic .github"));
    assert!(output.is_ok(), "{}", output.unwrap_err());
}

#[test]
fn workflows_match_the_schema_of_github() {
    let check = format!("'{}/bin/check-jsonschema' --builtin-schema", tools("workflow_tools"));
    let output = bash(&format!(
        "{check} vendor.github-workflows .github/workflows/* && \
         {check} vendor.dependabot .github/dependabot.yml"
    ));
    assert!(output.is_ok(), "{}", output.unwrap_err());
}

#[test]
fn every_action_is_pinned_by_its_hash() {
    let mut seen = 0;
    for (path, text) in workflows() {
        for line in text.lines().filter(|line| line.contains("uses:")) {
            let (_, action) = line.split_once("uses:").unwrap();
            // A workflow of this repository has the same revision as its caller.
            if action.trim().starts_with("./") {
                continue;
            }
            let (name, rest) = action.trim().split_once('@').unwrap();
            let (hash, version) = rest
                .split_once(" # v")
                .unwrap_or_else(|| panic!("{path}: {name} does not name the version of its hash"));
            let hexadecimal = hash.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
            assert!(hash.len() == 40 && hexadecimal, "{path}: {name}@{hash}");
            assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{path}: {name}");
            seen += 1;
        }
    }
    assert!(seen > 3);
}

#[test]
fn workflows_have_minimal_permissions_and_timeouts() {
    for (path, text) in workflows() {
        let (_, rest) = text.split_once("\npermissions:").unwrap_or_else(|| panic!("{path}"));
        let first = rest.lines().next().unwrap().trim();
        let next = rest.lines().nth(1).unwrap().trim();
        assert!(first == "{}" || next == "contents: read", "{path}: {first}{next}");
        for line in text.lines().filter(|line| line.contains(": write")) {
            assert!(path.ends_with("cd.yml") && line.contains(" # to "), "{path}: {line}");
        }
        let jobs = text.matches("runs-on:").count();
        assert_eq!(text.matches("timeout-minutes:").count(), jobs, "{path}: a job has no timeout");
    }
}

#[test]
fn every_script_of_a_workflow_exists_and_is_executable() {
    let mut seen = 0;
    for (path, text) in workflows() {
        for word in text.split(|c: char| c.is_whitespace() || "'\"()".contains(c)) {
            if !word.starts_with("scripts/") {
                continue;
            }
            let meta = std::fs::metadata(root().join(word))
                .unwrap_or_else(|_| panic!("{path}: {word} does not exist"));
            assert!(meta.permissions().mode() & 0o111 != 0, "{word} is not executable");
            seen += 1;
        }
    }
    assert!(seen > 4);
}

/// Returns the tags that `scripts/publish` derives from a Git reference.
fn tags_for(reference: &str) -> Result<String, String> {
    bash(&format!(
        "GITHUB_REPOSITORY=Some/Wallet GITHUB_SHA=1 GITHUB_ACTOR=a GITHUB_REF={reference} scripts/publish --dry-run"
    ))
}

#[test]
fn image_tags_are_derived_from_the_git_reference() {
    let version = env!("CARGO_PKG_VERSION");
    let (minor, _) = version.rsplit_once('.').unwrap();
    let image = "--tag\nghcr.io/some/wallet";

    assert_eq!(tags_for("refs/heads/main"), Ok(format!("{image}:main\n")));
    assert_eq!(
        tags_for(&format!("refs/tags/v{version}")),
        Ok(format!("{image}:{version}\n{image}:{minor}\n{image}:latest\n"))
    );
    let other = tags_for("refs/tags/v99.0.0").unwrap_err();
    assert!(other.contains("is not the version in Cargo.toml"), "{other}");
    assert!(tags_for("refs/heads/feature").is_err(), "a branch is not published");
}

//! The Dockerfile against the files that it must agree with.

use super::read as text;

/// What stands in the first line that starts with `prefix`, up to `end`.
fn after(text: &str, prefix: &str, end: &str) -> String {
    let rest = text.lines().find_map(|line| line.strip_prefix(prefix));
    let rest = rest.unwrap_or_else(|| panic!("no line starts with `{prefix}`"));
    rest.split(end).next().unwrap().to_owned()
}

#[test]
fn the_image_is_compiled_by_the_compiler_that_the_tests_use() {
    let compiler = after(&text("Dockerfile"), "FROM --platform=$BUILDPLATFORM rust:", "-");
    assert_eq!(compiler, after(&text("rust-toolchain.toml"), "channel = \"", "\""));
}

#[test]
fn the_program_meets_the_c_library_that_it_was_linked_against() {
    // Debian's releases by name, which Rust's image uses, and by number, which the other uses.
    let numbers = [("bookworm", "12"), ("trixie", "13"), ("forky", "14")];

    let builder = after(&text("Dockerfile"), "FROM --platform=$BUILDPLATFORM rust:", " ");
    let base = after(&text("Dockerfile"), "FROM gcr.io/distroless/cc-debian", ":");

    let (_, name) = builder.split_once('-').unwrap();
    assert!(numbers.contains(&(name, &base)), "compiled on {name}, run on Debian {base}");
}

#[test]
fn the_image_says_the_version_that_the_program_has() {
    assert_eq!(after(&text("Dockerfile"), "ARG VERSION=", "\n"), env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_the_build_copies_is_let_in_and_nothing_else() {
    let dockerfile = text("Dockerfile");
    let (_, build) = dockerfile.split_once("WORKDIR /revwallet").unwrap();
    let (build, _) = build.split_once("AS image").unwrap();
    let mut copied = Vec::new();
    for line in build.lines() {
        if let Some(paths) = line.strip_prefix("COPY ") {
            let (sources, _destination) = paths.rsplit_once(' ').unwrap();
            copied.extend(sources.split(' ').map(ToOwned::to_owned));
        }
    }
    copied.sort();

    let ignored = text(".dockerignore");
    let let_in = ignored.lines().filter_map(|line| line.strip_prefix('!'));

    assert_eq!(copied, let_in.collect::<Vec<_>>());
    assert!(ignored.lines().any(|line| line == "*"), "all the rest stays out");
}

#[test]
fn the_base_image_that_a_label_names_is_the_one_that_is_used() {
    let dockerfile = text("Dockerfile");
    let base = after(&dockerfile, "FROM gcr.io/", " ");
    let label = format!("org.opencontainers.image.base.name=\"gcr.io/{base}\"");
    assert!(dockerfile.contains(&label), "no {label}");
}

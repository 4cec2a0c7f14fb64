//! The Dockerfile against the files that it must agree with.

use super::read as text;

/// Returns the rest of the first line that starts with `prefix`, up to `end`.
fn after(text: &str, prefix: &str, end: &str) -> String {
    let rest = text.lines().find_map(|line| line.strip_prefix(prefix));
    let rest = rest.unwrap_or_else(|| panic!("no line starts with `{prefix}`"));
    rest.split(end).next().unwrap().to_owned()
}

#[test]
fn image_and_tests_use_the_same_compiler() {
    let compiler = after(&text("Dockerfile"), "FROM --platform=$BUILDPLATFORM rust:", "-");
    assert_eq!(compiler, after(&text("rust-toolchain.toml"), "channel = \"", "\""));
}

#[test]
fn build_and_base_image_have_the_same_c_library() {
    // Debian releases by name, as in the tag of the Rust image, and by number, as in the base image.
    let numbers = [("bookworm", "12"), ("trixie", "13"), ("forky", "14")];

    let builder = after(&text("Dockerfile"), "FROM --platform=$BUILDPLATFORM rust:", " ");
    let base = after(&text("Dockerfile"), "FROM gcr.io/distroless/cc-debian", ":");

    let (_, name) = builder.split_once('-').unwrap();
    assert!(numbers.contains(&(name, &base)), "compiled on {name}, but runs on Debian {base}");
}

#[test]
fn image_and_program_have_the_same_version() {
    assert_eq!(after(&text("Dockerfile"), "ARG VERSION=", "\n"), env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_build_context_contains_exactly_what_the_build_copies() {
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
    let included = ignored.lines().filter_map(|line| line.strip_prefix('!'));

    assert_eq!(copied, included.collect::<Vec<_>>());
    assert!(ignored.lines().any(|line| line == "*"), "the build context is not restricted");
}

#[test]
fn the_label_names_the_base_image() {
    let dockerfile = text("Dockerfile");
    let base = after(&dockerfile, "FROM gcr.io/", " ");
    let label = format!("org.opencontainers.image.base.name=\"gcr.io/{base}\"");
    assert!(dockerfile.contains(&label), "no {label}");
}

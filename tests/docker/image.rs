//! Content, metadata and build cache of the image.

use std::path::Path;
use std::process::Command;

use crate::engine::{IMAGE, build, docker, inspect};

/// Largest size of the image, which every new machine pulls.
const BYTES_MAX: u64 = 60_000_000;

#[test]
fn the_image_is_small() {
    let bytes: u64 = inspect(IMAGE, "{{.Size}}").parse().unwrap();
    println!("{bytes} bytes");
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
}

#[test]
fn the_user_is_numeric_and_not_root() {
    let user = inspect(IMAGE, "{{.Config.User}}");
    let (user, group) = user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
}

#[test]
fn the_image_contains_no_other_program() {
    let container = docker(&["create", IMAGE]).unwrap();
    let list = format!("docker export {container} | tar --list --verbose");
    let output = Command::new("sh").args(["-c", &list]).output().unwrap();
    docker(&["rm", &container]).unwrap();

    let listing = String::from_utf8(output.stdout).unwrap();
    let files = listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let programs: Vec<_> = files
        .filter(|columns| columns[0].starts_with('-') && columns[0].contains('x'))
        // The engine creates empty files; libraries may be executable, and the loader must be.
        .filter(|columns| columns[2] != "0" && !columns[5].contains("/lib/"))
        .map(|columns| columns[5])
        // The base image has a greeting for interactive logins, which are impossible without a shell.
        .filter(|path| *path != "etc/update-motd.d/10-uname")
        .collect();

    assert!(listing.contains("libc.so.6"), "the listing lacks the files of the image");
    assert_eq!(programs, ["usr/local/bin/revwallet"]);
}

#[test]
fn the_labels_name_version_and_revision() {
    let head = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().unwrap();
    let head = String::from_utf8(head.stdout).unwrap();

    let label = |name| {
        inspect(IMAGE, &format!("{{{{index .Config.Labels \"org.opencontainers.image.{name}\"}}}}"))
    };

    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("revision"), head.trim());
    assert_eq!(label("title"), "revwallet");
}

#[test]
fn a_source_change_does_not_recompile_dependencies() {
    let folder = std::env::temp_dir().join(format!("revwallet-context-{}", std::process::id()));
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")), folder.to_str().unwrap());
    std::fs::create_dir_all(folder.join("src")).unwrap();
    for file in ["Dockerfile", ".dockerignore", "Cargo.toml", "Cargo.lock"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let copied = Command::new("cp").arg("-rp").arg(from.join(".cargo")).arg(to).status().unwrap();
    assert!(copied.success());
    std::fs::write(folder.join("src/lib.rs"), "//! Changed source.\n").unwrap();

    let log = build("dependencies", Command::new("tar").args(["-c", "-C", to, "."]));
    std::fs::remove_dir_all(&folder).unwrap();

    let log = log.unwrap();
    let steps = log.lines().filter(|line| line.contains("[dependencies ")).count();
    assert!(steps > 0 && !log.contains("Compiling"), "{log}");
    assert!(log.contains("CACHED"), "{log}");
}

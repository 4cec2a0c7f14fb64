//! What is in the image, and how it was made.

use std::path::Path;
use std::process::Command;

use crate::engine::{IMAGE, build, docker, fact};

/// Largest that the image may be: what is pulled at each start of a new machine.
const BYTES_MAX: u64 = 60_000_000;

#[test]
fn the_image_is_small() {
    let bytes: u64 = fact(IMAGE, "{{.Size}}").parse().unwrap();
    println!("{bytes} bytes");
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
}

#[test]
fn its_user_is_a_number_that_is_not_root() {
    let user = fact(IMAGE, "{{.Config.User}}");
    let (user, group) = user.split_once(':').unwrap();
    assert!(user.parse::<u32>().unwrap() > 0 && group.parse::<u32>().unwrap() > 0);
}

#[test]
fn the_program_is_the_only_one_in_it() {
    let container = docker(&["create", IMAGE]).unwrap();
    let list = format!("docker export {container} | tar --list --verbose");
    let listed = Command::new("sh").args(["-c", &list]).output().unwrap();
    docker(&["rm", &container]).unwrap();

    let listed = String::from_utf8(listed.stdout).unwrap();
    let files = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let programs: Vec<_> = files
        .filter(|words| words[0].starts_with('-') && words[0].contains('x'))
        // The engine lays out empty files; libraries may be executable, the loader must be.
        .filter(|words| words[2] != "0" && !words[5].contains("/lib/"))
        .map(|words| words[5])
        // A greeting for who signs in, which nobody can.
        .filter(|path| *path != "etc/update-motd.d/10-uname")
        .collect();

    assert!(listed.contains("libc.so.6"), "this is a list of the image's files");
    assert_eq!(programs, ["usr/local/bin/revwallet"]);
}

#[test]
fn its_labels_name_the_version_and_the_revision() {
    let head = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().unwrap();
    let head = String::from_utf8(head.stdout).unwrap();

    let label = |name| {
        fact(IMAGE, &format!("{{{{index .Config.Labels \"org.opencontainers.image.{name}\"}}}}"))
    };

    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("revision"), head.trim());
    assert_eq!(label("title"), "revwallet");
}

#[test]
fn a_change_of_the_program_compiles_no_crate_anew() {
    let folder = std::env::temp_dir().join(format!("revwallet-context-{}", std::process::id()));
    let (from, to) = (Path::new(env!("CARGO_MANIFEST_DIR")), folder.to_str().unwrap());
    std::fs::create_dir_all(folder.join("src")).unwrap();
    for file in ["Dockerfile", ".dockerignore", "Cargo.toml", "Cargo.lock"] {
        std::fs::copy(from.join(file), folder.join(file)).unwrap();
    }
    let cargo = Command::new("cp").arg("-rp").arg(from.join(".cargo")).arg(to).status().unwrap();
    assert!(cargo.success());
    std::fs::write(folder.join("src/lib.rs"), "//! Something else entirely.\n").unwrap();

    let said = build("dependencies", Command::new("tar").args(["-c", "-C", to, "."]));
    std::fs::remove_dir_all(&folder).unwrap();

    let said = said.unwrap();
    let steps = said.lines().filter(|line| line.contains("[dependencies ")).count();
    assert!(steps > 0 && !said.contains("Compiling"), "{said}");
    assert!(said.contains("CACHED"), "{said}");
}

//! Manifests and workflows: rendered and read by the programs that are strict about them, and held against the code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "nothing is outside of a test binary")]

mod compose;
mod containers;
mod database;
mod dockerfile;
mod names;
mod network;
mod render;
mod rollout;
mod scripts;
mod settings;
mod workflows;

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|fault| panic!("{path}: {fault}"))
}

/// Runs a line of bash with the functions of the scripts: what it printed, or else what it complained of.
pub fn bash(line: &str) -> Result<String, String> {
    let line = format!("source scripts/lib/setup.sh && {line}");
    let output = Command::new("bash")
        .args(["-c", &line])
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(printed) } else { Err(format!("{printed}{said}")) }
}

/// What one of the scripts' functions prints: where tools are that it has fetched. Each is called once.
pub fn tools(function: &str) -> String {
    static FOUND: OnceLock<Mutex<HashMap<String, String>>> = OnceLock::new();
    let mut found = FOUND.get_or_init(Mutex::default).lock().unwrap();
    let place = found.entry(function.to_owned()).or_insert_with(|| {
        let printed = bash(function);
        printed.unwrap_or_else(|said| panic!("{function}: {said}")).trim().to_owned()
    });
    place.clone()
}

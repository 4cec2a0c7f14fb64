//! Manifests, workflows and deployment scripts: strict validation, and checks against the code.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(unreachable_pub, reason = "a test binary has no public interface")]

mod citus;
mod compose;
mod containers;
mod database;
mod dockerfile;
mod network;
mod references;
mod release;
mod render;
mod rollout;
mod runbooks;
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
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a bash command with the functions of `scripts/lib/setup.sh`; returns its output, or output and errors if it fails.
pub fn bash(command: &str) -> Result<String, String> {
    let command = format!("source scripts/lib/setup.sh && {command}");
    let output = Command::new("bash")
        .args(["-c", &command])
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(stdout) } else { Err(format!("{stdout}{stderr}")) }
}

/// Returns the folder of the tools that a function of the scripts downloads; each function runs once.
pub fn tools(function: &str) -> String {
    static FOUND: OnceLock<Mutex<HashMap<String, String>>> = OnceLock::new();
    let mut found = FOUND.get_or_init(Mutex::default).lock().unwrap();
    let folder = found.entry(function.to_owned()).or_insert_with(|| {
        let output = bash(function);
        output.unwrap_or_else(|error| panic!("{function}: {error}")).trim().to_owned()
    });
    folder.clone()
}

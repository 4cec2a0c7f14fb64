//! Access to the Docker engine through its command line.

use std::process::{Command, Stdio};

/// The image under test, which `scripts/test --docker` builds from the checkout.
pub const IMAGE: &str = "revwallet:test";

/// Runs `docker` and returns its output, or its errors if it fails.
pub fn docker(arguments: &[&str]) -> Result<String, String> {
    run(Command::new("docker").args(arguments))
}

/// Builds a stage of the Dockerfile from a `tar` stream and returns the build log.
pub fn build(stage: &str, tar: &mut Command) -> Result<String, String> {
    let mut tar = tar.stdout(Stdio::piped()).spawn().unwrap();
    let context = tar.stdout.take().unwrap();
    let mut build = Command::new("docker");
    build.args(["build", "--progress=plain", "--target", stage, "-"]).stdin(context);
    let output = run(&mut build);
    assert!(tar.wait().unwrap().success(), "tar failed");
    output
}

/// Runs a command and returns its standard output and error, or only its standard error if it fails.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        let parts = [stdout, stderr];
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))
    } else {
        Err(stderr)
    }
}

/// Returns a property of an image or a container.
pub fn inspect(object: &str, template: &str) -> String {
    docker(&["inspect", "--format", template, object]).unwrap()
}

//! Docker, as its command line speaks to it.

use std::process::{Command, Stdio};

/// The image that is tested: `scripts/test --docker` builds it from the checkout.
pub const IMAGE: &str = "revwallet:test";

/// What a command printed, or what it complained of.
pub fn docker(words: &[&str]) -> Result<String, String> {
    finished(Command::new("docker").args(words))
}

/// Builds up to a stage from what `tar` sends, and returns what the build said.
pub fn build(stage: &str, tar: &mut Command) -> Result<String, String> {
    let mut tar = tar.stdout(Stdio::piped()).spawn().unwrap();
    let context = tar.stdout.take().unwrap();
    let mut build = Command::new("docker");
    build.args(["build", "--progress=plain", "--target", stage, "-"]).stdin(context);
    let said = finished(&mut build);
    assert!(tar.wait().unwrap().success(), "tar failed");
    said
}

/// What it printed, complaints behind it when it succeeded, or the complaints when it did not.
pub fn finished(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let complained = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        let parts = [printed, complained];
        Ok(parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n"))
    } else {
        Err(complained)
    }
}

/// One fact about an image, or about a container.
pub fn fact(of: &str, template: &str) -> String {
    docker(&["inspect", "--format", template, of]).unwrap()
}

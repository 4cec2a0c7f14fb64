//! Examples of documents, run as they are written.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use super::TestApp;

impl TestApp {
    /// Runs the examples of a document with these variables, and `API`. Returns the answer to each `curl`.
    pub async fn run_examples(&self, document: &str, variables: &[(&str, &str)]) -> Vec<Value> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = std::fs::read_to_string(path).unwrap();
        let (_, rest) = text.split_once("<!-- examples -->\n```sh\n").unwrap();
        let (script, _) = rest.split_once("```\n<!-- end of examples -->").unwrap();
        let prelude = "set -euo pipefail\ncurl() { command curl --fail-with-body \"$@\"; echo; }\n";

        let output = Command::new("bash")
            .args(["-c", &format!("{prelude}{script}")])
            .env("API", format!("http://{}", self.address))
            .envs(variables.iter().copied())
            .output()
            .await
            .unwrap();

        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text} {:?}", String::from_utf8(output.stderr));
        let answers: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), script.matches("curl ").count());
        answers
    }
}

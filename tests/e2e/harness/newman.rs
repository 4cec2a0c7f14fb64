//! Newman, which runs the Postman collection of the exchange.

use std::process::Output;

use tokio::process::Command;

use super::program::tool_folder;

/// Runs the collection against the routes at this URL, with further variables.
pub async fn newman(base: &str, variables: &[(&str, &str)]) -> Output {
    let program = tool_folder("newman_npm_tools").join("node_modules/.bin/newman");
    let variables = [("base_url", base)].into_iter().chain(variables.iter().copied());
    Command::new(program)
        .args(["run", "./tests/prj_final.postman_collection.json", "--color", "off"])
        .args(variables.flat_map(|(name, value)| ["--env-var".into(), format!("{name}={value}")]))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .await
        .unwrap()
}

//! The Postman collection `tests/prj_final.postman_collection.json`, run by Newman.

use std::process::Output;

use revwallet::auth::Scope;
use tokio::process::Command;

use super::{assert_faults_happened, fault};
use crate::harness::{TestApp, program, run, run_with};

/// Runs the collection against the app with further variables.
async fn newman(app: &TestApp, variables: &[(&str, &str)]) -> Output {
    let api = format!("http://{}", app.address);
    let base = format!("{api}/exchange");
    let newman = program::tool_folder("newman_npm_tools").join("node_modules/.bin/newman");
    let given = [("base_url", &base as &str), ("api_url", &api)];
    Command::new(newman)
        .args(["run", "./tests/prj_final.postman_collection.json", "--color", "off"])
        .args(
            given
                .iter()
                .chain(variables)
                .flat_map(|(name, value)| ["--env-var".to_owned(), format!("{name}={value}")]),
        )
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .await
        .unwrap()
}

#[tokio::test]
async fn the_collection_passes_twice_on_one_server() {
    run_with(&["--exchange-approval=300"], async |app| {
        let admin = app.api_key(&[Scope::Admin]).await;
        for _ in 0..2 {
            fault(app, "withdraw-do", "refused", 1).await;
            let variables = [("outside_refuses", "yes"), ("admin_key", admin.credential())];
            let output = newman(app, &variables).await;
            let report = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{report}");
            assert!(!report.contains("skipped:"), "{report}");
            assert_faults_happened(app).await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_collection_says_what_it_skips_without_further_variables() {
    run(async |app| {
        let output = newman(app, &[]).await;
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}");
        assert_eq!(report.matches("skipped:").count(), 2, "{report}");
    })
    .await;
}

#[tokio::test]
async fn a_difference_fails_the_collection() {
    run_with(&["--exchange-min=50"], async |app| {
        let output = newman(app, &[]).await;
        assert!(!output.status.success());
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(
            report.contains("expected response to have status code 200 but got 422"),
            "{report}"
        );
    })
    .await;
}

//! The Postman collection `tests/prj_final.postman_collection.json`, run by Newman.

use revwallet::auth::Scope;

use super::{assert_faults_happened, fault};
use crate::harness::newman::newman;
use crate::harness::{TestApp, run, run_with};

fn base(app: &TestApp) -> String {
    format!("http://{}/exchange", app.address)
}

#[tokio::test]
async fn the_collection_passes_twice_on_one_server() {
    run_with(&["--exchange-approval=300"], async |app| {
        let admin = app.api_key(&[Scope::Admin]).await;
        for _ in 0..2 {
            fault(app, "withdraw-do", "refused", 1).await;
            let api = format!("http://{}", app.address);
            let key = admin.credential();
            let variables = [("outside_refuses", "yes"), ("admin_key", key), ("api_url", &api)];
            let output = newman(&base(app), &variables).await;
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
        let output = newman(&base(app), &[]).await;
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{report}");
        assert_eq!(report.matches("skipped:").count(), 2, "{report}");
    })
    .await;
}

#[tokio::test]
async fn a_difference_fails_the_collection() {
    run_with(&["--exchange-min=50"], async |app| {
        let output = newman(&base(app), &[]).await;
        assert!(!output.status.success());
        let report = String::from_utf8_lossy(&output.stdout);
        assert!(
            report.contains("expected response to have status code 200 but got 422"),
            "{report}"
        );
    })
    .await;
}

//! The OpenAPI document against the router, in both directions, and against what is really answered.

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;

use crate::harness::program::{Folder, Program};
use crate::harness::run;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Every operation of the document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        let methods = methods.filter(|(method, _)| METHODS.contains(&method.as_str()));
        methods.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    each.collect()
}

fn fill(path: &str) -> String {
    path.split('/')
        .map(|part| if part.starts_with('{') { "1" } else { part })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn every_documented_operation_is_routed() {
    run(async |app| {
        let document = app.get("/openapi.json").await.json();
        let operations = operations(&document);
        assert!(operations.len() >= 20, "{} operations", operations.len());

        for (path, method, _) in operations {
            let method: Method = method.parse().unwrap();
            let answer = app.send(app.request(method.clone(), &fill(&path))).await;

            assert_ne!(answer.status, 405, "{method} {path}");
            if answer.status == 404 {
                // There may be no such wallet, but there is such a path.
                let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
                assert!(!detail.contains("path"), "{method} {path}: {detail}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn every_routed_method_is_documented() {
    run(async |app| {
        let document = app.get("/openapi.json").await.json();
        let operations = operations(&document);
        let paths: BTreeSet<_> = operations.iter().map(|(path, ..)| path.clone()).collect();

        for path in paths {
            // A method that nothing answers makes the router tell which ones it has.
            let answer = app.send(app.request(Method::TRACE, &fill(&path))).await;
            assert_eq!(answer.status, 405, "{path}: {}", answer.text);
            let mut allowed: BTreeSet<_> =
                answer.header("allow").split(',').map(|method| method.trim().to_owned()).collect();
            allowed.remove("HEAD");
            let documented: BTreeSet<_> = operations
                .iter()
                .filter(|(other, ..)| *other == path)
                .map(|(_, method, _)| method.clone())
                .collect();

            assert_eq!(allowed, documented, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn every_operation_says_what_it_takes_and_answers() {
    run(async |app| {
        let document = app.get("/openapi.json").await.json();
        let mut ids = BTreeSet::new();

        for (path, method, operation) in operations(&document) {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{place} has no summary");
            assert!(!operation["tags"].as_array().unwrap().is_empty(), "{place} has no tag");
            let id =
                operation["operationId"].as_str().unwrap_or_else(|| panic!("{place} has no id"));
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                let declared =
                    parameters.iter().any(|one| one["name"] == name && one["in"] == "path");
                assert!(declared, "{place} does not declare {name}");
            }
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.keys().any(|status| status.starts_with('2')), "{place}");
            if path.starts_with("/wallet") {
                assert!(responses.contains_key("4XX"), "{place} does not document its failures");
                let moves = ["POST", "PATCH", "DELETE"].contains(&method.as_str());
                let keyed = parameters.iter().any(|one| one["name"] == "Idempotency-Key");
                assert_eq!(moves, keyed, "{place} and the idempotency key");
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_data_is_all_there() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let url = format!("http://{}", program.public.address);

    let output =
        tokio::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/generate-data"))
            .args(["12", "80"])
            .env("BASE_URL", url)
            .output()
            .await
            .unwrap();

    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said} {progress}");
    assert!(said.contains("every balance is correct"), "{said}");
    assert!(progress.contains("transfers: 80 of 80"), "{progress}");
    assert!(program.stop().await.success());
}

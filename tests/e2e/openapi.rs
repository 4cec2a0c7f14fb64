//! The OpenAPI document against the router, in both directions, and the data generator against the API.

use std::collections::BTreeSet;

use http::Method;
use revwallet::http::MoneyFormat;
use serde_json::Value;

use crate::harness::program::{self, Folder, Program};
use crate::harness::run;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// Returns path, method and definition of every operation in the document.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        let methods = methods.filter(|(method, _)| METHODS.contains(&method.as_str()));
        methods.map(|(method, operation)| (path.clone(), method.to_uppercase(), operation.clone()))
    });
    operations.collect()
}

/// Replaces every path parameter by `1`, or by a name where only names are known.
fn fill(path: &str) -> String {
    path.split('/')
        .map(|part| match part {
            "{command}" => "retry",
            part if part.starts_with('{') => "1",
            part => part,
        })
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
            let response = app.send(app.request(method.clone(), &fill(&path))).await;

            assert_ne!(response.status, 405, "{method} {path}");
            if response.status == 404 {
                // The path must exist, even if the resource does not.
                let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
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
            // For a method without a handler, the router lists the allowed ones.
            let response = app.send(app.request(Method::TRACE, &fill(&path))).await;
            assert_eq!(response.status, 405, "{path}: {}", response.text);
            let mut allowed: BTreeSet<_> = response
                .header("allow")
                .split(',')
                .map(|method| method.trim().to_owned())
                .collect();
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

/// Returns every reference below a value.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => {
            let own = members.get("$ref").and_then(Value::as_str);
            own.into_iter().chain(members.values().flat_map(references)).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn every_reference_of_the_document_resolves() {
    let document = revwallet::app::router::document(MoneyFormat::Number);

    let references = references(&document);

    assert!(references.len() > 50, "{} references", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference}"));
        assert!(document.pointer(pointer).is_some(), "{reference} does not resolve");
    }
}

#[tokio::test]
async fn every_operation_documents_its_parameters_and_responses() {
    run(async |app| {
        let document = app.get("/openapi.json").await.json();
        let mut ids = BTreeSet::new();

        for (path, method, operation) in operations(&document) {
            let label = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{label} has no summary");
            assert!(!operation["tags"].as_array().unwrap().is_empty(), "{label} has no tag");
            let id =
                operation["operationId"].as_str().unwrap_or_else(|| panic!("{label} has no id"));
            assert!(ids.insert(id.to_owned()), "the operation id {id} is used twice");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                let declared = parameters
                    .iter()
                    .any(|parameter| parameter["name"] == name && parameter["in"] == "path");
                assert!(declared, "{label} does not declare {name}");
            }
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.keys().any(|status| status.starts_with('2') || status == "101"),
                "{label} documents no success"
            );
            if path.starts_with("/wallet") {
                assert!(responses.contains_key("403"), "{label} does not document its failures");
                let is_write = ["POST", "PATCH", "DELETE"].contains(&method.as_str());
                let has_key =
                    parameters.iter().any(|parameter| parameter["name"] == "Idempotency-Key");
                assert_eq!(
                    is_write, has_key,
                    "{label}: writes, and only writes, take an idempotency key"
                );
            }
        }
    })
    .await;
}

/// Runs the generator to its end; returns its report and its progress.
async fn generate_data(program: &Program, counts: [&str; 2], api_key: &str) -> (String, String) {
    let output =
        tokio::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/generate-data"))
            .args(counts)
            .env("BASE_URL", format!("http://{}", program.public.address))
            .env("API_KEY", api_key)
            .output()
            .await
            .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let progress = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{report} {progress}");
    assert!(report.contains("every balance is correct"), "{report}");
    (report, progress)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_generator_creates_everything_that_it_reports() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let create = ["api-key", "create", "--name=generator", "--scope=admin", "--scope=wallet:write"];
    let created = program::command(&[&[folder.setting().as_str()], &create[..]].concat());
    let created = tokio::process::Command::from(created).output().await.unwrap();
    let printed = String::from_utf8(created.stdout).unwrap();
    let key = printed.lines().find(|line| line.starts_with("rwk_")).unwrap();

    let (report, progress) = generate_data(&program, ["12", "80"], "").await;
    assert!(report.contains("3 games, 6 purchases, a gift"), "{report}");
    assert!(progress.contains("transfers: 80 of 80"), "{progress}");
    let (report, _) = generate_data(&program, ["2", "2"], key).await;
    assert!(report.contains("6 games, 12 purchases, a gift"), "{report}");
    let sales = program.public.get("/api/games?sale=true").await.json();
    assert_eq!(sales["games"].as_array().unwrap().len(), 1, "{sales}");

    assert!(program.stop().await.success());
}

/// Every schema below a value, with its pointer.
fn schemas<'a>(value: &'a Value, pointer: &str, found: &mut Vec<(String, &'a Value)>) {
    if value.get("type").is_some() {
        found.push((pointer.to_owned(), value));
    }
    if let Some(members) = value.as_object() {
        for (name, member) in members.iter().filter(|(name, _)| !name.starts_with("example")) {
            schemas(member, &format!("{pointer}/{name}"), found);
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        schemas(item, &format!("{pointer}/{index}"), found);
    }
}

#[test]
fn every_whole_body_has_an_example_that_its_schema_accepts() {
    for money in [MoneyFormat::Number, MoneyFormat::String] {
        let document = revwallet::app::router::document(money);
        let mut examples = 0;
        let items = ["paths", "webhooks"].map(|part| document[part].as_object().unwrap());
        for (path, item) in items.into_iter().flatten() {
            for (method, operation) in item.as_object().unwrap() {
                let responses = operation["responses"].as_object().unwrap().values();
                let bodies = responses.chain([&operation["requestBody"]]);
                for body in bodies.filter_map(|body| body["content"].get("application/json")) {
                    if path == "/openapi.json" {
                        continue;
                    }
                    let label = format!("{method} {path}");
                    let example = body.get("example").unwrap_or_else(|| panic!("{label}: none"));
                    let mut schema = serde_json::json!({ "components": document["components"] });
                    schema["allOf"] = serde_json::json!([body["schema"]]);
                    let validator = jsonschema::draft202012::new(&schema).unwrap();
                    let errors: Vec<_> =
                        validator.iter_errors(example).map(|error| error.to_string()).collect();
                    assert!(errors.is_empty(), "{label}: {errors:?} in {example}");
                    examples += 1;
                }
            }
        }
        assert!(examples > 100, "{examples} examples");
    }
}

#[test]
fn the_example_of_a_webhook_is_the_event_that_it_describes() {
    let document = revwallet::app::router::document(MoneyFormat::Number);
    for (event, item) in document["webhooks"].as_object().unwrap() {
        let json = &item["post"]["requestBody"]["content"]["application/json"];
        assert_eq!(json["example"]["type"], event.as_str());
        assert_eq!(json["schema"]["properties"]["type"]["const"], event.as_str());
        let data = &json["example"]["data"];
        assert_eq!(data["alert"].is_object(), event == "alert.crossed", "{event}");
        let says_nothing = event.starts_with("wallet.") && data["amount"] != 0.0;
        assert!(!says_nothing, "{event} moves no money: {data}");
    }
}

#[test]
fn decimals_are_numbers_in_one_document_and_strings_in_the_other() {
    let documents = [MoneyFormat::Number, MoneyFormat::String];
    let [numbers, strings] = documents.map(revwallet::app::router::document);
    for (document, kind) in [(&numbers, "number"), (&strings, "string")] {
        let mut found = Vec::new();
        schemas(&document["paths"], "/paths", &mut found);
        schemas(&document["components"]["schemas"], "/schemas", &mut found);
        let is_event =
            |pointer: &str| ["Event", "CrossedAlert"].iter().any(|name| pointer.contains(name));
        let decimals = found.iter().filter(|(pointer, schema)| {
            !is_event(pointer)
                && ["double", "decimal"].iter().any(|format| schema["format"] == *format)
        });
        let decimals: Vec<_> = decimals.collect();
        assert!(decimals.len() > 50, "{}", decimals.len());
        for (pointer, schema) in decimals {
            assert!(schema["type"].to_string().contains(kind), "{pointer}: {schema}");
        }
    }
    // Events have numbers for everyone.
    let amount = "/components/schemas/WalletEventData/properties/amount/type";
    assert_eq!(strings.pointer(amount).unwrap(), "number");
    let price = "/components/schemas/GameInEvent/properties/price/type";
    assert_eq!(strings.pointer(price).unwrap(), "number");
}

#[test]
fn closed_sets_and_moments_are_typed_and_tags_are_described() {
    let document = revwallet::app::router::document(MoneyFormat::Number);
    let mut found = Vec::new();
    schemas(&document["components"]["schemas"], "", &mut found);
    for (pointer, schema) in &found {
        let name = pointer.rsplit('/').next().unwrap();
        let is_text = schema["type"].to_string().contains("string");
        if is_text && (name == "at" || name.ends_with("_at") || name.ends_with("At")) {
            assert_eq!(schema["format"], "date-time", "{pointer}");
        }
    }
    let described: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].to_string()).collect();
    let used: BTreeSet<_> = operations(&document)
        .iter()
        .map(|(.., operation)| operation["tags"][0].to_string())
        .collect();
    assert_eq!(described, used);
    let enums = found.iter().filter(|(_, schema)| schema.get("enum").is_some()).count();
    assert!(enums >= 20, "{enums} closed sets");
}

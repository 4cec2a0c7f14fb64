//! Checks every answer that a test receives against the OpenAPI document: the status, and the members of the body.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use revwallet::http::MoneyFormat;
use serde_json::{Value, json};

use super::Response;

/// Maximum number of characters of an answer that a failed check repeats.
const SHOWN_MAX: usize = 600;

/// The document, for each format of money.
static DOCUMENTS: LazyLock<[Document; 2]> =
    LazyLock::new(|| [MoneyFormat::Number, MoneyFormat::String].map(Document::new));

struct Document {
    whole: Value,
    /// Paths with the parts between their slashes.
    paths: Vec<(String, Vec<String>)>,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Document {
    fn new(money: MoneyFormat) -> Self {
        let mut whole = revwallet::app::router::document(money);
        let paths = whole["paths"].as_object().unwrap().keys();
        let paths = paths.map(|path| (path.clone(), parts(path))).collect();
        // The members of a part are told apart from unknown ones by the schema that combines the parts.
        let combined: Vec<_> = combined(&whole).into_iter().map(str::to_owned).collect();
        for (name, schema) in whole["components"]["schemas"].as_object_mut().unwrap() {
            if !combined.contains(name) {
                close(schema);
            }
        }
        Self { whole, paths, validators: Mutex::default() }
    }

    /// The documented path of a request; literal parts win over parameters.
    fn path_of(&self, path: &str) -> Option<&str> {
        let path = parts(path);
        let matching = self.paths.iter().filter(|(_, template)| {
            let mut pairs = template.iter().zip(&path);
            template.len() == path.len()
                && pairs.all(|(template, part)| template.starts_with('{') || template == part)
        });
        let found = matching.min_by_key(|(_, template)| {
            template.iter().map(|part| part.starts_with('{')).collect::<Vec<_>>()
        });
        found.map(|(path, _)| path.as_str())
    }

    /// The validator of the schema at a pointer.
    fn validator(&self, pointer: &str) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap();
        let found = validators.entry(pointer.to_owned()).or_insert_with(|| {
            let mut schema = json!({ "components": self.whole["components"] });
            schema["allOf"] = json!([self.whole.pointer(pointer).unwrap()]);
            Arc::new(jsonschema::draft202012::new(&schema).unwrap())
        });
        Arc::clone(found)
    }
}

fn parts(path: &str) -> Vec<String> {
    path.trim_matches('/').split('/').map(str::to_owned).collect()
}

/// Names of the schemas that others combine.
fn combined(document: &Value) -> Vec<&str> {
    let schemas = document["components"]["schemas"].as_object().unwrap().values();
    let parts = schemas.filter_map(|schema| schema["allOf"].as_array()).flatten();
    parts.filter_map(|part| part["$ref"].as_str()?.rsplit('/').next()).collect()
}

/// Refuses members that a schema does not name.
fn close(schema: &mut Value) {
    if schema.get("allOf").is_some() {
        schema["unevaluatedProperties"] = json!(false);
    } else if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema["additionalProperties"] = json!(false);
    }
}

/// Checks the answer to a request of the public API; other paths have no document.
pub fn check(method: &str, path: &str, response: &Response) {
    // The tests of the edge send requests to stubs too.
    if env!("CARGO_CRATE_NAME") != "e2e" {
        return;
    }
    let content_type = response.header("content-type").to_owned();
    let is_problem = content_type == "application/problem+json";
    if !is_problem && content_type != "application/json" {
        return;
    }
    let [numbers, strings] = &*DOCUMENTS;
    let is_string = response.header("preference-applied") == "money=string";
    let document = if is_string { strings } else { numbers };
    let Some(template) = document.path_of(path) else { return };
    let escaped = template.replace('~', "~0").replace('/', "~1");
    let operation = format!("/paths/{escaped}/{}", method.to_lowercase());
    let Some(documented) = document.whole.pointer(&operation) else { return };
    let status = response.status.to_string();
    let label = format!("{method} {template} answered {status}");
    let shown: String = response.text.chars().take(SHOWN_MAX).collect();
    assert!(documented["responses"].get(&status).is_some(), "{label}, not documented: {shown}");
    let pointer = if is_problem {
        "/components/schemas/Problem".to_owned()
    } else {
        let escaped = content_type.replace('/', "~1");
        format!("{operation}/responses/{status}/content/{escaped}/schema")
    };
    assert!(document.whole.pointer(&pointer).is_some(), "{label} without a schema: {shown}");
    let Ok(body) = serde_json::from_str::<Value>(&response.text) else { return };
    let validator = document.validator(&pointer);
    let errors: Vec<_> = validator
        .iter_errors(&body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{label}, but {errors:?} in {shown}");
}

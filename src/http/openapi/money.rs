//! Money in the OpenAPI document: describes decimals as numbers or as strings.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::http::decimal::MoneyFormat;

/// Prefix of references to schemas within the document.
const SCHEMAS: &str = "#/components/schemas/";

/// JSON text that every schema of a decimal contains.
const DECIMAL: &str = "\"format\":\"double\"";

/// Returns the header parameter `Prefer`, which selects the format of money. Its only allowed value is the format that
/// the document describes. The parameter is required unless this format is the default, `Number`.
pub(super) fn preference(money: MoneyFormat) -> Value {
    let schema = match money {
        MoneyFormat::Number => json!({ "type": "string", "enum": ["money=number"] }),
        MoneyFormat::String => {
            json!({ "type": "string", "enum": ["money=string"], "default": "money=string" })
        }
    };
    json!({
        "name": "Prefer",
        "in": "header",
        "description": "Format of decimals in the response, and the format that this document describes",
        "required": money == MoneyFormat::String,
        "schema": schema,
    })
}

/// Describes the decimals of requests and responses as strings, if the format is `String`. Events always contain
/// numbers.
pub(super) fn write(document: &mut Value, money: MoneyFormat) {
    if money == MoneyFormat::Number {
        return;
    }
    let mut schemas = document["components"]["schemas"].take();
    let of_api = referenced(&document["paths"], &schemas);
    let of_events = referenced(&document["webhooks"], &schemas);
    let has_decimals = |name: &String| {
        let parts = referenced(&schemas[name], &schemas);
        parts.iter().chain([name]).any(|part| schemas[part].to_string().contains(DECIMAL))
    };
    // If a schema that contains decimals is used both by events and by requests or responses, events get their own copy
    // of the schema.
    let both: BTreeSet<String> =
        of_api.intersection(&of_events).filter(|name| has_decimals(name)).cloned().collect();
    let mut events: Vec<(String, Value)> = Vec::new();
    for name in of_events {
        let mut schema = schemas[&name].clone();
        rename_references(&mut schema, &both);
        events.push((event_name(&name, &both), schema));
    }
    rename_references(&mut document["webhooks"], &both);
    write_strings(&mut schemas);
    write_strings(&mut document["paths"]);
    for (name, schema) in events {
        schemas[name] = schema;
    }
    document["components"]["schemas"] = schemas;
}

/// Returns the names of the schemas to which a part of the document refers, directly or through other schemas.
fn referenced(part: &Value, schemas: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut parts = vec![part];
    while let Some(part) = parts.pop() {
        match part {
            Value::Object(members) => {
                parts.extend(members.values());
                let reference = members.get("$ref").and_then(Value::as_str);
                if let Some(name) = reference.and_then(|path| path.strip_prefix(SCHEMAS))
                    && found.insert(name.to_owned())
                {
                    parts.push(&schemas[name]);
                }
            }
            Value::Array(items) => parts.extend(items),
            _ => {}
        }
    }
    found
}

/// Returns the name by which events refer to a schema. If requests or responses also use the schema (`both` contains
/// its name), events refer to a copy of the schema, and the name of the copy ends with a suffix.
fn event_name(name: &str, both: &BTreeSet<String>) -> String {
    if both.contains(name) { format!("{name}InEvent") } else { name.to_owned() }
}

fn rename_references(value: &mut Value, both: &BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(path)) = members.get_mut("$ref")
                && let Some(name) = path.strip_prefix(SCHEMAS)
            {
                *path = format!("{SCHEMAS}{}", event_name(name, both));
            }
            members.values_mut().for_each(|member| rename_references(member, both));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename_references(item, both)),
        _ => {}
    }
}

fn write_strings(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("format").is_some_and(|format| format == "double") {
                write_string(value);
            } else {
                members.values_mut().for_each(write_strings);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(write_strings),
        _ => {}
    }
}

fn write_string(schema: &mut Value) {
    schema["type"] = match &schema["type"] {
        Value::Array(_) => json!(["string", "null"]),
        _ => json!("string"),
    };
    schema["format"] = json!("decimal");
    schema["pattern"] = json!(r"^-?[0-9]+(\.[0-9]+)?$");
    if let Some(example) = schema["example"].as_f64() {
        schema["example"] = json!(format!("{example:.2}"));
    }
}

//! Examples of complete bodies, built from the examples of their members.

use serde_json::{Map, Value};

/// Returns an example that fits a schema, or `None` if a required part of the schema has no example.
pub(super) fn sample(schema: &Value, schemas: &Value) -> Option<Value> {
    if let Some(example) = schema.get("example") {
        return Some(example.clone());
    }
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next()?;
        return sample(schemas.get(name)?, schemas);
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.first().cloned();
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        return choices.iter().find_map(|choice| sample(choice, schemas));
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let parts = parts.iter().map(|part| sample(part, schemas));
        let members = parts.map(|part| part?.as_object().cloned()).collect::<Option<Vec<_>>>()?;
        return Some(Value::Object(members.into_iter().flatten().collect()));
    }
    match first_type(schema)? {
        "object" => object(schema, schemas),
        "array" => sample(&schema["items"], schemas).map(|item| Value::Array(vec![item])),
        "null" => Some(Value::Null),
        _ => None,
    }
}

/// Returns the type of a schema. For a schema that allows null, returns `null`, so optional members without an example
/// are left out of the example.
fn first_type(schema: &Value) -> Option<&str> {
    match &schema["type"] {
        Value::String(only) => Some(only),
        Value::Array(types) if types.iter().any(|kind| kind == "null") => Some("null"),
        Value::Array(types) => types.first()?.as_str(),
        _ => None,
    }
}

fn object(schema: &Value, schemas: &Value) -> Option<Value> {
    let mut members = Map::new();
    let required = schema["required"].as_array();
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = required.is_some_and(|all| all.iter().any(|required| required == name));
        match sample(member, schemas) {
            Some(Value::Null) if !is_required => {}
            Some(example) => {
                members.insert(name.clone(), example);
            }
            None if is_required => return None,
            None => {}
        }
    }
    Some(Value::Object(members))
}

//! Captured log output of the app under test.

use std::io::Write;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

/// The fields of a log line. A name that occurs twice is an error, which `Value` would hide.
struct UniqueFields(Map<String, Value>);

impl<'de> Deserialize<'de> for UniqueFields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor).map(Self)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object without duplicate names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = entries.next_entry::<String, Value>()? {
            if let Some(_first) = fields.insert(name.clone(), value) {
                return Err(serde::de::Error::custom(format!("{name} occurs twice")));
            }
        }
        Ok(fields)
    }
}

/// Parses a log line; panics unless it is a JSON object with unique names.
pub fn parse_line(line: &str) -> Value {
    let UniqueFields(fields) =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    Value::Object(fields)
}

#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Logs {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Parses every line so far; panics unless each is JSON.
    pub fn lines(&self) -> Vec<Value> {
        self.text().lines().map(parse_line).collect()
    }

    pub fn find(&self, key: &str, value: impl Into<Value>) -> Option<Value> {
        let value = value.into();
        self.lines().into_iter().find(|line| line[key] == value)
    }
}

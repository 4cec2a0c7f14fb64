//! Serializes and deserializes JSON bodies. Unlike plain serde, deserialization rejects unknown members, and arrays in
//! place of objects. Its errors do not mention Rust types.

use std::fmt;
use std::marker::PhantomData;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::error::Category;

use crate::error::{Error, FieldError, Result};

/// Number of headers for which a new response reserves memory. No response has more headers, including those that the
/// middleware adds.
const HEADERS: usize = 12;

/// Maximum number of unknown members that an error response lists.
const UNKNOWN_MAX: usize = 20;

/// Maximum length, in characters, of an unknown member's name in an error response. Longer names are truncated.
const NAME_MAX: usize = 100;

/// Returns a response with a JSON body.
pub fn response<T: Serialize>(status: StatusCode, body: &T) -> Response {
    let body = match serde_json::to_vec(body) {
        Ok(body) => body,
        Err(cause) => return Error::Internal(cause.into()).into_response(),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    *response.headers_mut() = headers;
    response
}

/// Deserializes a whole body, which must be a JSON object that has only members of `T`.
pub fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let mut unknown = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_ignored::deserialize(&mut json, |path: serde_ignored::Path<'_>| {
        if unknown.len() < UNKNOWN_MAX
            && let Some(pointer) = pointer_to_member(&path)
        {
            unknown.push(FieldError { pointer, detail: "is not a known member".to_owned() });
        }
    });
    match value.and_then(|Object(value)| json.end().map(|()| value)) {
        Ok(value) if unknown.is_empty() => Ok(value),
        Ok(_) => Err(Error::Invalid(unknown)),
        Err(cause) => Err(explain::<T>(body, &cause)),
    }
}

/// Deserializes a body whose format another program defines. Members that `T` does not have are ignored.
pub fn read_foreign<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T> {
    let read = serde_json::from_slice(body);
    read.map(|Object(value)| value).map_err(|cause| explain::<T>(body, &cause))
}

/// Returns the error for a body that could not be deserialized. Parses the body again to find out whether it is valid
/// JSON and which member is wrong.
fn explain<'a, T: Deserialize<'a>>(body: &'a [u8], cause: &serde_json::Error) -> Error {
    if let Err(malformed) = serde_json::from_slice::<IgnoredAny>(body) {
        return Error::MalformedJson(malformed.to_string());
    }
    if cause.classify() != Category::Data {
        return Error::MalformedJson(cause.to_string());
    }
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let json = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let cause = match Object::<T>::deserialize(json) {
        Ok(_) => cause.to_string(),
        Err(cause) => cause.to_string(),
    };
    let path = track.path();
    let pointer: String = path.iter().map(pointer_part).collect();
    let (member, detail) = in_words_of_json(&cause);
    let member = member.map_or_else(String::new, |name| format!("/{}", escaped(name)));
    Error::field(pointer + &member, detail)
}

/// Rewords a serde error so that it does not mention Rust types. Returns the name of the missing or duplicate member,
/// if the error reports such a member, and the new text.
fn in_words_of_json(cause: &str) -> (Option<&str>, String) {
    let (cause, place) = cause.rsplit_once(" at line ").unwrap_or((cause, ""));
    let place = match place.split_once(" column ") {
        Some((line, column)) => format!(" (line {line}, column {column})"),
        None => String::new(),
    };
    if let Some(name) = quoted(cause, "missing field ") {
        return (Some(name), "is required".to_owned());
    }
    if let Some(name) = quoted(cause, "duplicate field ") {
        return (Some(name), format!("is given twice{place}"));
    }
    let expected = cause.rsplit_once(", expected ").map_or("something else", |(_, what)| what);
    let expected = match expected {
        "a boolean" => "true or false",
        "a sequence" => "an array",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    (None, format!("must be {expected}{place}"))
}

fn quoted<'a>(cause: &'a str, prefix: &str) -> Option<&'a str> {
    cause.strip_prefix(prefix)?.strip_prefix('`')?.strip_suffix('`')
}

fn pointer_part(segment: &serde_path_to_error::Segment) -> String {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } | Segment::Enum { variant: key } => format!("/{}", escaped(key)),
        Segment::Unknown => String::new(),
    }
}

/// Returns the JSON pointer to an unknown member, or `None` for an element of an array.
fn pointer_to_member(path: &serde_ignored::Path<'_>) -> Option<String> {
    matches!(path, serde_ignored::Path::Map { .. }).then(|| pointer(path))
}

fn pointer(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}/{index}", pointer(parent)),
        Path::Map { parent, key } => format!("{}/{}", pointer(parent), escaped(key)),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => pointer(parent),
    }
}

/// Escapes a name for a JSON pointer (RFC 6901), and truncates it to [`NAME_MAX`] characters.
fn escaped(name: &str) -> String {
    let name: String = name.chars().take(NAME_MAX).collect();
    name.replace('~', "~0").replace('/', "~1")
}

/// A value that JSON bodies contain as a string, for example an id, which the program handles as a number.
#[derive(Debug, Clone, Copy)]
pub struct JsonText<T>(pub T);

impl<T: fmt::Display> Serialize for JsonText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A value that must be a JSON object. Without this wrapper, serde would also accept a JSON array with the values of
/// the members.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::extract::RawField;

    #[derive(Debug, serde::Deserialize)]
    struct Outer<'a> {
        #[serde(default)]
        flag: bool,
        #[serde(borrow)]
        items: Vec<Item<'a>>,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Inner<'a> {
        #[serde(borrow, default)]
        amount: RawField<'a>,
    }

    type Item<'a> = BoxedObject<'a>;

    #[derive(Debug, serde::Deserialize)]
    #[serde(from = "Object<Inner<'a>>")]
    struct BoxedObject<'a>(#[serde(borrow)] Inner<'a>);

    impl<'a> From<Object<Inner<'a>>> for BoxedObject<'a> {
        fn from(Object(inner): Object<Inner<'a>>) -> Self {
            Self(inner)
        }
    }

    fn errors(body: &str) -> Vec<(String, String)> {
        match read::<Outer<'_>>(body.as_bytes()) {
            Err(Error::Invalid(errors)) => {
                errors.into_iter().map(|error| (error.pointer, error.detail)).collect()
            }
            other => panic!("{body}: {other:?}"),
        }
    }

    #[test]
    fn members_keep_their_text() {
        let body = br#" {"flag":true,"items":[{"amount":1.10},{"amount":null},{}]} "#;

        let read: Outer<'_> = read(body).expect("valid");

        assert!(read.flag);
        let amounts: Vec<_> = read.items.iter().map(|item| item.0.amount.raw()).collect();
        assert_eq!(amounts, [Some("1.10"), None, None]);
    }

    #[test]
    fn every_unknown_member_is_named() {
        let found = errors(r#"{"items":[{"amount":1},{"x/y":{"z":1}}],"more":[1,2],"~":0}"#);

        let pointers: Vec<_> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(pointers, ["/items/1/x~1y", "/more", "/~0"]);
        assert!(found.iter().all(|(_, detail)| detail == "is not a known member"));
    }

    #[test]
    fn what_another_program_sends_may_have_more_members() {
        let read = read_foreign::<Outer<'_>>(br#"{"items":[{"more":1}],"version":"4"}"#);

        assert_eq!(read.expect("valid").items.len(), 1);
        assert!(read_foreign::<Outer<'_>>(b"[true,[]]").is_err());
    }

    #[test]
    fn an_array_is_no_object() {
        for (body, pointer) in [
            ("[true,[]]", ""),
            ("null", ""),
            ("\"text\"", ""),
            ("7", ""),
            (r#"{"items":[{},["1.00"]]}"#, "/items/1"),
        ] {
            let found = errors(body);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].0, pointer, "{body}");
            assert!(found[0].1.starts_with("must be an object (line 1, column "), "{found:?}");
        }
    }

    #[test]
    fn other_mistakes_have_a_pointer_and_words_of_json() {
        for (body, pointer, detail) in [
            (r#"{"items":{}}"#, "/items", "must be an array (line 1, column 9)"),
            (r#"{"flag":1,"items":[]}"#, "/flag", "must be true or false (line 1, column 9)"),
            (r#"{"flag":true}"#, "/items", "is required"),
            (r#"{"items":[],"items":[]}"#, "/items", "is given twice (line 1, column 19)"),
            (
                r#"{"items":[{"amount":1,"amount":2}]}"#,
                "/items/0/amount",
                "is given twice (line 1, column 30)",
            ),
        ] {
            assert_eq!(errors(body), [(pointer.to_owned(), detail.to_owned())], "{body}");
        }
    }

    #[test]
    fn text_that_is_not_json_is_malformed_whatever_comes_first() {
        for body in ["", "{", "[1", "{\"flag\":1", "{\"items\":[]} x", "[] []"] {
            let read = read::<Outer<'_>>(body.as_bytes());
            assert!(matches!(read, Err(Error::MalformedJson(_))), "{body}: {read:?}");
        }
    }
}

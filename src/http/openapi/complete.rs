//! Completes the OpenAPI document: adds the failures, headers and examples that many operations have in common.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::example::sample;
use super::money;
use crate::error::{CredentialFault, Error};
use crate::http::decimal::MoneyFormat;
use crate::http::position::{STALE, STALE_OK};
use crate::http::problem::{ARCHIVED, PROBLEMS_STATUS, ProblemBody};

/// Trace id in examples.
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// Completes the OpenAPI document of the routes. `money` is the format in which the document describes amounts of
/// money, and `webhooks` describes the requests that the service sends to webhooks, by event name.
pub fn complete(document: utoipa::openapi::OpenApi, webhooks: Value, money: MoneyFormat) -> Value {
    let mut document =
        serde_json::to_value(document).expect("a document of names and texts always serializes");
    document["webhooks"] = webhooks;
    document["components"]["responses"] = failures();
    document["components"]["headers"] = headers();
    document["components"]["parameters"] =
        json!({ "Prefer": money::preference(money), "Stale": stale() });
    money::write(&mut document, money);
    let schemas = document["components"]["schemas"].clone();
    for (method, operation) in items(&mut document["paths"]).flat_map(operations) {
        complete_operation(method, operation, &schemas);
    }
    for (event, item) in document["webhooks"].as_object_mut().into_iter().flatten() {
        for (_, operation) in operations(item) {
            add_examples(operation, &schemas);
            operation["requestBody"]["content"]["application/json"]["example"]["type"] =
                event.as_str().into();
        }
    }
    document
}

fn items(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    object.as_object_mut().into_iter().flat_map(Map::values_mut)
}

/// Returns the operations of a path, each with its HTTP method.
fn operations(item: &mut Value) -> impl Iterator<Item = (&str, &mut Map<String, Value>)> {
    let members = item.as_object_mut().into_iter().flatten();
    members.filter_map(|(name, member)| Some((name.as_str(), member.as_object_mut()?)))
}

fn complete_operation(method: &str, operation: &mut Map<String, Value>, schemas: &Value) {
    let has = |operation: &Map<String, Value>, name: &str| {
        let mut parameters = operation.get("parameters").and_then(Value::as_array).into_iter();
        parameters.any(|all| all.iter().any(|parameter| parameter["name"] == name))
    };
    let (is_replayable, is_page) = (has(operation, "Idempotency-Key"), has(operation, "after"));
    let is_conditional = has(operation, "If-None-Match");
    for parameter in
        operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten()
    {
        // Query parameters and headers cannot have the value null, unlike members of a body.
        if let Some(schema) = parameter.get_mut("schema") {
            remove_null(schema);
        }
    }
    let has_body = operation.contains_key("requestBody");
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else {
        return;
    };
    let answers_problems = responses.remove(PROBLEMS_STATUS).is_some();
    let is_read = method == "get" && answers_problems && responses.contains_key("200");
    let own = responses.iter_mut().filter(|(_, response)| response.get("$ref").is_none());
    for (status, response) in own {
        let mut names = vec!["X-Request-Id"];
        let is_success = status.starts_with('2') || status == "304";
        names.extend((is_success && is_conditional).then_some("ETag"));
        names.extend((is_success && is_replayable).then_some("Idempotent-Replayed"));
        names.extend((is_success && is_page).then_some("Link"));
        names.extend((is_success && answers_problems).then_some("Preference-Applied"));
        names.extend((status == "201" && method == "post").then_some("Location"));
        names.extend((is_success && is_read).then_some("Book-Position"));
        let headers = names.into_iter().map(|name| (name.to_owned(), reference("headers", name)));
        response["headers"] = Value::Object(headers.collect());
    }
    for (status, name) in FAILURES {
        if answers_problems && can_fail(method, has_body, is_replayable, status)
            || status.is_server_error() && status != StatusCode::INTERNAL_SERVER_ERROR
        {
            let status = status.as_str().to_owned();
            responses.entry(status).or_insert_with(|| reference("responses", name));
        }
    }
    if answers_problems {
        let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
        let parameters = parameters.as_array_mut().expect("a list");
        parameters.push(reference("parameters", "Prefer"));
        parameters.extend(is_read.then(|| reference("parameters", "Stale")));
    }
    add_examples(operation, schemas);
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn remove_null(schema: &mut Value) {
    if let Some(types) = schema.get_mut("type").and_then(Value::as_array_mut) {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(choices) = schema.get_mut("oneOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [only] = choices.as_slice() {
            *schema = only.clone();
        }
    }
}

/// Adds an example to each request body and response body of an operation.
fn add_examples(operation: &mut Map<String, Value>, schemas: &Value) {
    let bodies = operation.get_mut("requestBody").into_iter();
    let bodies = bodies.filter_map(|body| body.get_mut("content")?.as_object_mut());
    bodies.for_each(|content| add_example(content, schemas));
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut);
    for response in responses.into_iter().flat_map(Map::values_mut) {
        if let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) {
            add_example(content, schemas);
        }
    }
}

fn add_example(content: &mut Map<String, Value>, schemas: &Value) {
    let Some(json) = content.get_mut("application/json") else { return };
    if json.get("example").is_none_or(Value::is_null)
        && let Some(example) = sample(&json["schema"], schemas)
    {
        json["example"] = example;
    }
}

/// The failures that many operations have in common: HTTP status, and name of the response in the document.
const FAILURES: [(StatusCode, &str); 14] = [
    (StatusCode::BAD_REQUEST, "BadRequest"),
    (StatusCode::UNAUTHORIZED, "Unauthenticated"),
    (StatusCode::FORBIDDEN, "Forbidden"),
    (StatusCode::NOT_FOUND, "NotFound"),
    (StatusCode::CONFLICT, "Conflict"),
    (StatusCode::GONE, ARCHIVED),
    (StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
    (StatusCode::UNPROCESSABLE_ENTITY, "Unprocessable"),
    (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests"),
    (StatusCode::INTERNAL_SERVER_ERROR, "Internal"),
    (StatusCode::BAD_GATEWAY, "Unreachable"),
    (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
    (StatusCode::GATEWAY_TIMEOUT, "Unanswered"),
];

/// Whether an operation can fail with this status.
fn can_fail(method: &str, has_body: bool, is_replayable: bool, status: StatusCode) -> bool {
    match status {
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNSUPPORTED_MEDIA_TYPE => has_body,
        StatusCode::CONFLICT => method != "get",
        // A replay can fail because the first request with its key is archived. Operations that read old transfers
        // declare this status themselves.
        StatusCode::GONE => is_replayable,
        _ => true,
    }
}

/// Returns an example error for the status, and a description of the status.
fn failure(status: StatusCode) -> (Error, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => {
            let cause = "expected `,` or `}` at line 1 column 17".to_owned();
            (Error::MalformedJson(cause), "The body is not valid JSON, or a field is invalid")
        }
        StatusCode::UNAUTHORIZED => {
            let error = Error::Unauthenticated(CredentialFault::Missing);
            (error, "The credential is missing, wrong, revoked or expired")
        }
        StatusCode::FORBIDDEN => {
            (Error::ScopeMissing("wallet:write"), "The credential lacks the required permission")
        }
        StatusCode::NOT_FOUND => {
            (Error::NotFound("wallet"), "The resource does not exist, or the caller may not see it")
        }
        StatusCode::CONFLICT => {
            (Error::WalletFrozen, "The current state of the resource forbids the operation")
        }
        StatusCode::GONE => {
            let until = time::macros::datetime!(2026-01-31 12:00 UTC);
            (Error::Archived { until }, "The operator has archived the requested transfers")
        }
        StatusCode::PAYLOAD_TOO_LARGE => {
            (Error::BodyTooLarge { limit: crate::http::BODY_BYTES_MAX }, "The body is too large")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Error::UnsupportedMediaType, "The body is not sent as JSON, or is compressed")
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            let (available, required) = ("5.00".to_owned(), "7.50".to_owned());
            let error = Error::InsufficientFunds { available, required };
            (error, "A field or a parameter is invalid, or funds are insufficient")
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let wait = std::time::Duration::from_secs(8);
            (
                Error::TooManyRequests { wait },
                "Too many failed attempts, or too many requests from the client's address",
            )
        }
        StatusCode::BAD_GATEWAY => (Error::Unreachable, "The edge proxy cannot reach the service"),
        StatusCode::SERVICE_UNAVAILABLE => (Error::Overloaded, "The service is unavailable now"),
        StatusCode::GATEWAY_TIMEOUT => {
            (Error::Unanswered, "The service did not respond to the edge proxy in time")
        }
        _ => (Error::Internal(anyhow::anyhow!("an example")), "The service failed"),
    }
}

/// Returns the responses of the common failures, each with a complete body as an example.
fn failures() -> Value {
    let responses = FAILURES.map(|(status, name)| {
        let (error, description) = failure(status);
        let mut headers = json!({ "X-Request-Id": reference("headers", "X-Request-Id") });
        if error.retry_after().is_some() {
            headers["Retry-After"] = reference("headers", "Retry-After");
        }
        if status == StatusCode::UNAUTHORIZED {
            headers["WWW-Authenticate"] = reference("headers", "WWW-Authenticate");
        }
        let example = serde_json::to_value(ProblemBody::new(&error, TRACE_ID));
        let body = json!({
            "schema": reference("schemas", "Problem"),
            "example": example.expect("strings and numbers always serialize"),
        });
        let content = json!({ "application/problem+json": body });
        let response =
            json!({ "description": description, "headers": headers, "content": content });
        (name.to_owned(), response)
    });
    Value::Object(responses.into_iter().collect())
}

/// Returns the query parameter `stale`, with which a client allows a read replica to serve the response.
fn stale() -> Value {
    json!({
        "name": STALE,
        "in": "query",
        "description": "`ok` allows a read replica, if there is one, to serve a slightly stale response. \
            The `Book-Position` header says how current the response is.",
        "schema": { "type": "string", "enum": [STALE_OK] },
    })
}

/// Returns the response headers that several operations have in common.
fn headers() -> Value {
    let text = |description: &str, example: &str| json!({ "description": description, "schema": { "type": "string" }, "example": example });
    json!({
        "X-Request-Id": text("Id of the request, which all log lines about the request contain", TRACE_ID),
        "Book-Position": text(
            "Opaque position up to which the response reflects the ledger and its events. \
             A subscription at `/ws` that begins after this position misses no event.",
            "AAAAAAAAACoAAAAAAAAABw",
        ),
        "ETag": text("Version of the response, for `If-None-Match`", "W/\"0af7651916cd43dd8448eb211c80319c\""),
        "Idempotent-Replayed": text("`true` if an earlier request with the same idempotency key took effect", "true"),
        "Link": text(
            "Link to the next page (`rel=\"next\"`), if there may be more entries",
            "</wallet?limit=100&after=100>; rel=\"next\"",
        ),
        "Location": text("Path of the created resource", "/wallet/7"),
        "Preference-Applied": text("Preference that the response follows", "money=string"),
        "Retry-After": {
            "description": "Seconds to wait before another attempt",
            "schema": { "type": "integer" },
            "example": 1,
        },
        "WWW-Authenticate": text("Authentication scheme that the service accepts", "Bearer"),
    })
}

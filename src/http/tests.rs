//! Tests of the middleware, with routes that fail in different ways.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;

use super::BODY_BYTES_MAX;
use super::body::JsonBody;
use super::context::RecordRouteLayer;
use super::cors::CorsOrigins;
use super::decimal::MoneyFormat;
use super::extract::{Path, Query, RawField, Validator};
use super::middleware::{PipelineOptions, RequestPipeline};
use crate::error::{Error, Result};
use crate::telemetry::{ExpositionFormat, Metrics};

#[derive(Deserialize)]
struct Greeting<'a> {
    #[serde(borrow, default)]
    name: RawField<'a>,
    #[serde(borrow, default)]
    age: RawField<'a>,
}

#[derive(Deserialize)]
struct Page {
    limit: Option<u16>,
}

async fn greet(body: JsonBody) -> Result<String> {
    let Greeting { name, age } = body.read()?;
    let mut check = Validator::default();
    let name = check.required("/name", &name, |raw| {
        serde_json::from_str::<String>(raw).map_err(|_| "must be a string".to_owned())
    });
    let age = check.required("/age", &age, |raw| {
        raw.parse::<u8>().map_err(|_| "must be a small number".to_owned())
    });
    let (name, age) = check.finish(name.zip(age))?;
    Ok(format!("{name} is {age}"))
}

async fn item(Path(id): Path<u32>, Query(page): Query<Page>) -> String {
    format!("{id} {}", page.limit.unwrap_or(100))
}

async fn fall_over() {
    panic!("the secret of the panic");
}

fn pipeline(requests_max: usize) -> RequestPipeline {
    let router = Router::new()
        .route("/greet", post(greet))
        .route("/items/{id}", get(item))
        .route("/slow", get(async || std::future::pending::<()>().await))
        .route("/panic", get(fall_over))
        .route("/broken", get(async || Error::Internal(anyhow::anyhow!("the secret of the cause"))))
        .fallback(async || Error::NotFound("path"))
        .method_not_allowed_fallback(async |method: Method| Error::MethodNotAllowed(method))
        .layer(RecordRouteLayer);
    let options = PipelineOptions {
        rpc_methods: super::rpc::RpcMethods::default(),
        requests_max,
        timeout: Duration::from_millis(20),
        cors_origins: CorsOrigins::default(),
        money: MoneyFormat::default(),
        log_success_ratio: 1.0,
    };
    RequestPipeline::new(router, &options, Metrics::new())
}

fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path)
}

fn json(path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = request("POST", path).header(header::CONTENT_TYPE, "application/json");
    request.body(body.into()).expect("a valid request")
}

async fn text(pipeline: &RequestPipeline, request: Request<Body>) -> (StatusCode, String) {
    let response = pipeline.respond(request, None).await;
    let status = response.status();
    let bytes = response.into_body().collect().await.expect("a body in memory").to_bytes();
    (status, String::from_utf8(bytes.to_vec()).expect("text"))
}

/// Asserts the properties that all problems share, and returns the body.
async fn problem(
    pipeline: &RequestPipeline,
    request: Request<Body>,
    status: u16,
    slug: &str,
) -> Value {
    let response = pipeline.respond(request, None).await;
    assert_eq!(response.status(), status, "{slug}");
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
    let request_id = response.headers()["x-request-id"].clone();
    let bytes = response.into_body().collect().await.expect("a body in memory").to_bytes();
    let body: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(body["type"], format!("/problems/{slug}"));
    assert_eq!(body["status"], status);
    assert_eq!(body["error"], body["title"]);
    assert_eq!(body["details"], body["detail"]);
    assert_eq!(body["message"], body["detail"]);
    assert_eq!(body["trace_id"], request_id.to_str().expect("visible characters"));
    assert!(!body.to_string().contains("secret"), "{body}");
    body
}

#[tokio::test]
async fn whatever_fails_is_a_problem() {
    let pipeline = pipeline(10);
    let empty = |method, path| request(method, path).body(Body::empty()).expect("a request");

    problem(&pipeline, empty("GET", "/nope"), 404, "not-found").await;
    problem(&pipeline, empty("GET", "/items/x"), 404, "not-found").await;
    problem(&pipeline, empty("PATCH", "/items/1"), 405, "method-not-allowed").await;
    problem(&pipeline, empty("GET", "/items/1?limit=x"), 422, "invalid").await;
    problem(&pipeline, empty("GET", "/panic"), 500, "internal").await;
    problem(&pipeline, empty("GET", "/broken"), 500, "internal").await;
    problem(&pipeline, empty("GET", "/slow"), 503, "timeout").await;
    problem(&pipeline, empty("POST", "/greet"), 415, "unsupported-media-type").await;
    problem(&pipeline, json("/greet", "{"), 400, "malformed-json").await;
    problem(&pipeline, json("/greet", "[1]"), 422, "invalid").await;
    problem(&pipeline, json("/greet", vec![b' '; BODY_BYTES_MAX + 1]), 413, "body-too-large").await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let request = request("PATCH", "/items/1").body(Body::empty()).expect("a request");

    let response = pipeline(10).respond(request, None).await;

    assert_eq!(response.headers()[header::ALLOW], "GET,HEAD");
}

#[tokio::test]
async fn every_broken_member_is_listed() {
    let body = problem(&pipeline(10), json("/greet", r#"{"age":999}"#), 422, "invalid").await;

    assert_eq!(
        body["errors"],
        serde_json::json!([
            { "pointer": "/name", "detail": "is required" },
            { "pointer": "/age", "detail": "must be a small number" },
        ])
    );
}

#[tokio::test]
async fn a_trailing_slash_changes_nothing() {
    let pipeline = pipeline(10);
    for path in ["/items/7?limit=3", "/items/7/?limit=3", "/items/7//?limit=3"] {
        let request = request("GET", path).body(Body::empty()).expect("a request");

        assert_eq!(text(&pipeline, request).await, (StatusCode::OK, "7 3".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn one_request_too_many_is_told_to_come_back() {
    let pipeline = Arc::new(pipeline(0));
    let request = request("GET", "/items/1").body(Body::empty()).expect("a request");

    problem(&pipeline, request, 503, "overloaded").await;
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_replaced() {
    let pipeline = pipeline(10);
    let long = "a".repeat(129);
    for (given, kept) in [("a-b_c.1", true), ("a b", false), ("a\"b", false), (&long, false)] {
        let request = request("GET", "/items/1").header("x-request-id", given).body(Body::empty());

        let response = pipeline.respond(request.expect("a request"), None).await;

        assert_eq!(response.headers()["x-request-id"] == given, kept, "{given}");
    }
}

#[tokio::test]
async fn the_trace_of_the_caller_is_continued() {
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = request("GET", "/nope")
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .body(Body::empty())
        .expect("a request");

    let body = problem(&pipeline(10), request, 404, "not-found").await;

    assert_eq!(body["trace_id"], trace);
}

#[tokio::test]
async fn a_client_that_leaves_is_counted() {
    let pipeline = pipeline(10);
    let request = request("GET", "/slow").body(Body::empty()).expect("a request");

    let left =
        tokio::time::timeout(Duration::from_millis(1), pipeline.respond(request, None)).await;

    assert!(left.is_err());
    let exposition = crate::telemetry::Exposition::new(Arc::clone(&pipeline.calls.metrics), []);
    let rendered = exposition.render(ExpositionFormat::Prometheus);
    assert!(rendered.contains(r#"wallet_http_rejected_total{reason="client_gone"} 1"#));
    assert!(rendered.contains("http_server_active_requests 0"), "{rendered}");
}

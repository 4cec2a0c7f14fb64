//! CORS: pages of other origins, `--cors-origins`.

use http::Method;
use serde_json::json;

use crate::harness::{Response, TestApp, run, run_with};

const PAGE: &str = "https://app.example.com";

async fn preflight(app: &TestApp, origin: &str) -> Response {
    let request = app
        .request(Method::OPTIONS, "/wallet/deposit")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,idempotency-key");
    app.send(request).await
}

async fn from_page(app: &TestApp, origin: &str, path: &str) -> Response {
    app.send(app.request(Method::GET, path).header("origin", origin)).await
}

#[tokio::test]
async fn no_other_origin_is_allowed_by_default() {
    run(async |app| {
        let response = preflight(app, PAGE).await;

        response.problem(405, "method-not-allowed");
        for response in [response, from_page(app, PAGE, "/openapi.json").await] {
            let named = response.headers.keys().any(|name| name.as_str().starts_with("access-"));
            assert!(!named, "{:?}", response.headers);
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_call_the_api_and_read_refusals() {
    let setting = format!("--cors-origins={PAGE},http://localhost:3000");
    run_with(&[&setting], async |app| {
        let response = preflight(app, PAGE).await;
        assert_eq!((response.status, response.text.as_str()), (200, ""));
        assert_eq!(response.header("access-control-allow-origin"), PAGE);
        assert_eq!(response.header("access-control-max-age"), "3600");
        assert!(response.header("access-control-allow-methods").contains("POST"));
        let allowed = response.header("access-control-allow-headers");
        assert!(["authorization", "idempotency-key"].iter().all(|name| allowed.contains(name)));
        // The headers of every response.
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        assert_eq!(response.header("x-request-id").len(), 32);

        let request = app.request(Method::POST, "/wallet").header("origin", PAGE);
        let opened = json!({ "owner": "alice", "currency": "EUR" });
        for response in [
            app.send(request.json(&opened)).await,
            from_page(app, PAGE, "/nope").await,
            from_page(app, "http://localhost:3000", "/problems").await,
        ] {
            let origin = response.header("access-control-allow-origin");
            assert!([PAGE, "http://localhost:3000"].contains(&origin), "{origin}");
            assert!(response.header("access-control-expose-headers").contains("x-request-id"));
            let varies = response.headers.get_all("vary").iter().any(|value| value == "origin");
            assert!(varies, "{:?}", response.headers);
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_not_told_that_it_may() {
    run_with(&[&format!("--cors-origins={PAGE}")], async |app| {
        for origin in ["https://evil.example", "https://app.example.com.evil.example", "null"] {
            for response in
                [preflight(app, origin).await, from_page(app, origin, "/problems").await]
            {
                assert_eq!(response.header("access-control-allow-origin"), "", "{origin}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_wildcard_allows_every_origin_on_the_public_listener_only() {
    run_with(&["--cors-origins=*"], async |app| {
        assert_eq!(preflight(app, PAGE).await.header("access-control-allow-origin"), "*");
        let request = app.internal.request(Method::GET, "/readyz").header("origin", PAGE);
        let internal = app.internal.send(request).await;
        assert_eq!(internal.header("access-control-allow-origin"), "");
    })
    .await;
}

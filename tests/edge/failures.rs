//! Errors that the edge responds with itself: in the format of the API, or as a page for a browser.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use revwallet::error::{Error, PROBLEMS};
use revwallet::http::problem::ProblemBody;
use serde_json::Value;

use crate::harness::{Response, free_address};
use crate::nginx::{Edge, nginx_versions, run_behind_nginx};
use crate::stub;

/// Asserts that a response has every common header exactly once.
fn assert_common_headers(response: &Response) {
    for header in [
        "x-request-id",
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "content-security-policy",
        "permissions-policy",
        "cache-control",
    ] {
        let count = response.headers.get_all(header).iter().count();
        assert_eq!(count, 1, "{header}: {response:?}");
    }
    assert!(
        !response.headers.contains_key("strict-transport-security"),
        "Strict-Transport-Security is sent without TLS"
    );
    assert!(!response.header("server").contains('/'), "{}", response.header("server"));
}

/// Asserts that a response is the same problem that the API would send.
fn assert_same_as_api(response: &Response, error: &Error) {
    let problem = error.problem();
    let body = response.problem(problem.status.as_u16(), problem.slug);
    let trace_id = body["trace_id"].as_str().unwrap();
    assert_eq!(trace_id.len(), 32);
    let expected = serde_json::to_string(&ProblemBody::new(error, trace_id)).unwrap();
    assert_eq!(response.text, expected);
    let retry_after = problem.retry_after.map_or(String::new(), |wait| wait.as_secs().to_string());
    assert_eq!(response.header("retry-after"), retry_after);
    assert_common_headers(response);
}

#[tokio::test]
async fn an_unreachable_api_is_a_problem() {
    for nginx in nginx_versions() {
        let edge = Edge::start(&nginx, &free_address().to_string(), &[]).await;
        for path in
            ["/wallet?token=test-secret", "/api/users/1", "/exchange/login", "/openapi.json"]
        {
            let browser = edge.public.request(Method::GET, path).header("accept", "text/html,*/*");
            for request in [edge.public.request(Method::GET, path), browser] {
                let response = edge.public.send(request).await;
                assert_same_as_api(&response, &Error::Unreachable);
                let line = edge.line(response.header("x-request-id")).await;
                assert_eq!((&line["status"], &line["level"]), (&502.into(), &"WARN".into()));
                assert_eq!(line["trace_id"], response.json()["trace_id"]);
                assert_eq!(line["method"], "GET");
            }
        }
        let response = edge.public.post_with_key("/wallet/deposit", "key", Value::Null).await;
        assert_same_as_api(&response, &Error::Unreachable);
        let line = edge.line(response.header("x-request-id")).await;
        assert_eq!((&line["method"], &line["path"]), (&"POST".into(), &"/wallet/deposit".into()));
        let error = edge.lines().into_iter().find(|line| line["event"] == "nginx.error");
        let error = error.expect("nginx logs the reason")["message"].to_string();
        assert!(error.contains("refused") && error.contains("GET /wallet HTTP"), "{error}");
        edge.stop().await;
    }
}

#[tokio::test]
async fn an_api_that_does_not_respond_is_a_problem() {
    for nginx in nginx_versions() {
        let (silent, requests) = stub::unresponsive().await;
        let edge = Edge::start(&nginx, &silent.to_string(), &[("EDGE_TIMEOUT", "1s")]).await;
        let response = edge.public.get("/wallet").await;
        assert_same_as_api(&response, &Error::Unanswered);
        let response = edge.public.post_with_key("/wallet/deposit", "key", Value::Null).await;
        assert_same_as_api(&response, &Error::Unanswered);
        let exchange = edge.public.request(Method::GET, "/broker").header("host", "exchange.a.b");
        assert_same_as_api(&edge.public.send(exchange).await, &Error::Unanswered);
        assert_eq!(requests.load(Ordering::Relaxed), 3, "a request that timed out was sent again");
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_problem_that_names_the_limit() {
    run_behind_nginx(&[], &[], async |app, edge| {
        let send = async |path: &str, bytes: usize| {
            let body = format!("\"{}\"", "a".repeat(bytes - 2));
            let request = edge.public.request(Method::POST, path).body(body);
            edge.public.send(request.header("content-type", "application/json")).await
        };
        let (small, large) = (64 * 1024, 4 * 1024 * 1024);
        for (path, limit) in
            [("/wallet", small), ("/wallet/batch", large), ("/wallet/batch/", large)]
        {
            assert_same_as_api(&send(path, limit + 1).await, &Error::BodyTooLarge { limit });
            assert_eq!(send(path, limit).await.problem(422, "invalid")["status"], 422, "{path}");
        }
        // With an idempotency key, and chunked, without a content length.
        let parts = (0..5).map(move |_| Ok::<_, std::io::Error>("a".repeat(large / 4)));
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
        let request = edge.public.request(Method::POST, "/wallet/batch").body(chunked);
        let response = edge.public.send(request.header("idempotency-key", "key")).await;
        assert_same_as_api(&response, &Error::BodyTooLarge { limit: large });
        assert!(
            app.logs.find("error.type", "body-too-large").is_none(),
            "the request reached the API"
        );
    })
    .await;
}

#[tokio::test]
async fn too_many_requests_are_a_problem() {
    run_behind_nginx(&[], &[("EDGE_RATE", "5")], async |_, edge| {
        let responses = join_all((0..40).map(|_| edge.public.get("/wallet"))).await;

        let (accepted, rejected): (Vec<_>, Vec<_>) =
            responses.iter().partition(|response| response.status == 200);
        assert!(
            accepted.len() >= 10 && rejected.len() >= 10,
            "{} and {}",
            accepted.len(),
            rejected.len()
        );
        for response in rejected {
            assert_same_as_api(response, &Error::TooManyRequests { wait: Duration::ZERO });
            let line = edge.line(response.header("x-request-id")).await;
            assert_eq!(line["limit_req_status"], "REJECTED");
            assert_eq!(line["upstream"], "");
        }
    })
    .await;
}

#[tokio::test]
async fn too_many_concurrent_requests_are_a_problem() {
    for nginx in nginx_versions() {
        let (silent, _) = stub::unresponsive().await;
        let settings = [("EDGE_CONNECTIONS", "4"), ("EDGE_TIMEOUT", "2s")];
        let edge = Edge::start(&nginx, &silent.to_string(), &settings).await;
        let responses = join_all((0..12).map(|_| edge.public.get("/wallet"))).await;
        let count = |status| responses.iter().filter(|response| response.status == status).count();
        assert_eq!((count(504), count(429)), (4, 8));
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_malformed_request_is_a_problem() {
    run_behind_nginx(&[], &[], async |_, edge| {
        let long = "a".repeat(40_000);
        for (request, status) in [
            ("GET /wallet HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET /wallet HTTP/1.1\r\nhost: a b\r\n\r\n".to_owned(), 400),
            (format!("GET /wallet HTTP/1.1\r\nhost: a\r\ncookie: {long}\r\n\r\n"), 400),
            (format!("GET /wallet?{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 400),
            ("GET /wallet/%2e%2e/%2e%2e/etc HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
            ("POST /wallet HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n".to_owned(), 400),
            ("TRACE /wallet HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 405),
        ] {
            let response = edge.raw(&request).await;
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
            let body: Value =
                serde_json::from_str(response.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            let slug = body["type"].as_str().unwrap().trim_start_matches("/problems/");
            let problem = PROBLEMS.iter().find(|problem| problem.slug == slug).unwrap();
            assert_eq!(body["status"], status);
            assert_eq!(body["title"], problem.title);
        }
    })
    .await;
}

#[tokio::test]
async fn a_browser_gets_a_page_and_a_program_gets_a_problem() {
    run_behind_nginx(&[], &[], async |_, edge| {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let browse = async |method: Method, path: &str| {
            edge.public.send(edge.public.request(method, path).header("accept", accept)).await
        };
        for (path, status, text) in [
            ("/nope", 404, "Page not found"),
            ("/nope.css", 404, "Page not found"),
            ("/metrics", 404, "Page not found"),
            ("/welcome", 200, "Welcome"),
        ] {
            let response = browse(Method::GET, path).await;
            assert_eq!(response.status, status, "{path}");
            assert_eq!(response.header("content-type"), "text/html", "{path}");
            assert!(response.text.contains(text), "{path}: {}", response.text);
            assert_common_headers(&response);
            if status == 404 {
                let line = edge.line(response.header("x-request-id")).await;
                let trace_id = line["trace_id"].as_str().unwrap();
                assert!(response.text.contains(trace_id), "the page does not show the trace id");
            }
        }
        let welcome = edge.public.get("/welcome").await.text;
        let links: Vec<&str> = welcome.split("href=\"").skip(1).collect();
        assert!(links.len() > 5);
        for link in links.iter().map(|link| link.split('"').next().unwrap()) {
            let is_console = ["/grafana/", "/prometheus/", "/runbooks"].contains(&link);
            let expected = if is_console { 404 } else { 200 };
            assert_eq!(
                edge.public.get(link).await.status,
                expected,
                "{link}: consoles are disabled in this test"
            );
        }
        assert_same_as_api(&edge.public.get("/nope.css").await, &Error::NotFound("path"));
        assert_same_as_api(&browse(Method::POST, "/nope").await, &Error::NotFound("path"));
        for (path, content_type) in [
            ("/edge/style.css", "text/css"),
            ("/edge/edge.css", "text/css"),
            ("/edge/icon.svg", "image/svg+xml"),
        ] {
            let response = edge.public.get(path).await;
            assert_eq!((response.status, response.header("content-type")), (200, content_type));
        }
    })
    .await;
}

#[tokio::test]
async fn responses_of_the_api_pass_through_unchanged() {
    run_behind_nginx(&["--access=closed"], &[], async |app, edge| {
        for path in ["/wallet", "/api/users/7", "/problems/nope", "/wallet/batch"] {
            let (direct, proxied) = (app.get(path).await, edge.public.get(path).await);
            assert_eq!(proxied.status, direct.status);
            for (name, value) in &direct.headers {
                if !["date", "x-request-id", "content-length"].contains(&name.as_str()) {
                    assert_eq!(proxied.headers.get(name), Some(value), "{path}");
                }
            }
            assert_common_headers(&proxied);
            let comparable = |response: &Response| {
                let mut body = response.json();
                body["trace_id"].take();
                body
            };
            assert_eq!(comparable(&proxied), comparable(&direct), "{path}");
        }
    })
    .await;
}

//! What the edge answers when nobody behind it does, or when it does not ask: in the API's words, or by a page.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use revwallet::error::{Error, PROBLEMS};
use revwallet::http::problem::ProblemBody;
use serde_json::Value;

use crate::harness::{Answer, free_address};
use crate::nginx::{Edge, behind, each};
use crate::stub;

/// The headers that every answer has, exactly once.
fn is_dressed(answer: &Answer) {
    for header in [
        "x-request-id",
        "x-content-type-options",
        "x-frame-options",
        "referrer-policy",
        "content-security-policy",
        "permissions-policy",
        "cache-control",
    ] {
        let count = answer.headers.get_all(header).iter().count();
        assert_eq!(count, 1, "{header}: {answer:?}");
    }
    assert!(!answer.headers.contains_key("strict-transport-security"), "only with TLS");
    assert!(!answer.header("server").contains('/'), "{}", answer.header("server"));
}

/// Asserts that this is what the API would have written.
fn is_in_the_apis_words(answer: &Answer, error: &Error) {
    let problem = error.problem();
    let body = answer.problem(problem.status.as_u16(), problem.slug);
    let trace_id = body["trace_id"].as_str().unwrap();
    assert_eq!(trace_id.len(), 32);
    let expected = serde_json::to_string(&ProblemBody::new(error, trace_id)).unwrap();
    assert_eq!(answer.text, expected);
    let wait = problem.retry_after.map_or(String::new(), |wait| wait.as_secs().to_string());
    assert_eq!(answer.header("retry-after"), wait);
    is_dressed(answer);
}

#[tokio::test]
async fn an_api_that_is_gone_is_a_problem() {
    for nginx in each() {
        let edge = Edge::start(&nginx, &free_address().to_string(), &[]).await;
        for path in ["/wallet?token=planted", "/api/users/1", "/exchange/login", "/openapi.json"] {
            let browser = edge.public.request(Method::GET, path).header("accept", "text/html,*/*");
            for request in [edge.public.request(Method::GET, path), browser] {
                let answer = edge.public.send(request).await;
                is_in_the_apis_words(&answer, &Error::Unreachable);
                let line = edge.line(answer.header("x-request-id")).await;
                assert_eq!((&line["status"], &line["level"]), (&502.into(), &"WARN".into()));
                assert_eq!(line["trace_id"], answer.json()["trace_id"]);
                assert_eq!(line["method"], "GET");
            }
        }
        let answer = edge.public.keyed("/wallet/deposit", "key", Value::Null).await;
        is_in_the_apis_words(&answer, &Error::Unreachable);
        let line = edge.line(answer.header("x-request-id")).await;
        assert_eq!((&line["method"], &line["path"]), (&"POST".into(), &"/wallet/deposit".into()));
        let complaint = edge.lines().into_iter().find(|line| line["event"] == "nginx.error");
        let complaint = complaint.expect("nginx says why")["message"].to_string();
        assert!(
            complaint.contains("refused") && complaint.contains("GET /wallet HTTP"),
            "{complaint}"
        );
        edge.stop().await;
    }
}

#[tokio::test]
async fn an_api_that_does_not_answer_is_a_problem() {
    for nginx in each() {
        let (silent, asked) = stub::silent().await;
        let edge = Edge::start(&nginx, &silent.to_string(), &[("EDGE_TIMEOUT", "1s")]).await;
        let answer = edge.public.get("/wallet").await;
        is_in_the_apis_words(&answer, &Error::Unanswered);
        let answer = edge.public.keyed("/wallet/deposit", "key", Value::Null).await;
        is_in_the_apis_words(&answer, &Error::Unanswered);
        let elsewhere = edge.public.request(Method::GET, "/broker").header("host", "exchange.a.b");
        is_in_the_apis_words(&edge.public.send(elsewhere).await, &Error::Unanswered);
        assert_eq!(asked.load(Ordering::Relaxed), 3, "what it had taken was not sent once more");
        edge.stop().await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_problem_that_says_the_limit() {
    behind(&[], &[], async |app, edge| {
        let send = async |path: &str, bytes: usize| {
            let body = format!("\"{}\"", "a".repeat(bytes - 2));
            let request = edge.public.request(Method::POST, path).body(body);
            edge.public.send(request.header("content-type", "application/json")).await
        };
        let (small, large) = (64 * 1024, 4 * 1024 * 1024);
        for (path, limit) in
            [("/wallet", small), ("/wallet/batch", large), ("/wallet/batch/", large)]
        {
            is_in_the_apis_words(&send(path, limit + 1).await, &Error::BodyTooLarge { limit });
            assert_eq!(send(path, limit).await.problem(422, "invalid")["status"], 422, "{path}");
        }
        // With a key, and without a length in front.
        let parts = (0..5).map(move |_| Ok::<_, std::io::Error>("a".repeat(large / 4)));
        let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(parts));
        let request = edge.public.request(Method::POST, "/wallet/batch").body(chunked);
        let answer = edge.public.send(request.header("idempotency-key", "key")).await;
        is_in_the_apis_words(&answer, &Error::BodyTooLarge { limit: large });
        assert!(app.logs.find("error.kind", "body-too-large").is_none(), "the API was not asked");
    })
    .await;
}

#[tokio::test]
async fn too_many_requests_are_a_problem() {
    behind(&[], &[("EDGE_RATE", "5")], async |_, edge| {
        let answers = join_all((0..40).map(|_| edge.public.get("/wallet"))).await;

        let (some, others): (Vec<_>, Vec<_>) =
            answers.iter().partition(|answer| answer.status == 200);
        assert!(some.len() >= 10 && others.len() >= 10, "{} and {}", some.len(), others.len());
        for answer in others {
            is_in_the_apis_words(answer, &Error::TooManyRequests { wait: Duration::ZERO });
            let line = edge.line(answer.header("x-request-id")).await;
            assert_eq!(line["limit_req_status"], "REJECTED");
            assert_eq!(line["upstream"], "");
        }
    })
    .await;
}

#[tokio::test]
async fn too_many_at_once_are_a_problem() {
    for nginx in each() {
        let (silent, _) = stub::silent().await;
        let settings = [("EDGE_CONNECTIONS", "4"), ("EDGE_TIMEOUT", "2s")];
        let edge = Edge::start(&nginx, &silent.to_string(), &settings).await;
        let answers = join_all((0..12).map(|_| edge.public.get("/wallet"))).await;
        let count = |status| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((count(504), count(429)), (4, 8));
        edge.stop().await;
    }
}

#[tokio::test]
async fn what_is_no_http_is_a_problem() {
    behind(&[], &[], async |_, edge| {
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
            let answer = edge.raw(&request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            let body: Value =
                serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            let slug = body["type"].as_str().unwrap().trim_start_matches("/problems/");
            let problem = PROBLEMS.iter().find(|problem| problem.slug == slug).unwrap();
            assert_eq!(body["status"], status);
            assert_eq!(body["title"], problem.title);
        }
    })
    .await;
}

#[tokio::test]
async fn people_see_a_page_and_programs_a_problem() {
    behind(&[], &[], async |_, edge| {
        let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let ask = async |method: Method, path: &str| {
            edge.public.send(edge.public.request(method, path).header("accept", accept)).await
        };
        for (path, status, says) in [
            ("/nope", 404, "Page not found"),
            ("/nope.css", 404, "Page not found"),
            ("/metrics", 404, "Page not found"),
            ("/welcome", 200, "Welcome"),
        ] {
            let answer = ask(Method::GET, path).await;
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("content-type"), "text/html", "{path}");
            assert!(answer.text.contains(says), "{path}: {}", answer.text);
            is_dressed(&answer);
            if status == 404 {
                let line = edge.line(answer.header("x-request-id")).await;
                let trace_id = line["trace_id"].as_str().unwrap();
                assert!(answer.text.contains(trace_id), "the page says which request it was");
            }
        }
        let welcome = edge.public.get("/welcome").await.text;
        let links: Vec<&str> = welcome.split("href=\"").skip(1).collect();
        assert!(links.len() > 5);
        for link in links.iter().map(|link| link.split('"').next().unwrap()) {
            let console = ["/grafana/", "/prometheus/"].contains(&link);
            let expected = if console { 404 } else { 200 };
            assert_eq!(
                edge.public.get(link).await.status,
                expected,
                "{link}; consoles are off here"
            );
        }
        is_in_the_apis_words(&edge.public.get("/nope.css").await, &Error::NotFound("path"));
        is_in_the_apis_words(&ask(Method::POST, "/nope").await, &Error::NotFound("path"));
        for (path, content_type) in [
            ("/edge/style.css", "text/css"),
            ("/edge/edge.css", "text/css"),
            ("/edge/icon.svg", "image/svg+xml"),
        ] {
            let answer = edge.public.get(path).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, content_type));
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_api_says_goes_through_as_it_is() {
    behind(&["--access=closed"], &[], async |app, edge| {
        for path in ["/wallet", "/api/users/7", "/problems/nope", "/wallet/batch"] {
            let (direct, through) = (app.get(path).await, edge.public.get(path).await);
            assert_eq!(through.status, direct.status);
            for (name, value) in &direct.headers {
                if !["date", "x-request-id", "content-length"].contains(&name.as_str()) {
                    assert_eq!(through.headers.get(name), Some(value), "{path}");
                }
            }
            is_dressed(&through);
            let of = |answer: &Answer| {
                let mut body = answer.json();
                body["trace_id"].take();
                body
            };
            assert_eq!(of(&through), of(&direct), "{path}");
        }
    })
    .await;
}

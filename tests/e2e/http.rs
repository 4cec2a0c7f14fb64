//! What every answer has in common, over a real socket.

use reqwest::Method;
use serde_json::json;

use crate::harness::{run, run_with};

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    run(async |app| {
        app.get("/nope").await.problem(404, "not-found");
        app.internal.get("/nope").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    run(async |app| {
        let answer = app.send(app.request(Method::PATCH, "/openapi.json")).await;

        answer.problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), "GET,HEAD");
    })
    .await;
}

#[tokio::test]
async fn every_problem_has_a_page() {
    run(async |app| {
        for problem in revwallet::error::PROBLEMS {
            let page = app.get(&format!("/problems/{}", problem.slug)).await;

            assert_eq!(page.status, 200);
            assert!(page.text.contains(problem.title) && page.text.contains(problem.advice));
        }
        assert!(app.get("/problems").await.text.contains("/problems/not-found"));
        app.get("/problems/nope").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn paths_answer_with_and_without_their_trailing_slash() {
    run(async |app| {
        for path in ["/openapi.json", "/openapi.json/", "/docs", "/docs/", "/problems/"] {
            assert_eq!(app.get(path).await.status, 200, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_explorer_fetches_nothing_from_elsewhere() {
    run(async |app| {
        let page = app.get("/docs").await;

        assert!(!page.text.contains("http"), "{}", page.text);
        assert!(page.header("content-security-policy").starts_with("default-src 'self'"));
        for part in page.text.split('"').filter(|part| part.starts_with("/docs/")) {
            assert_eq!(app.get(part).await.status, 200, "{part}");
        }
        app.get("/docs/nope.js").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn the_document_is_served_and_names_its_version() {
    run(async |app| {
        let document = app.get("/openapi.json").await.json();

        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert!(document["components"]["schemas"]["Problem"].is_object());
    })
    .await;
}

#[tokio::test]
async fn http_2_without_tls_is_served_on_the_same_port() {
    run(async |app| {
        let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
        let url = format!("http://{}/openapi.json", app.address);

        let answer = client.get(url).send().await.unwrap();

        assert_eq!(answer.version(), reqwest::Version::HTTP_2);
        assert_eq!(answer.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_never_finishes_its_head_is_let_go() {
    run_with(&["--http-header-timeout=50ms"], async |app| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
        stream.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n").await.unwrap();

        let mut rest = Vec::new();
        let ended =
            tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_to_end(&mut rest));

        assert!(ended.await.is_ok(), "the connection stayed open");
    })
    .await;
}

#[tokio::test]
async fn the_internal_listener_is_apart() {
    run(async |app| {
        app.get("/metrics").await.problem(404, "not-found");
        app.get("/readyz").await.problem(404, "not-found");

        assert_eq!(app.internal.get("/livez").await.status, 200);
        assert_eq!(app.internal.get("/readyz").await.json(), json!({ "status": "ready" }));
    })
    .await;
}

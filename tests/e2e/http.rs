//! Behavior that all responses share, over a real socket.

use std::io::Read;

use flate2::read::GzDecoder;
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
async fn a_wrong_method_is_refused_with_the_allowed_ones() {
    run(async |app| {
        let response = app.send(app.request(Method::PATCH, "/openapi.json")).await;

        response.problem(405, "method-not-allowed");
        assert_eq!(response.header("allow"), "GET,HEAD");
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
async fn paths_work_with_and_without_a_trailing_slash() {
    run(async |app| {
        for path in ["/openapi.json", "/openapi.json/", "/docs", "/docs/", "/problems/"] {
            assert_eq!(app.get(path).await.status, 200, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_api_explorer_loads_nothing_from_other_hosts() {
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
async fn the_api_explorer_is_compressed_for_clients_that_accept_gzip() {
    run(async |app| {
        let path = "/docs/swagger-ui-bundle.js";
        let plain = app.get(path).await;
        let get = async |accept| {
            let request = app.request(Method::GET, path).header("accept-encoding", accept);
            let response = request.send().await.unwrap();
            let encoding = response.headers().get("content-encoding").cloned();
            (encoding, response.bytes().await.unwrap())
        };

        assert!(!plain.headers.contains_key("content-encoding"));
        assert_eq!(plain.header("vary"), "accept-encoding");
        assert!(plain.text.contains("SwaggerUIBundle"));
        for accept in ["br", "identity", "gzip;q=0, br"] {
            let (encoding, body) = get(accept).await;
            assert_eq!(encoding, None, "{accept}");
            assert!(body == plain.text, "{accept}");
        }
        for accept in ["gzip", "deflate, GZIP, br"] {
            let (encoding, body) = get(accept).await;
            assert_eq!(encoding.unwrap(), "gzip", "{accept}");
            let mut text = String::new();
            GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
            assert!(text == plain.text, "{accept}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_openapi_document_is_served_and_names_its_version() {
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

        let response = client.get(url).send().await.unwrap();

        assert_eq!(response.version(), reqwest::Version::HTTP_2);
        assert_eq!(response.status(), 200);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_never_completes_its_headers_is_disconnected() {
    run_with(&["--http-header-timeout=50ms"], async |app| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(app.address).await.unwrap();
        stream.write_all(b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n").await.unwrap();

        let mut received = Vec::new();
        let closed = tokio::time::timeout(
            std::time::Duration::from_secs(5),
            stream.read_to_end(&mut received),
        );

        assert!(closed.await.is_ok(), "the connection stayed open");
    })
    .await;
}

#[tokio::test]
async fn internal_routes_exist_only_on_the_internal_listener() {
    run(async |app| {
        app.get("/metrics").await.problem(404, "not-found");
        app.get("/readyz").await.problem(404, "not-found");

        assert_eq!(app.internal.get("/livez").await.status, 200);
        assert_eq!(app.internal.get("/readyz").await.json(), json!({ "status": "ready" }));
    })
    .await;
}

//! Compression: the responses that are compressed when the client accepts it, and those that never are.

use std::io::Read;

use flate2::read::GzDecoder;
use http::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::harness::{TestApp, run};

/// Headers and raw body of a response to a client that accepts gzip.
async fn gzip(app: &TestApp, path: &str) -> (HeaderMap, Vec<u8>) {
    let request = app.request(Method::GET, path).header("accept-encoding", "br;q=1, gzip;q=0.8");
    let response = request.send().await.unwrap();
    let headers = response.headers().clone();
    (headers, response.bytes().await.unwrap().to_vec())
}

fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text).unwrap();
    text
}

/// Opens a wallet with a history that is long enough to be compressed.
async fn wallet_with_history(app: &TestApp) -> String {
    let wallet = app.open_wallet("EUR", "10").await;
    for _ in 0..20 {
        let response = app.post("/wallet/deposit", json!({ "id": wallet, "amount": 1 })).await;
        assert_eq!(response.status, 200, "{}", response.text);
    }
    wallet
}

#[tokio::test]
async fn lists_statements_documents_and_pages_are_compressed_when_the_client_asks() {
    run(async |app| {
        let wallet = wallet_with_history(app).await;
        for path in [
            "/openapi.json",
            "/problems",
            "/assets/wallets.js",
            "/docs/swagger-ui.css",
            &format!("/wallet/{wallet}/history"),
            &format!("/wallet/{wallet}/statement"),
        ] {
            let plain = app.get(path).await;
            let (headers, body) = gzip(app, path).await;

            assert_eq!(headers["content-encoding"], "gzip", "{path}");
            assert_eq!(unpacked(&body), plain.text, "{path}");
            assert!(body.len() < plain.text.len() * 2 / 3, "{path}: {} bytes", body.len());
            let length = headers.get("content-length").map(|length| length.to_str().unwrap());
            assert!(length.is_none_or(|length| length == body.len().to_string()), "{path}");
            assert!(!plain.headers.contains_key("content-encoding"), "{path}");
            for headers in [&headers, &plain.headers] {
                assert_eq!(headers["vary"], "accept-encoding", "{path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_statement_of_many_pages_is_compressed_to_its_end() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;
        let other = app.open_wallet("EUR", "0").await;
        let one = json!({ "from": wallet, "to": other, "amount": "0.01" });
        let transfers = vec![one; 500];
        for _ in 0..2 {
            let response = app.post("/wallet/batch", json!({ "transfers": transfers })).await;
            assert_eq!(response.status, 200, "{}", response.text);
        }

        let (headers, body) = gzip(app, &format!("/wallet/{wallet}/statement")).await;

        assert_eq!(headers["content-encoding"], "gzip");
        let statement: Value = serde_json::from_str(&unpacked(&body)).unwrap();
        assert_eq!(statement["entries"].as_array().unwrap().len(), 1_002);
    })
    .await;
}

#[tokio::test]
async fn small_responses_and_those_to_other_methods_are_not_compressed() {
    run(async |app| {
        let wallet = wallet_with_history(app).await;
        let (headers, body) = gzip(app, &format!("/wallet/{wallet}")).await;
        assert!(!headers.contains_key("content-encoding"));
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["id"], *wallet);

        let one = json!({ "from": wallet, "to": wallet, "amount": 1 });
        let request = app.request(Method::POST, "/wallet/batch");
        let request = request.json(&json!({ "transfers": vec![one; 100] }));
        let response = app.send(request.header("accept-encoding", "gzip")).await;

        assert_eq!((response.status, response.header("content-encoding")), (200, ""));
        assert!(response.text.len() > 10_000, "{}", response.text.len());
    })
    .await;
}

/// tower-http alone would respond 406, after the handler has done its work.
#[tokio::test]
async fn a_client_that_accepts_no_encoding_gets_an_uncompressed_response() {
    run(async |app| {
        for accept in ["identity;q=0", "*;q=0", "gzip;q=0, identity;q=0", "zstd, *;q=0"] {
            for (method, path) in [(Method::GET, "/openapi.json"), (Method::POST, "/wallet")] {
                let request = app.request(method.clone(), path).header("accept-encoding", accept);
                let body = json!({ "owner": "alice", "currency": "EUR" });
                let request = if method == Method::POST { request.json(&body) } else { request };
                let response = app.send(request).await;

                assert!([200, 201].contains(&response.status), "{accept}: {}", response.status);
                assert_eq!(response.header("content-encoding"), "", "{accept}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_compressed_file_is_not_sent_again_while_it_is_the_same() {
    run(async |app| {
        let path = "/assets/wallets.js";
        let plain = app.get(path).await;
        let (headers, _body) = gzip(app, path).await;
        let tag = headers["etag"].to_str().unwrap();
        // The bytes differ, so the tag is weak.
        assert_eq!(tag, format!("W/{}", plain.header("etag")));

        for known in [tag, plain.header("etag"), &format!("\"other\", {tag}")] {
            for accept in ["gzip", "identity"] {
                let request = app.request(Method::GET, path).header("if-none-match", known);
                let again = app.send(request.header("accept-encoding", accept)).await;

                assert_eq!((again.status, again.text.as_str()), (304, ""), "{known} {accept}");
            }
        }
        let request = app.request(Method::GET, path).header("if-none-match", "W/\"other\"");
        assert_eq!(app.send(request).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_compressed_body_is_refused_and_the_problem_says_so() {
    run(async |app| {
        let request = app.request(Method::POST, "/wallet").header("content-encoding", "gzip");
        let response = app.send(request.json(&json!({ "owner": "ada" }))).await;

        let problem = response.problem(415, "unsupported-media-type");

        assert_eq!(problem["detail"], "send the body without compression");
        let request = app.request(Method::POST, "/wallet").header("content-encoding", "identity");
        let body = json!({ "owner": "ada", "initial_balance": 0, "currency": "EUR" });
        assert_eq!(app.send(request.json(&body)).await.status, 201);
    })
    .await;
}

//! Request bodies: unread bodies, oversized lists, and the memory budget.

use serde_json::json;

use super::RawClient;
use crate::harness::program::{Folder, Program};
use crate::harness::{eventually, run, run_with};

fn post(path: &str, length: usize, more: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n{more}\r\n"
    )
}

/// A batch of almost 4 MiB with as many elements as possible, far more than are allowed.
fn oversized_batch() -> String {
    let mut body = String::from(r#"{"transfers":[{}"#);
    body.push_str(&",{}".repeat(1_398_000));
    body.push_str("]}");
    assert!(body.len() < 4 * 1024 * 1024);
    body
}

#[tokio::test]
async fn a_refused_body_does_not_break_the_connection() {
    run_with(&["--access=closed"], async |app| {
        let mut client = RawClient::connect(app.address).await;
        let body = " ".repeat(50_000);
        for _ in 0..20 {
            // The router, the methods and the authentication refuse before they read the body.
            for (path, status) in [("/nope", 404), ("/problems", 405), ("/wallet/deposit", 401)] {
                client.send(post(path, body.len(), "")).await;
                client.send(&body).await;

                let response = client.response().await;

                assert_eq!(response.status, status, "{path}");
                assert!(!response.head.contains("connection: close"), "{}", response.head);
            }
            client.send("GET /problems HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(client.response().await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_whose_body_is_too_large_is_told_that_the_connection_closes() {
    run(async |app| {
        let body = vec![b' '; 3 * 1024 * 1024];
        for (path, status) in [("/wallet/deposit", 413), ("/nope", 404)] {
            let mut client = RawClient::connect(app.address).await;
            client.send(post(path, body.len(), "")).await;
            // The client sends the whole body before it reads the response.
            client.send(&body).await;

            let response = client.response().await;

            assert_eq!(response.status, status);
            assert!(response.has("connection: close"), "{}", response.head);
            assert!(client.is_closed().await);
        }
    })
    .await;
}

#[tokio::test]
async fn a_refused_client_that_expects_100_continue_is_not_asked_for_its_body() {
    run(async |app| {
        let mut client = RawClient::connect(app.address).await;
        client.send(post("/nope", 1_000, "expect: 100-continue\r\n")).await;

        let response = client.response().await;

        assert_eq!(response.status, 404, "{}", response.head);
        assert!(response.has("connection: close"), "{}", response.head);

        let mut client = RawClient::connect(app.address).await;
        let body = r#"{"owner":"alice","currency":"EUR"}"#;
        client.send(post("/wallet", body.len(), "expect: 100-continue\r\n")).await;
        assert_eq!(client.response().await.status, 100);
        client.send(body).await;
        assert_eq!(client.response().await.status, 201);
    })
    .await;
}

#[tokio::test]
async fn an_oversized_list_is_refused_without_building_its_elements() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let body = oversized_batch();
    let before = program.memory_peak_bytes();
    for _ in 0..3 {
        let mut client = RawClient::connect(program.public.address).await;
        client.send(post("/wallet/batch", body.len(), "")).await;
        client.send(&body).await;

        let problem = client.response().await.problem(422, "invalid");

        assert_eq!(problem["errors"][0]["pointer"], "/transfers");
        assert_eq!(problem["errors"][0]["detail"], "must be 1 to 10000");
    }
    // Building all elements takes 300 MB.
    let used = program.memory_peak_bytes() - before;
    assert!(used < 64 * 1024 * 1024, "{used}");
    program.kill();
}

#[tokio::test]
async fn an_oversized_list_of_events_is_refused() {
    run(async |app| {
        let many = vec!["*"; 15_000];
        let body = json!({ "url": "https://example.com/", "events": many });
        let problem = app.post("/wallet/webhook", body).await.problem(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], "/events");
    })
    .await;
}

#[tokio::test]
async fn large_unfinished_bodies_exhaust_only_the_share_of_their_address() {
    run(async |app| {
        let body = oversized_batch();
        let (most, last) = body.split_at(body.len() - 1);
        let mut held = Vec::new();
        for _ in 0..6 {
            let mut client = RawClient::connect_from("127.0.0.2", app.address).await;
            client.send(post("/wallet/batch", body.len(), "")).await;
            client.try_send(most).await;
            held.push(client);
        }

        // The share of an address fits three such bodies.
        let mut refused = 0;
        eventually("bodies beyond the share are refused", async || {
            let metrics = app.internal.get("/metrics").await.text;
            let series = r#"http_server_request_duration_seconds_count{http_request_method="POST",http_route="/wallet/batch",http_response_status_code="503"}"#;
            refused = super::metric(&metrics, series);
            refused >= 3
        })
        .await;
        assert_eq!(refused, 3);

        // Other addresses have their own shares.
        let other = app.open_wallet("EUR", "1").await;
        let transfers = vec![json!({ "from": other, "to": other, "amount": 1 }); 1_000];
        let response = app.post("/wallet/batch", json!({ "transfers": transfers })).await;
        assert_eq!(response.status, 200, "{}", response.text);

        let mut invalid = 0;
        for client in &mut held {
            client.try_send(last).await;
            let response = client.response().await;
            if response.status == 503 {
                assert!(response.has("retry-after: 1"), "{}", response.head);
            } else {
                response.problem(422, "invalid");
                invalid += 1;
            }
        }
        assert_eq!(invalid, 3);
    })
    .await;
}

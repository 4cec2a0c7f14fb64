//! Pipelined requests, and clients that do not read their responses.

use std::time::Duration;

use super::{RawClient, closed_by, metric};
use crate::harness::program::{Folder, Program};
use crate::harness::{eventually, run, run_with};

/// A large file that the program serves.
const FILE: &str = "/docs/swagger-ui-bundle.js";

/// Number of pipelined requests for it.
const REQUESTS: usize = 200;

/// Maximum memory that such a client may cost. Its responses have several times as many bytes.
const MEMORY_MAX: u64 = 64 * 1024 * 1024;

#[tokio::test]
async fn unread_responses_to_pipelined_requests_take_bounded_memory() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let length = program.public.get(FILE).await.text.len() as u64;
    assert!(length * REQUESTS as u64 > 3 * MEMORY_MAX, "{length}");
    let before = program.memory_bytes();
    let mut client = RawClient::connect(program.public.address).await;

    client.send(format!("GET {FILE} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(REQUESTS)).await;

    // The count stays the same once the server waits for the client.
    let series = r#"http_server_request_duration_seconds_count{http_request_method="GET",http_route="/docs/{file}",http_response_status_code="200"}"#;
    let (mut answered, mut unchanged) = (0, 0);
    eventually("the server waits for the client", async || {
        let now = metric(&program.internal.get("/metrics").await.text, series);
        unchanged = if now > 1 && now == answered { unchanged + 1 } else { 0 };
        answered = now;
        tokio::time::sleep(Duration::from_millis(50)).await;
        unchanged > 10
    })
    .await;
    let used = program.memory_bytes().saturating_sub(before);
    assert!(used < MEMORY_MAX, "{used} bytes for {answered} responses");

    // A client that reads gets all of them.
    for _ in 0..REQUESTS {
        assert_eq!(client.response().await.body.len() as u64, length);
    }
    program.kill();
}

#[tokio::test]
async fn responses_to_pipelined_requests_keep_their_order() {
    run(async |app| {
        let mut client = RawClient::connect(app.address).await;
        let paths = ["/problems/invalid", "/nope", "/problems/timeout", "/docs"];
        let heads = paths.map(|path| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).concat();

        client.send(heads.repeat(10)).await;

        for _ in 0..10 {
            for path in paths {
                let expected = app.get(path).await;
                let response = client.response().await;
                assert_eq!(response.status, expected.status, "{path}");
                if expected.status == 200 {
                    assert_eq!(String::from_utf8(response.body).unwrap(), expected.text, "{path}");
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_responses_is_disconnected() {
    run_with(&["--http-header-timeout=300ms"], async |app| {
        let mut client = RawClient::connect(app.address).await;

        client.send("GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n".repeat(20)).await;

        eventually("the connection is closed", async || closed_by(app, "stalled").await > 0).await;
    })
    .await;
}

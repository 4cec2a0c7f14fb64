//! Request heads that cannot be parsed, or are too large.

use super::{RawClient, metric};
use crate::harness::run;

/// More bytes than a head may have.
const TOO_LARGE: usize = 40 * 1024;

#[tokio::test]
async fn a_malformed_head_gets_a_problem() {
    run(async |app| {
        let malformed = [
            "GET / HTTP/9.9\r\nhost: x\r\n\r\n",
            "GET /a b HTTP/1.1\r\nhost: x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\ncontent-length: many\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0 a client that begins TLS\r\n\r\n",
            "hello\r\n\r\n",
        ];
        for head in malformed {
            let mut client = RawClient::connect(app.address).await;
            client.send(head).await;

            let response = client.response().await;

            let body = response.problem(400, "malformed-request");
            assert_eq!(body["title"], "Malformed request");
            assert!(response.has("connection: close"), "{}", response.head);
            assert!(response.head.contains("\r\ndate: "), "{}", response.head);
            assert!(client.is_closed().await, "{head}");
        }
        let metrics = app.internal.get("/metrics").await.text;
        let counted = metric(&metrics, "wallet_http_rejected_total{reason=\"malformed\"}");
        assert_eq!(counted, malformed.len());
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_and_a_uri_that_is_too_long_have_different_statuses() {
    run(async |app| {
        let long = "a".repeat(TOO_LARGE);
        for (head, status) in [
            (format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n"), 431),
            (format!("GET / HTTP/1.1\r\n{}\r\n", "x-many: 1\r\n".repeat(200)), 431),
            (format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), 414),
        ] {
            let mut client = RawClient::connect(app.address).await;
            client.try_send(head).await;

            client.response().await.problem(status, "malformed-request");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_before_a_malformed_head_gets_its_response() {
    run(async |app| {
        let mut client = RawClient::connect(app.address).await;

        client.send("GET /problems HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n").await;

        assert_eq!(client.response().await.status, 200);
        client.response().await.problem(400, "malformed-request");
        assert!(client.is_closed().await);
    })
    .await;
}

//! Shutdown beside clients that owe the rest of a request, do not read, or acknowledge nothing.

use super::RawClient;
use super::http_2::{get_problems, opening};
use crate::harness::eventually;
use crate::harness::program::{Folder, Program};

/// A shutdown timeout that is far below the other timeouts.
const SETTINGS: [&str; 3] =
    ["--shutdown-timeout=10s", "--http-timeout=2m", "--http-header-timeout=2m"];

/// Connects a client that sends these bytes and then nothing, not even the acknowledgement of a ping.
async fn client(program: &Program, says: impl AsRef<[u8]>) -> RawClient {
    let mut client = RawClient::connect(program.public.address).await;
    client.send(says).await;
    client
}

async fn stops_beside(clients: impl AsyncFnOnce(&Program) -> Vec<RawClient>) {
    let folder = Folder::new();
    let program = Program::start(&[&SETTINGS[..], &[&folder.setting()]].concat()).await;
    let clients = clients(&program).await;
    eventually("all clients are connected", async || {
        let metrics = program.internal.get("/metrics").await.text;
        super::metric(&metrics, "wallet_http_connections{listener=\"public\"}") >= clients.len()
    })
    .await;

    let status = program.stop().await;

    assert_eq!(status.code(), Some(0), "not everything ended in time");
    drop(clients);
}

#[tokio::test]
async fn half_sent_heads_do_not_delay_shutdown() {
    stops_beside(async |program| {
        let mut second = client(program, "GET /problems HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(second.response().await.status, 200);
        second.send("GET /problems HTTP/1.1\r\nho").await;
        vec![
            client(program, "").await,
            client(program, "PRI * HT").await,
            client(program, "GET / HTTP/1.1\r\nhost: x\r\n").await,
            second,
        ]
    })
    .await;
}

#[tokio::test]
async fn slow_bodies_do_not_delay_shutdown() {
    stops_beside(async |program| {
        let head = "POST /wallet HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
        let clients = vec![
            client(program, format!("{head}content-length: 1000\r\n\r\n{{")).await,
            client(program, format!("{head}transfer-encoding: chunked\r\n\r\n1\r\n{{\r\n")).await,
        ];
        eventually("the handlers wait for the bodies", async || {
            let metrics = program.internal.get("/metrics").await.text;
            // The scrape itself counts as one.
            super::metric(&metrics, "http_server_active_requests") > 2
        })
        .await;
        clients
    })
    .await;
}

#[tokio::test]
async fn unread_responses_do_not_delay_shutdown() {
    stops_beside(async |program| {
        let get = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut client = client(program, get.repeat(50)).await;
        client.receive().await;
        vec![client]
    })
    .await;
}

#[tokio::test]
async fn http_2_clients_that_acknowledge_no_ping_do_not_delay_shutdown() {
    stops_beside(async |program| {
        let mut asking = client(program, [opening(), get_problems(1)].concat()).await;
        asking.receive().await;
        vec![client(program, opening()).await, asking]
    })
    .await;
}

//! Limits on connections: deadlines, limit per address, eviction.

use super::{RawClient, closed_by, eventually_closed};
use crate::harness::{TestApp, eventually, run_with};

const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Status of a request of an honest client, on a new connection.
async fn honest(app: &TestApp) -> u16 {
    let mut client = RawClient::connect(app.address).await;
    client.send("GET /problems HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.response().await.status
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_in_time() {
    run_with(&["--http-header-timeout=200ms"], async |app| {
        let beginnings: [&[u8]; 5] = [
            b"",
            &HTTP_2_PREFACE[..1],
            &HTTP_2_PREFACE[..23],
            b"GET / HT",
            b"GET / HTTP/1.1\r\nhost: x\r\n",
        ];
        for beginning in beginnings {
            let mut client = RawClient::connect(app.address).await;
            client.send(beginning).await;

            assert!(client.is_closed().await, "{}", String::from_utf8_lossy(beginning));
        }
        assert!(closed_by(app, "no_request").await >= 5);
    })
    .await;
}

#[tokio::test]
async fn a_head_that_trickles_in_has_the_same_deadline() {
    run_with(&["--http-header-timeout=200ms"], async |app| {
        let mut client = RawClient::connect(app.address).await;
        let mut sent = 0;

        while closed_by(app, "no_request").await == 0 {
            client.try_send("x").await;
            sent += 1;
            assert!(sent < 2_000, "the connection stayed open");
        }

        assert!(client.is_closed().await);
    })
    .await;
}

#[tokio::test]
async fn silent_connections_do_not_block_others() {
    let settings = ["--http-connections-max=40", "--http-header-timeout=1h"];
    run_with(&settings, async |app| {
        let mut silent = Vec::new();
        for place in 0..120 {
            let mut client = RawClient::connect(app.address).await;
            client.send(&HTTP_2_PREFACE[..place % 24]).await;
            silent.push(client);

            if place % 10 == 0 {
                assert_eq!(honest(app).await, 200, "after {place}");
            }
        }

        assert_eq!(honest(app).await, 200);
        eventually_closed(app, "pressure", 80).await;
        // The oldest are evicted first.
        assert!(silent[0].is_closed().await);
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_evicted_after_silent_ones() {
    let settings = ["--http-connections-max=20", "--http-header-timeout=1h"];
    run_with(&settings, async |app| {
        let mut idle = Vec::new();
        for _ in 0..19 {
            let mut client = RawClient::connect(app.address).await;
            client.send("GET /problems HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(client.response().await.status, 200);
            idle.push(client);
        }
        let mut silent = RawClient::connect(app.address).await;

        assert_eq!(honest(app).await, 200);
        assert!(silent.is_closed().await);
        for client in &mut idle {
            client.send("GET /nope HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(client.response().await.status, 404);
        }

        let mut more = Vec::new();
        for _ in 0..19 {
            let mut client = RawClient::connect(app.address).await;
            client.send("GET /problems HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(client.response().await.status, 200);
            more.push(client);
        }
        assert!(idle[0].is_closed().await);
    })
    .await;
}

#[tokio::test]
async fn an_address_has_a_limit_of_connections() {
    let settings = ["--http-connections-per-address=5", "--http-header-timeout=1h"];
    run_with(&settings, async |app| {
        let mut held = Vec::new();
        for _ in 0..5 {
            held.push(RawClient::connect_from("127.0.0.2", app.address).await);
        }
        let mut one_more = RawClient::connect_from("127.0.0.2", app.address).await;

        assert!(one_more.is_closed().await);
        eventually_closed(app, "address", 1).await;
        assert_eq!(honest(app).await, 200, "another address");

        held.pop();
        // The server releases it when it notices the end.
        crate::harness::eventually("there is room again", async || {
            let mut client = RawClient::connect_from("127.0.0.2", app.address).await;
            client.try_send("GET /problems HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
            let mut response = Vec::new();
            let _reset =
                tokio::io::AsyncReadExt::read_to_end(&mut client.stream, &mut response).await;
            response.starts_with(b"HTTP/1.1 200")
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_is_exempt_from_the_limit() {
    let settings = ["--http-connections-per-address=5", "--trusted-proxies=127.0.0.0/8"];
    run_with(&settings, async |app| {
        let mut held = Vec::new();
        for _ in 0..20 {
            held.push(RawClient::connect(app.address).await);
        }

        for mut client in held {
            client.send("GET /problems HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(client.response().await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn closed_connections_are_logged_in_few_lines() {
    let settings = ["--http-connections-per-address=1", "--http-header-timeout=1h"];
    run_with(&settings, async |app| {
        let _held = RawClient::connect_from("127.0.0.2", app.address).await;
        for _ in 0..50 {
            assert!(RawClient::connect_from("127.0.0.2", app.address).await.is_closed().await);
        }

        let summaries = || -> Vec<_> {
            let lines = app.logs.lines().into_iter();
            lines.filter(|line| line["event"] == "http.connections_closed").collect()
        };
        eventually("the first summary is logged", async || !summaries().is_empty()).await;
        let summaries = summaries();
        assert!((1..=3).contains(&summaries.len()), "{summaries:?}");
        assert_eq!(summaries[0]["address"], 1);
    })
    .await;
}

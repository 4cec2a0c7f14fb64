//! `/ws` through the edge: the upgrade, both directions, the address of the client, idle connections, and a reload.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::json;

use crate::harness::{Socket, TestApp, eventually, run_with};
use crate::nginx::{Edge, TRUSTED_PROXIES, newest_nginx, run_behind_nginx};

/// Longest time that a ping may take on a busy machine.
const PING_MAX: Duration = Duration::from_mins(1);

/// Deposits, and asserts that the event arrives.
async fn assert_delivery(app: &TestApp, socket: &mut Socket, wallet: &str) {
    let body = json!({ "id": wallet, "amount": "2.00" });
    let deposited = app.post("/wallet/deposit", body).await;
    assert_eq!(deposited.status, 200, "{}", deposited.text);
    assert_eq!(socket.json().await["data"]["amount"], 2.0);
}

#[tokio::test]
async fn a_websocket_passes_the_edge() {
    run_behind_nginx(&["--realtime-connections-per-address=2"], &[], async |app, edge| {
        let wallet = app.open_wallet("EUR", "1").await;
        let mut socket = edge.public.socket_at("/ws").await;
        socket.subscribe(&format!("wallet:{wallet}")).await;

        assert_delivery(app, &mut socket, &wallet).await;

        // The position of a read passes as well.
        let read = edge.public.get(&format!("/wallet/{wallet}")).await;
        let position = read.header("book-position").to_owned();
        socket.subscribe_after(&format!("wallet:{wallet}"), &position).await;
        socket.is_silent().await;

        // All clients of this test have one address, which the edge reports.
        let _second = edge.public.socket_at("/ws/").await;
        let error = edge.public.try_socket("/ws", &[]).await.err().unwrap();
        assert!(error.to_string().contains("503"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn only_the_path_of_websockets_can_be_upgraded() {
    run_behind_nginx(&[], &[], async |_, edge| {
        for path in ["/wallet", "/ws/x"] {
            assert!(edge.public.try_socket(path, &[]).await.is_err(), "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn pings_keep_an_idle_websocket_open() {
    let Some(nginx) = newest_nginx() else { return };
    run_with(&[TRUSTED_PROXIES], async |app| {
        // Less than two intervals of pings: a ping that does not pass, or is not sent, ends the connection.
        let settings = [("EDGE_TIMEOUT", "25s")];
        let edge = Edge::start(&nginx, &app.address.to_string(), &settings).await;
        let wallet = app.open_wallet("EUR", "1").await;
        let mut socket = edge.public.socket_at("/ws").await;
        socket.subscribe(&format!("wallet:{wallet}")).await;

        for _ in 0..2 {
            let ping = tokio::time::timeout(PING_MAX, socket.0.next()).await;
            let ping = ping.expect("a ping arrives in time").expect("the connection is open");
            assert!(ping.unwrap().is_ping());
        }

        assert_delivery(app, &mut socket, &wallet).await;
        drop(socket);
        edge.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_reload_of_the_edge_ends_no_websocket_at_once() {
    run_behind_nginx(&[], &[], async |app, edge| {
        let wallet = app.open_wallet("EUR", "1").await;
        let topic = format!("wallet:{wallet}");
        let mut before = edge.public.socket_at("/ws").await;
        before.subscribe(&topic).await;

        edge.signal("HUP");
        eventually("the workers are new", async || edge.has_old_workers()).await;
        let mut after = edge.public.socket_at("/ws").await;
        after.subscribe(&topic).await;

        assert_delivery(app, &mut before, &wallet).await;
        assert_eq!(after.json().await["data"]["amount"], 2.0);
    })
    .await;
}

//! HTTP/2 clients that reset streams or do not read.

use http::Request;
use serde_json::json;
use tokio::net::TcpStream;

use super::{RawClient, eventually_closed};
use crate::harness::{TestApp, eventually, run};

/// Encodes a frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// Preface and empty settings of a client.
pub(super) fn opening() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(4, 0, 0, &[])].concat()
}

/// Headers frame of `GET /problems`.
pub(super) fn get_problems(stream: u32) -> Vec<u8> {
    // GET and http are in the static table; `:path` and `:authority` are literals.
    let headers = [b"\x82\x86\x44\x09/problems".as_slice(), b"\x41\x01x"].concat();
    frame(1, 0x5, stream, &headers)
}

#[tokio::test]
async fn rapid_resets_do_not_flood_the_log() {
    run(async |app| {
        for _ in 0..20 {
            let mut client = RawClient::connect(app.address).await;
            let mut attack = opening();
            for stream in (1..400).step_by(2) {
                attack.extend(get_problems(stream));
                attack.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
            }
            client.try_send(attack).await;
            assert!(client.is_closed().await, "too many resets are tolerated");
        }

        eventually_closed(app, "protocol", 20).await;
        let lines = app.logs.lines();
        let warnings = lines.iter().filter(|line| line["level"] == "WARN");
        // Open access also logs a warning.
        let warnings: Vec<_> = warnings.filter(|line| line["event"] != "serve.open").collect();
        assert!((1..=3).contains(&warnings.len()), "{warnings:?}");
        assert!(warnings.iter().all(|line| line["event"] == "http.connections_closed"));
    })
    .await;
}

#[tokio::test]
async fn unread_responses_take_bounded_memory() {
    run(async |app| {
        let path = long_history(app).await;
        let length = app.get(&path).await.text.len();
        assert!(length > 100_000, "{length}");
        let stream = TcpStream::connect(app.address).await.unwrap();
        let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut responses = Vec::new();
        for _ in 0..100 {
            client = client.ready().await.unwrap();
            let request = Request::get(format!("http://{}{path}", app.address)).body(()).unwrap();
            responses.push(client.send_request(request, true).unwrap().0.await.unwrap());
        }

        // The share of an address is 8 MiB.
        let statuses: Vec<_> = responses.iter().map(|one| one.status().as_u16()).collect();
        let sent = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(sent, 8 * 1024 * 1024 / length);
        assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
        assert_eq!(app.get("/problems").await.status, 200);

        drop((responses, client));
        driver.abort();
        eventually("the memory is released", async || app.get(&path).await.status == 200).await;
    })
    .await;
}

/// Path of a history of a thousand transfers.
async fn long_history(app: &TestApp) -> String {
    let [wallet, other] = [app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await];
    let one = json!({ "from": wallet, "to": other, "amount": "0.01" });
    let response = app.post("/wallet/batch", json!({ "transfers": vec![one; 1_000] })).await;
    assert_eq!(response.status, 200, "{}", response.text);
    format!("/wallet/{wallet}/history?limit=1000")
}

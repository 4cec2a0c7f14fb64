//! Replicas that come and go behind one host name, which a stub DNS server resolves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use tokio::net::{TcpListener, UdpSocket};

use crate::harness::eventually_within;
use crate::nginx::{Edge, newest_nginx};

/// Starts a DNS server that answers every query for an IPv4 address with the current list.
async fn dns_server(addresses: Arc<Mutex<Vec<Ipv4Addr>>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            let current = addresses.lock().unwrap().clone();
            let response = encode_response(&query[..length], &current);
            let _result = socket.send_to(&response, from).await;
        }
    });
    address
}

/// Encodes a response with an A record for each address; there are no AAAA records.
fn encode_response(query: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    // The name starts after the header of twelve bytes and ends with a zero; then comes the type.
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let records = if query[name_end..name_end + 2] == [0, 1] { addresses } else { &[] };
    let mut response = query[..2].to_vec();
    response.extend([0x81, 0x80, 0, 1, 0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    response.extend(&query[12..name_end + 4]);
    for address in records {
        // Pointer to the name of the query, type A, class IN, TTL of one second, length of four bytes.
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        response.extend(address.octets());
    }
    response
}

/// Starts an HTTP server that responds with its own address.
async fn replica(address: Ipv4Addr, port: u16) -> u16 {
    let socket = TcpListener::bind((address, port)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let router = Router::new().fallback(async move || address.to_string());
    tokio::spawn(async move { axum::serve(socket, router).await });
    port
}

#[tokio::test]
async fn replicas_are_discovered_and_dropped_by_dns() {
    let Some(nginx) = newest_nginx() else { return };
    let [one, two, three] = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let port = replica(one, 0).await;
    for other in [two, three] {
        replica(other, port).await;
    }
    // nginx starts although the name does not resolve yet.
    let addresses = Arc::new(Mutex::new(Vec::new()));
    let resolver = dns_server(Arc::clone(&addresses)).await.to_string();
    let api = format!("api.revwallet.test:{port}");
    let edge = Edge::start(&nginx, &api, &[("EDGE_RESOLVER", &resolver)]).await;
    edge.public.get("/wallet").await.problem(502, "unreachable");

    for replicas in [vec![one], vec![one, two], vec![three]] {
        addresses.lock().unwrap().clone_from(&replicas);
        let mut expected: Vec<String> = replicas.iter().map(ToString::to_string).collect();
        expected.sort();
        let what = format!("exactly {expected:?} respond");
        eventually_within(std::time::Duration::from_secs(30), &what, async || {
            let mut found = Vec::new();
            for _ in 0..8 {
                let response = edge.public.get("/wallet").await;
                found.push(response.text);
            }
            found.sort();
            found.dedup();
            found == expected
        })
        .await;
    }
    edge.stop().await;
}

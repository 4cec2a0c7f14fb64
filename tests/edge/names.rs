//! Replicas that come and go behind one name: a name server of our own tells which there are.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use tokio::net::{TcpListener, UdpSocket};

use crate::harness::eventually_within;
use crate::nginx::{Edge, newest};

/// Answers every question for an address with those it was told last.
async fn name_server(addresses: Arc<Mutex<Vec<Ipv4Addr>>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question).await {
            let known = addresses.lock().unwrap().clone();
            let answer = answer(&question[..length], &known);
            let _gone = socket.send_to(&answer, from).await;
        }
    });
    address
}

/// The question again, with an answer for each address. Nobody has any of the newer kind.
fn answer(question: &[u8], addresses: &[Ipv4Addr]) -> Vec<u8> {
    // Behind the head of twelve bytes stand the name, which ends in a zero, and the type.
    let name_end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let known = if question[name_end..name_end + 2] == [0, 1] { addresses } else { &[] };
    let mut answer = question[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::try_from(known.len()).unwrap(), 0, 0, 0, 0]);
    answer.extend(&question[12..name_end + 4]);
    for address in known {
        // The name of the question, an address, one second, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}

/// Says which one it is.
async fn replica(address: Ipv4Addr, port: u16) -> u16 {
    let socket = TcpListener::bind((address, port)).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let router = Router::new().fallback(async move || address.to_string());
    tokio::spawn(async move { axum::serve(socket, router).await });
    port
}

#[tokio::test]
async fn a_replica_that_comes_is_found_and_one_that_goes_is_left() {
    let Some(nginx) = newest() else { return };
    let [one, two, three] = [2, 3, 4].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let port = replica(one, 0).await;
    for other in [two, three] {
        replica(other, port).await;
    }
    // It starts although the name is not known yet.
    let known = Arc::new(Mutex::new(Vec::new()));
    let resolver = name_server(Arc::clone(&known)).await.to_string();
    let api = format!("api.revwallet.test:{port}");
    let edge = Edge::start(&nginx, &api, &[("EDGE_RESOLVER", &resolver)]).await;
    edge.public.get("/wallet").await.problem(502, "unreachable");

    for there in [vec![one], vec![one, two], vec![three]] {
        known.lock().unwrap().clone_from(&there);
        let mut there: Vec<String> = there.iter().map(ToString::to_string).collect();
        there.sort();
        let what = format!("{there:?} answer, and nobody else");
        eventually_within(std::time::Duration::from_secs(30), &what, async || {
            let mut found = Vec::new();
            for _ in 0..8 {
                let answer = edge.public.get("/wallet").await;
                found.push(answer.text);
            }
            found.sort();
            found.dedup();
            found == there
        })
        .await;
    }
    edge.stop().await;
}

//! Several processes of the API behind the edge: one is lost under load, and nobody whose request may be repeated sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::json;

use crate::harness::postgres::Database;
use crate::harness::program::Program;
use crate::harness::{check, eventually};
use crate::nginx::{Edge, each};

const CLIENTS: usize = 8;

async fn replica(database: &Database) -> Program {
    let url = format!("--database-url={}", database.url);
    let settings = [&url, "--allow-unsafe-server", "--access=open", "--trusted-proxies=127.0.0.1"];
    Program::start(&settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_killed_under_load_fails_no_request_that_may_be_repeated() {
    for nginx in each() {
        let database = Database::create().await;
        let (first, second) = (replica(&database).await, replica(&database).await);
        let api = format!("{} {}", first.public.address, second.public.address);
        let edge = Arc::new(Edge::start(&nginx, &api, &[("EDGE_RATE", "off")]).await);
        let opened =
            edge.public.keyed("/wallet", "open", json!({ "owner": "a", "currency": "EUR" })).await;
        assert_eq!(opened.status, 201, "{}", opened.text);

        let (deposits, reads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let ends = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (edge, ends) = (Arc::clone(&edge), Arc::clone(&ends));
                let (deposits, reads) = (Arc::clone(&deposits), Arc::clone(&reads));
                tokio::spawn(async move {
                    for number in 0.. {
                        if ends.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("{client}-{number}");
                        let body = json!({ "id": "1", "amount": "1.00" });
                        let answer = edge.public.keyed("/wallet/deposit", &key, body).await;
                        assert_eq!(answer.status, 200, "{key}: {}", answer.text);
                        deposits.fetch_add(1, Ordering::Relaxed);
                        let answer = edge.public.get("/wallet/1").await;
                        assert_eq!(answer.status, 200, "{key}: {}", answer.text);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let past = async |count: usize| {
            let aim = deposits.load(Ordering::Relaxed) + count;
            eventually("money keeps moving", async || deposits.load(Ordering::Relaxed) >= aim)
                .await;
        };
        past(200).await;
        first.kill();
        past(200).await;
        // One that is asked to end goes as quietly.
        let third = replica(&database).await;
        third.stop().await;
        past(200).await;
        ends.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }

        let repeated = edge.lines().into_iter().filter(|line| {
            line["upstream"].as_str().is_some_and(|upstream| upstream.contains(", "))
        });
        assert!(repeated.count() > 0, "some request met the replica that was gone");
        let made = deposits.load(Ordering::Relaxed);
        let wallet = edge.public.get("/wallet/1").await.json();
        let whole = u32::try_from(made).unwrap();
        assert_eq!(
            wallet["balance"].as_f64(),
            Some(f64::from(whole)),
            "each deposit was done once"
        );
        Arc::into_inner(edge).unwrap().stop().await;
        assert!(second.stop().await.success());
        check::book(&database).await;
        database.drop().await;
    }
}

#[tokio::test]
async fn what_may_have_taken_effect_is_not_sent_twice_without_a_key() {
    for nginx in each() {
        for (method, key) in [
            (Method::POST, false),
            (Method::PATCH, false),
            (Method::POST, true),
            (Method::PATCH, true),
            (Method::GET, false),
            (Method::DELETE, false),
        ] {
            let (lost, count) = loses_what_it_is_sent().await;
            let mirror = crate::stub::mirror().await;
            let edge = Edge::start(&nginx, &format!("{lost} {mirror}"), &[]).await;
            let mut failed = 0;
            for number in 0..8 {
                let request = edge.public.request(method.clone(), "/wallet/deposit");
                let keys = key.then(|| number.to_string());
                let request = keys
                    .iter()
                    .fold(request, |request, key| request.header("idempotency-key", key));
                match edge.public.send(request).await {
                    answer if answer.status == 200 => {}
                    answer => {
                        answer.problem(502, "unreachable");
                        failed += 1;
                    }
                }
            }
            let lost = count.load(Ordering::Relaxed);
            assert!(lost > 0, "the one that dies was asked");
            let repeated = key || [Method::GET, Method::DELETE].contains(&method);
            assert_eq!(failed, if repeated { 0 } else { lost }, "{method}, with a key: {key}");
            edge.stop().await;
        }
    }
}

/// A process that dies on each request after it has read it; how many those were.
async fn loses_what_it_is_sent() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut part = [0; 4096];
            if tokio::io::AsyncReadExt::read(&mut stream, &mut part)
                .await
                .is_ok_and(|count| count > 0)
            {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (address, count)
}

#[tokio::test]
async fn nginx_takes_new_settings_and_loses_nobody_who_waits() {
    for nginx in each() {
        let mirror = crate::stub::mirror().await.to_string();
        let edge = Edge::start(&nginx, &mirror, &[]).await;
        for _ in 0..3 {
            edge.signal("HUP");
            for _ in 0..20 {
                assert_eq!(edge.public.get("/wallet").await.status, 200);
            }
        }
        edge.stop().await;
    }
}

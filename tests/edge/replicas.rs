//! Several API processes behind the edge: if one is lost under load, repeatable requests do not fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::json;

use crate::harness::postgres::Database;
use crate::harness::program::Program;
use crate::harness::{Client, check, eventually};
use crate::nginx::{Edge, nginx_versions};

const CLIENTS: usize = 8;

async fn replica(database: &Database) -> Program {
    let url = format!("--database-url={}", database.url);
    let settings = [&url, "--allow-unsafe-server", "--access=open", "--trusted-proxies=127.0.0.1"];
    Program::start(&settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_under_load_fails_no_repeatable_request() {
    for nginx in nginx_versions() {
        let database = Database::create().await;
        let (first, second) = (replica(&database).await, replica(&database).await);
        let api = format!("{} {}", first.public.address, second.public.address);
        let edge = Arc::new(Edge::start(&nginx, &api, &[("EDGE_RATE", "off")]).await);
        let opened = edge
            .public
            .post_with_key("/wallet", "open", json!({ "owner": "a", "currency": "EUR" }))
            .await;
        assert_eq!(opened.status, 201, "{}", opened.text);

        let (deposits, reads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (edge, stop) = (Arc::clone(&edge), Arc::clone(&stop));
                let (deposits, reads) = (Arc::clone(&deposits), Arc::clone(&reads));
                tokio::spawn(async move {
                    for number in 0.. {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let key = format!("{client}-{number}");
                        let body = json!({ "id": "1", "amount": "1.00" });
                        let response =
                            edge.public.post_with_key("/wallet/deposit", &key, body).await;
                        assert_eq!(response.status, 200, "{key}: {}", response.text);
                        deposits.fetch_add(1, Ordering::Relaxed);
                        let response = edge.public.get("/wallet/1").await;
                        assert_eq!(response.status, 200, "{key}: {}", response.text);
                        reads.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let wait_for_deposits = async |count: usize| {
            let target = deposits.load(Ordering::Relaxed) + count;
            eventually("the clients deposit", async || deposits.load(Ordering::Relaxed) >= target)
                .await;
        };
        wait_for_deposits(200).await;
        first.kill();
        wait_for_deposits(200).await;
        // A graceful shutdown fails no request either.
        let third = replica(&database).await;
        third.stop().await;
        wait_for_deposits(200).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }

        let repeated = edge.lines().into_iter().filter(|line| {
            line["upstream"].as_str().is_some_and(|upstream| upstream.contains(", "))
        });
        assert!(repeated.count() > 0, "no request was repeated on the other replica");
        let count = deposits.load(Ordering::Relaxed);
        let wallet = edge.public.get("/wallet/1").await.json();
        let expected = u32::try_from(count).unwrap();
        assert_eq!(
            wallet["balance"].as_f64(),
            Some(f64::from(expected)),
            "a deposit was lost or applied twice"
        );
        Arc::into_inner(edge).unwrap().stop().await;
        assert!(second.stop().await.success());
        check::book(&database).await;
        database.drop().await;
    }
}

#[tokio::test]
async fn a_write_without_an_idempotency_key_is_never_sent_twice() {
    for nginx in nginx_versions() {
        for (method, key) in [
            (Method::POST, false),
            (Method::PATCH, false),
            (Method::POST, true),
            (Method::PATCH, true),
            (Method::GET, false),
            (Method::DELETE, false),
        ] {
            let (failing, count) = crash_on_request().await;
            let echo = crate::stub::echo().await;
            let edge = Edge::start(&nginx, &format!("{failing} {echo}"), &[]).await;
            let mut failed = 0;
            for number in 0..8 {
                let request = edge.public.request(method.clone(), "/wallet/deposit");
                let keys = key.then(|| number.to_string());
                let request = keys
                    .iter()
                    .fold(request, |request, key| request.header("idempotency-key", key));
                match edge.public.send(request).await {
                    response if response.status == 200 => {}
                    response => {
                        response.problem(502, "unreachable");
                        failed += 1;
                    }
                }
            }
            let lost = count.load(Ordering::Relaxed);
            assert!(lost > 0, "no request reached the failing replica");
            let is_repeatable = key || [Method::GET, Method::DELETE].contains(&method);
            assert_eq!(
                failed,
                if is_repeatable { 0 } else { lost },
                "{method}, with an idempotency key: {key}"
            );
            edge.stop().await;
        }
    }
}

/// Starts a server that reads each request and closes the connection; returns its address and the number of requests.
async fn crash_on_request() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut part = [0; 4096];
            if tokio::io::AsyncReadExt::read(&mut stream, &mut part)
                .await
                .is_ok_and(|count| count > 0)
            {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (address, count)
}

#[tokio::test]
async fn reloading_nginx_fails_no_request() {
    for nginx in nginx_versions() {
        let echo = crate::stub::echo().await.to_string();
        let edge = Edge::start(&nginx, &echo, &[]).await;
        for _ in 0..3 {
            edge.signal("HUP");
            for _ in 0..20 {
                // On a connection of its own: a worker that ends closes idle connections, as HTTP allows at any time.
                assert_eq!(Client::new(edge.public.address).get("/wallet").await.status, 200);
            }
        }
        edge.stop().await;
    }
}

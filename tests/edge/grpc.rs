//! gRPC through nginx: a stock client of another language, and streams that survive a rolling restart.

use serde_json::{Value, json};

use crate::harness::grpc::{GrpcClient, assert_failure};
use crate::harness::postgres::Database;
use crate::harness::program::Program;
use crate::harness::{eventually, free_address, run_with};
use crate::nginx::{Edge, newest_nginx};

#[tokio::test]
async fn a_stock_client_calls_the_service_through_nginx() {
    // An older nginx takes no HTTP/2 without TLS.
    let Some(nginx) = newest_nginx() else { return };
    run_with(&["--trusted-proxies=127.0.0.1"], async |app| {
        let edge = Edge::start(&nginx, &app.address.to_string(), &[]).await;
        let client = GrpcClient::connect(edge.public.address);
        for version in ["v1", "v1alpha"] {
            let found = client.request(json!({ "reflection": version })).await;
            let services = found["services"].as_array().unwrap();
            assert!(services.contains(&json!("revwallet.v1.WalletService")), "{found}");
        }
        let message = json!({ "user_id": "ada", "amount": 300 });
        let metadata = json!({ "idempotency-key": "k", "x-request-id": "grpc-by-nginx" });
        let deposited = client.call_with("Deposit", message, metadata).await;
        assert_eq!(deposited["message"]["balance"], "300", "{deposited}");
        let unknown = client.call("GetBalance", json!({ "user_id": "bob" })).await;
        assert_failure(&unknown, "NOT_FOUND", "user-not-found");
        let broken = client.call("Deposit", json!({ "user_id": "ada", "amount": 0 })).await;
        assert_failure(&broken, "INVALID_ARGUMENT", "invalid");
        let short = json!({ "user_id": "ada", "amount": 301 });
        assert_failure(
            &client.call("Withdraw", short).await,
            "FAILED_PRECONDITION",
            "insufficient-funds",
        );
        let none = client.request(json!({ "raw": "/revwallet.v1.WalletService/Nothing" })).await;
        assert_failure(&none, "UNIMPLEMENTED", "not-found");
        eventually("the program logs the call", async || {
            app.logs.find("request_id", "grpc-by-nginx").is_some()
        })
        .await;
        edge.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_posting_stream_may_be_larger_than_any_request() {
    let Some(nginx) = newest_nginx() else { return };
    run_with(&["--trusted-proxies=127.0.0.1"], async |app| {
        let edge = Edge::start(&nginx, &app.address.to_string(), &[]).await;
        let client = GrpcClient::connect(edge.public.address);
        let rest = json!({ "sends": true, "timeout": 120 });
        let stream = client.open("PostStream", json!({}), rest).await;
        // 5 MB, where 4 MB are the most for a request.
        let (requests, items) = (100, 200);
        for request in 0..requests {
            let items: Vec<Value> = (0..items)
                .map(|item| {
                    let key = format!("{request}-{item}-{}", "k".repeat(240));
                    let deposit = json!({ "user_id": "ada", "amount": 1 });
                    json!({ "idempotency_key": key, "deposit": deposit })
                })
                .collect();
            stream.send(json!({ "items": items })).await;
            let found = stream.next().await;
            let results = found["message"]["results"].as_array();
            let results = results.unwrap_or_else(|| panic!("{found}"));
            assert!(results.iter().all(|result| result["posted"].is_object()), "{found}");
        }
        stream.finish().await;
        assert_eq!(stream.next().await["code"], "ENDED");
        let balance = edge.public.get("/api/wallet/balance/ada").await.json();
        assert_eq!(balance["balance"], requests * items);
        edge.stop().await;
    })
    .await;
}

async fn replica(database: &Database, address: std::net::SocketAddr) -> Program {
    let settings = [
        format!("--database-url={}", database.url),
        format!("--listen={address}"),
        "--allow-unsafe-server".to_owned(),
        "--access=open".to_owned(),
        "--trusted-proxies=127.0.0.1".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Program::start(&settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_resumes_misses_nothing_over_a_rolling_restart() {
    let Some(nginx) = newest_nginx() else { return };
    let database = Database::create().await;
    let addresses = [free_address(), free_address()];
    let [mut first, mut second] =
        [replica(&database, addresses[0]).await, replica(&database, addresses[1]).await];
    let api = addresses.map(|address| address.to_string()).join(" ");
    let edge = Edge::start(&nginx, &api, &[("EDGE_RATE", "off")]).await;
    let deposit = async |number: i64| {
        let body = json!({ "userId": "ada", "amount": 1 });
        let key = format!("deposit-{number}");
        let response = edge.public.post_with_key("/api/wallet/deposit", &key, body).await;
        assert_eq!(response.status, 200, "{}", response.text);
    };
    deposit(0).await;
    let read = edge.public.get("/api/wallet/balance/ada").await;
    let begin = read.header("book-position").to_owned();
    let (deposits, restarts) = (120, 4);
    let client = GrpcClient::connect(edge.public.address);

    let watching = async {
        let (mut balances, mut position, mut ends) = (Vec::new(), begin, 0);
        while balances.last() != Some(&(deposits + 1)) {
            let message = json!({ "user_id": "ada", "after": position });
            let stream = client.open("WatchBalance", message, json!({})).await;
            loop {
                let found = stream.next().await;
                if found["code"] != "OK" {
                    assert_eq!(found["code"], "UNAVAILABLE", "{found}");
                    ends += 1;
                    break;
                }
                found["message"]["position"].as_str().unwrap().clone_into(&mut position);
                let balance: i64 = number(&found["message"]["balance"]);
                balances.push(balance);
                if balance == deposits + 1 {
                    break;
                }
            }
            // An open stream would hold up the end of nginx.
            stream.cancel().await;
        }
        (balances, ends)
    };
    let mut restarted = 0;
    let writing = async {
        for number in 1..=deposits {
            deposit(number).await;
            if number % (deposits / (restarts + 1)) == 0 && number < deposits {
                restarted += 1;
                let (gone, address) = if restarted % 2 == 0 {
                    (&mut first, addresses[0])
                } else {
                    (&mut second, addresses[1])
                };
                let next = replica(&database, free_address()).await;
                std::mem::replace(gone, next).stop().await;
                let back = replica(&database, address).await;
                std::mem::replace(gone, back).stop().await;
            }
        }
    };
    let ((balances, ends), ()) = tokio::join!(watching, writing);

    let expected: Vec<i64> = (2..=deposits + 1).collect();
    assert_eq!(balances, expected);
    assert!(ends > 0, "no restart ended the stream");
    edge.stop().await;
    first.stop().await;
    second.stop().await;
    database.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_posting_stream_that_is_repeated_posts_once_over_restarts_and_kills() {
    let Some(nginx) = newest_nginx() else { return };
    let database = Database::create().await;
    let address = free_address();
    let mut program = replica(&database, address).await;
    let edge = Edge::start(&nginx, &address.to_string(), &[("EDGE_RATE", "off")]).await;
    let client = GrpcClient::connect(edge.public.address);
    // Requests that wait for their results: more than are read before an end, so that each end cuts some off,
    // and few enough that the program cannot answer all before the last end.
    let ahead_max = 100;
    let (requests, items, ends_max) = (1_500, 10, 6);
    let request = |number: i64| {
        let item = |item: i64| {
            let deposit = json!({ "user_id": "ada", "amount": 1 });
            json!({ "idempotency_key": format!("{number}-{item}"), "deposit": deposit })
        };
        json!({ "items": (0..items).map(item).collect::<Vec<_>>() })
    };

    let (mut answered, mut ends) = (0, 0);
    while answered < requests {
        let stream = client.open("PostStream", json!({}), json!({ "sends": true })).await;
        let mut sent = answered;
        let ends_after = answered + 8;
        while answered < requests {
            while sent < requests.min(answered + ahead_max) {
                stream.send(request(sent)).await;
                sent += 1;
            }
            if answered == ends_after && ends < ends_max {
                // In the middle of the requests that follow: by turns a stop and a kill.
                ends += 1;
                let next = async || replica(&database, address).await;
                if ends % 2 == 0 {
                    program.kill();
                } else {
                    program.stop().await;
                }
                program = next().await;
            }
            let found = stream.next().await;
            let Some(results) = found["message"]["results"].as_array() else {
                // Nginx resets the stream of a killed program.
                let code = found["code"].as_str().unwrap_or_default();
                assert!(["UNAVAILABLE", "INTERNAL"].contains(&code), "{found}");
                break;
            };
            // The outcome of an item that was cut off may be unknown: its request is repeated.
            if results.iter().any(|result| result["failure"]["code"] == 14) {
                break;
            }
            assert!(results.iter().all(|result| result["posted"].is_object()), "{found}");
            answered += 1;
        }
        // An open stream would hold up the end of nginx.
        stream.cancel().await;
    }

    assert_eq!(ends, ends_max);
    let balance = edge.public.get("/api/wallet/balance/ada").await.json();
    assert_eq!(balance["balance"], requests * items);
    edge.stop().await;
    program.stop().await;
    database.drop().await;
}

fn number(value: &Value) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

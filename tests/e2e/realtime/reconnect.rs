//! Many clients that reconnect at the same time: what that costs depends on the topics, not on the clients.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use super::{cents, deposit, position_of};
use crate::harness::server::Cluster;
use crate::harness::small_socket::SmallSocket;
use crate::harness::{Program, free_address, is_long};

const TOPICS: usize = 10;

/// Events that each client has missed.
const MISSED: i64 = 5;

/// Time within which all clients reconnect.
const SPREAD: Duration = Duration::from_secs(2);

async fn start(url: &str, address: SocketAddr) -> Program {
    let (url, listen) = (format!("--database-url={url}"), format!("--listen={address}"));
    let arguments = [
        url.as_str(),
        &listen,
        "--allow-unsafe-server",
        "--access=open",
        "--only=api",
        "--http-connections-max=20000",
        "--http-connections-per-address=20000",
        "--realtime-connections-per-address=20000",
        "--log-filter=warn,revwallet::app=info",
    ];
    Program::start(&arguments).await
}

/// Reconnects after a position, and reads what was missed.
async fn resume(
    address: SocketAddr,
    pause: Duration,
    topic: String,
    position: String,
) -> (SmallSocket, Vec<i64>) {
    tokio::time::sleep(pause).await;
    loop {
        match try_resume(address, &topic, &position).await {
            Ok(Some(resumed)) => return resumed,
            // The server is busy: a client comes again.
            Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Connects once; none if the server is overloaded.
async fn try_resume(
    address: SocketAddr,
    topic: &str,
    position: &str,
) -> std::io::Result<Option<(SmallSocket, Vec<i64>)>> {
    let mut socket = SmallSocket::connect(address).await?;
    let Some(reply) = socket.subscribe_after(topic, position).await? else { return Ok(None) };
    if reply["error"] == "overloaded" {
        return Ok(None);
    }
    assert_eq!(reply, json!({ "message": format!("Subscribed to {topic}") }));
    let mut seen = Vec::new();
    while seen.len() < usize::try_from(MISSED).unwrap() {
        let Some(event) = socket.next().await? else { return Ok(None) };
        assert_eq!(event["topic"], topic, "{event}");
        seen.push(cents(&event["data"]["amount"]));
    }
    Ok(Some((socket, seen)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_reconnect_together_cost_statements_by_topic() {
    let clients: u32 = if is_long() { 9_000 } else { 1_000 };
    let cluster = Cluster::init(&["-U", "revwallet", "--auth=trust"]);
    let server = cluster.start(&["shared_preload_libraries=pg_stat_statements"]).await;
    let url = format!("postgres://revwallet@{}/postgres", server.address);
    let address = free_address();
    let program = start(&url, address).await;
    let mut wallets = Vec::new();
    for _ in 0..TOPICS {
        let body = json!({ "owner": "ada", "initial_balance": 1, "currency": "EUR" });
        let opened = program.public.post("/wallet", body).await;
        let wallet = opened.json()["id"].as_str().unwrap().to_owned();
        let position = position_of(&program.public, &wallet).await;
        wallets.push((wallet, position));
    }
    for (wallet, _) in &wallets {
        for number in 1..=MISSED {
            deposit(&program.public, wallet, &format!("0.0{number}")).await;
        }
    }
    program.kill();
    let program = start(&url, address).await;
    let mut db = PgConnection::connect(&url).await.unwrap();
    db.execute("create extension pg_stat_statements").await.unwrap();
    db.execute("select pg_stat_statements_reset()").await.unwrap();

    let resuming: Vec<_> = (0..clients)
        .zip(wallets.iter().cycle())
        .map(|(number, (wallet, position))| {
            let pause = SPREAD * number / clients;
            tokio::spawn(resume(address, pause, format!("wallet:{wallet}"), position.clone()))
        })
        .collect();
    let mut connected = Vec::new();
    for client in resuming {
        let (socket, seen) = client.await.unwrap();
        assert_eq!(seen, (1..=MISSED).collect::<Vec<_>>());
        connected.push(socket);
    }

    // Polling repeats its statements, too, but far less often than there are clients.
    let busiest = "select query, calls from pg_stat_statements order by calls desc limit 1";
    let (query, calls): (String, i64) = sqlx::query_as(busiest).fetch_one(&mut db).await.unwrap();
    assert!(calls < i64::from(clients / 4), "{calls} calls for {clients} clients: {query}");
    let metrics = program.internal.get("/metrics").await.text;
    let line = metrics.lines().find(|line| line.contains(r#"replays_total{source="database"}"#));
    let reads: usize = line.unwrap().split(' ').next_back().unwrap().parse().unwrap();
    assert!((1..=3 * TOPICS).contains(&reads), "{reads} reads for {TOPICS} topics");
    // All of them are live now.
    for (wallet, _) in &wallets {
        deposit(&program.public, wallet, "0.06").await;
    }
    for socket in &mut connected {
        let event = socket.next().await.unwrap().expect("an event");
        assert_eq!(cents(&event["data"]["amount"]), 6);
    }
    drop(connected);
    assert!(program.stop().await.success());
}

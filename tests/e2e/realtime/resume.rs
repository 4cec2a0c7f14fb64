//! Clients that resume: over restarts and kills, on every process, and right after a read.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{amount, cents, deposit, position_of};
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, Response, Socket, TestApp, free_address, run};

/// A client that reconnects after its last position, whenever the connection ends.
struct Subscriber {
    client: Client,
    topic: String,
    position: String,
    socket: Option<Socket>,
    /// Cents of the deposits that it has seen, in their order.
    seen: Vec<i64>,
}

impl Subscriber {
    /// Reads events until it has seen this many, and reconnects as often as necessary.
    async fn read_until(&mut self, count: usize) {
        while self.seen.len() < count {
            let Some(socket) = &mut self.socket else {
                self.connect().await;
                continue;
            };
            match socket.next_text().await {
                Some(text) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(event["topic"], self.topic.as_str(), "{event}");
                    event["position"].as_str().unwrap().clone_into(&mut self.position);
                    self.seen.push(cents(&event["data"]["amount"]));
                }
                None => self.socket = None,
            }
        }
    }

    async fn connect(&mut self) {
        let Ok(mut socket) = self.client.try_socket("/ws", &[]).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        };
        let frame = json!({ "action": "subscribe", "topic": self.topic, "after": self.position });
        socket.try_send(&frame.to_string()).await;
        if let Some(reply) = socket.next_text().await {
            let expected = json!({ "message": format!("Subscribed to {}", self.topic) });
            if serde_json::from_str::<Value>(&reply).unwrap() == expected {
                self.socket = Some(socket);
            } else {
                // The program is starting.
                assert!(reply.contains("unavailable") || reply.contains("overloaded"), "{reply}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn arguments(folder: &Folder, address: SocketAddr) -> [String; 7] {
    [
        folder.setting(),
        format!("--listen={address}"),
        "--internal-listen=127.0.0.1:0".to_owned(),
        "--access=open".to_owned(),
        "--http-connections-per-address=5000".to_owned(),
        "--realtime-connections-per-address=5000".to_owned(),
        "--log-filter=info".to_owned(),
    ]
}

async fn start(folder: &Folder, address: SocketAddr) -> Program {
    let arguments = arguments(folder, address);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Program::start(&arguments).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_resume_after_kills_get_each_event_once_and_in_order() {
    let subscribers = 1_000;
    let folder = Folder::new();
    let (first_address, second_address) = (free_address(), free_address());
    let first = start(&folder, first_address).await;
    let second = start(&folder, second_address).await;
    let body = json!({ "owner": "ada", "initial_balance": 1, "currency": "EUR" });
    let opened = first.public.post("/wallet", body).await;
    let wallet = opened.json()["id"].as_str().unwrap().to_owned();
    let position = position_of(&first.public, &wallet).await;
    let clients = [&first, &second].map(|program| program.public.clone());
    let mut all: Vec<Subscriber> = (0..subscribers)
        .map(|number| Subscriber {
            client: clients[number % 2].clone(),
            topic: format!("wallet:{wallet}"),
            position: position.clone(),
            socket: None,
            seen: Vec::new(),
        })
        .collect();
    let mut count = 0;
    let mut first = Some(first);

    for round in 0..3 {
        let writes = async {
            for _ in 0..20 {
                count += 1;
                deposit(&second.public, &wallet, &format!("0.{count:02}")).await;
            }
            if round < 2 {
                first.take().unwrap().kill();
                // While the process is gone, the book grows.
                for _ in 0..5 {
                    count += 1;
                    deposit(&second.public, &wallet, &format!("0.{count:02}")).await;
                }
                first = Some(start(&folder, first_address).await);
            }
            count
        };
        let expected = 20 * (round + 1) + 5 * (round + 1).min(2);
        let reads = join_all(all.iter_mut().map(|subscriber| subscriber.read_until(expected)));
        tokio::join!(writes, reads);
    }

    let expected: Vec<i64> = (1..=count).collect();
    for subscriber in &all {
        assert_eq!(subscriber.seen, expected);
    }
    let positions: HashSet<&str> = all.iter().map(|one| one.position.as_str()).collect();
    assert!(positions.len() <= 2, "the position does not depend on the subscriber: {positions:?}");
    // Reads grow with topics, not with clients.
    let first = first.unwrap();
    let metrics = first.internal.get("/metrics").await.text;
    let line = metrics.lines().find(|line| line.contains(r#"replays_total{source="database"}"#));
    let reads: usize = line.unwrap().split(' ').next_back().unwrap().parse().unwrap();
    assert!(reads <= 10, "{reads} reads for {subscribers} subscribers");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_and_then_subscribes_computes_the_state_of_the_server() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1000").await;
        let stop = std::cell::Cell::new(false);
        let writes = async {
            let mut number = 0_u32;
            while !stop.get() {
                number += 1;
                let body = json!({ "id": wallet, "amount": "0.07" });
                let path = match number % 3 {
                    0 => "/wallet/withdraw",
                    1 => "/wallet/deposit",
                    _ => "/wallet/hold",
                };
                let response = app.post(path, body).await;
                assert!(response.status < 300, "{}", response.text);
            }
        };
        let reads = async {
            for _ in 0..10 {
                let read = app.get(&format!("/wallet/{wallet}")).await;
                let position = read.header("book-position").to_owned();
                let mut available = cents(&read.json()["available"]);
                let mut held = cents(&read.json()["held"]);
                let mut socket = app.socket().await;
                socket.subscribe_after(&format!("wallet:{wallet}"), &position).await;
                for _ in 0..50 {
                    let event = socket.json().await;
                    let (kind, data) = (event["type"].as_str().unwrap(), &event["data"]);
                    let amount = cents(&data["amount"]);
                    match kind {
                        "transfer.deposit" => available += amount,
                        "transfer.withdrawal" => available -= amount,
                        "transfer.hold" => {
                            available -= amount;
                            held += amount;
                            assert_eq!(cents(&data["held"]), held, "{event}");
                        }
                        other => panic!("{other}"),
                    }
                    assert_eq!(cents(&data["available"]), available, "{event}");
                }
            }
            stop.set(true);
        };
        tokio::join!(writes, reads);
    })
    .await;
}

/// Available and held money of a wallet, in cents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    available: i64,
    held: i64,
}

impl State {
    /// Returns the state that a read shows, and the seq of the last transfer that it takes into account.
    fn read(response: &Response) -> (i64, Self) {
        let body = response.json();
        let (available, held) = (cents(&body["available"]), cents(&body["held"]));
        (seq(response.header("book-position")), Self { available, held })
    }

    fn apply(&mut self, event: &Value) {
        let amount = cents(&event["data"]["amount"]);
        match event["type"].as_str().unwrap() {
            "transfer.deposit" => self.available += amount,
            "transfer.withdrawal" => self.available -= amount,
            "transfer.hold" => {
                self.available -= amount;
                self.held += amount;
            }
            "transfer.void" => {
                self.available += amount;
                self.held -= amount;
            }
            other => panic!("{other}"),
        }
    }
}

fn seq(position: &str) -> i64 {
    position.split('.').nth(2).unwrap().parse().unwrap()
}

/// Amount of the deposit that ends a test.
const LAST: &str = "77.77";

async fn write(app: &TestApp, wallet: &str, is_over: &Cell<bool>) {
    for number in 0_u32.. {
        if is_over.get() {
            return;
        }
        let body = json!({ "id": wallet, "amount": format!("0.0{}", 1 + number % 9) });
        let path = ["/wallet/deposit", "/wallet/withdraw", "/wallet/hold"][number as usize % 3];
        let response = app.post(path, body).await;
        assert!(response.status < 300, "{}", response.text);
        if path == "/wallet/hold" && number % 2 == 0 {
            let hold = response.json()["id"].as_str().unwrap().to_owned();
            let path = format!("/wallet/hold/{hold}/void");
            assert!(app.post(&path, json!({})).await.status < 300);
        }
    }
}

#[tokio::test]
async fn the_state_of_a_client_equals_every_read_at_its_position() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1000").await;
        let path = format!("/wallet/{wallet}");
        let is_over = Cell::new(false);
        let reads = async {
            let mut reads = Vec::new();
            while reads.len() < 100 {
                reads.push(State::read(&app.get(&path).await));
            }
            is_over.set(true);
            reads
        };
        let follow = async {
            let read = app.get(&path).await;
            let (first, mut state) = State::read(&read);
            let mut states = BTreeMap::from([(first, state)]);
            let mut socket = app.socket().await;
            let topic = format!("wallet:{wallet}");
            socket.subscribe_after(&topic, read.header("book-position")).await;
            loop {
                let event = socket.json().await;
                state.apply(&event);
                states.insert(seq(event["position"].as_str().unwrap()), state);
                if amount(&event) == LAST {
                    return states;
                }
            }
        };
        let writes = async {
            join_all((0..4).map(|_| write(app, &wallet, &is_over))).await;
            deposit(app, &wallet, LAST).await;
        };

        let (reads, states, ()) = tokio::join!(reads, follow, writes);

        let first = *states.keys().next().unwrap();
        let mut compared = HashSet::new();
        for (seq, read) in reads.into_iter().filter(|(seq, _)| *seq >= first) {
            let (_, state) = states.range(..=seq).next_back().unwrap();
            assert_eq!(*state, read, "at {seq}");
            compared.insert(seq);
        }
        assert!(compared.len() > 10, "the reads are spread: {compared:?}");
    })
    .await;
}

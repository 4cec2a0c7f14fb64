//! Three processes on one book, whose leader is stopped, ended and killed under load.

use std::ops::Range;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::leader::{ANSWERED, LEADS};
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, eventually, eventually_within};

/// Three processes on one database, and a wallet.
struct Cluster {
    folder: Folder,
    programs: Vec<Program>,
    wallet: String,
}

impl Cluster {
    /// The first process owns the database.
    async fn start() -> Self {
        let folder = Folder::new();
        let mut programs = Vec::new();
        for _ in 0..3 {
            programs.push(Program::start(&[&folder.setting()]).await);
        }
        let wallet = json!({ "owner": "a", "currency": "EUR" });
        let answer = programs[0].public.post("/wallet", wallet).await;
        let wallet = answer.json()["id"].as_str().unwrap().to_owned();
        Self { folder, programs, wallet }
    }
}

async fn metric(program: &Program, name: &str) -> f64 {
    let text = program.internal.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    line.unwrap_or_default()
}

/// Deposits 1. Returns whether it was acknowledged, and whether as a replay.
async fn try_deposit(client: &Client, wallet: &str, key: u32) -> (bool, bool) {
    let request = client.request(reqwest::Method::POST, "/wallet/deposit");
    let request = request.header("idempotency-key", format!("key-{key}"));
    let request = request.json(&json!({ "id": wallet, "amount": 1 }));
    let Ok(answer) = Client::try_send(request).await else { return (false, false) };
    (answer.status == 200, answer.header("idempotent-replayed") == "true")
}

impl Cluster {
    async fn leader(&self) -> usize {
        let mut leader = None;
        eventually_within(Duration::from_secs(20), "one process leads", async || {
            for (index, program) in self.programs.iter().enumerate() {
                if metric(program, LEADS).await > 0.0 {
                    leader = Some(index);
                }
            }
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    /// Makes a deposit for each key, spread over all processes, and returns the acknowledged keys.
    async fn deposit(&self, keys: Range<u32>) -> Vec<u32> {
        let clients: Vec<Client> =
            self.programs.iter().map(|program| program.public.clone()).collect();
        let deposits = stream::iter(keys).map(|key| {
            let client = &clients[key as usize % clients.len()];
            async move { try_deposit(client, &self.wallet, key).await.0.then_some(key) }
        });
        deposits.buffer_unordered(16).filter_map(std::future::ready).collect().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_deposit_is_lost_or_doubled_while_leaders_are_killed_and_stopped() {
    let mut cluster = Cluster::start().await;
    let (mut acknowledged, mut next) = (Vec::new(), 0);

    for signals in [["STOP", "CONT"], ["TERM", ""], ["KILL", ""]] {
        let leader = cluster.leader().await;
        // The owner of the database ends last, so that the database stays.
        let signals = if leader == 0 && signals[1].is_empty() { ["TERM", ""] } else { signals };
        let keys = next..next + 250;
        next = keys.end;
        let fault = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cluster.programs[leader].signal(signals[0]);
            tokio::time::sleep(Duration::from_secs(2)).await;
            if !signals[1].is_empty() {
                cluster.programs[leader].signal(signals[1]);
            }
        };
        let (found, ()) = tokio::join!(cluster.deposit(keys), fault);
        acknowledged.extend(found);
        if signals[1].is_empty() {
            let _status = cluster.programs.remove(leader).wait().await;
            cluster.programs.push(Program::start(&[&cluster.folder.setting()]).await);
        }
    }

    let client = cluster.programs[0].public.clone();
    for key in 0..next {
        eventually("the deposit is acknowledged", async || {
            let (is_acknowledged, is_replayed) = try_deposit(&client, &cluster.wallet, key).await;
            assert!(!is_acknowledged || is_replayed || !acknowledged.contains(&key), "{key}");
            is_acknowledged
        })
        .await;
    }
    let wallet = client.get(&format!("/wallet/{}", cluster.wallet)).await;
    assert_eq!(wallet.json()["balance"], json!(f64::from(next)));
    let mut answered = 0.0;
    for program in &cluster.programs {
        answered += metric(program, ANSWERED).await;
    }
    assert!(answered > 0.0, "no posting was sent to a leader");
    for program in cluster.programs.into_iter().rev() {
        assert!(program.stop().await.success());
    }
}

//! Three processes on one book, whose leader is stopped, ended and killed under load.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::json;

use super::leader::{ANSWERED, LEADS};
use crate::harness::postgres::Database;
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, eventually, eventually_within};

/// Three processes on one database, and a wallet.
struct Cluster {
    settings: Vec<String>,
    programs: Vec<Program>,
    wallet: String,
}

impl Cluster {
    /// Starts processes of a former version of the program, or of this one.
    async fn start(settings: Vec<String>, former: Option<&Path>) -> Self {
        let mut programs = Vec::new();
        for _ in 0..3 {
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            programs.push(match former {
                Some(former) => Program::start_version(former, &settings).await,
                None => Program::start(&settings).await,
            });
        }
        let wallet = json!({ "owner": "a", "currency": "EUR" });
        let answer = programs[0].public.post("/wallet", wallet).await;
        let wallet = answer.json()["id"].as_str().unwrap().to_owned();
        Self { settings, programs, wallet }
    }

    /// Starts another process of this version.
    async fn another(&self) -> Program {
        let settings: Vec<&str> = self.settings.iter().map(String::as_str).collect();
        Program::start(&settings).await
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

    /// Repeats the deposits with the keys up to `end`, and checks that each of them has taken effect once.
    async fn check(&self, end: u32, acknowledged: &[u32]) {
        let client = &self.programs[0].public;
        for key in 0..end {
            eventually("the deposit is acknowledged", async || {
                let (is_acknowledged, is_replayed) = try_deposit(client, &self.wallet, key).await;
                assert!(!is_acknowledged || is_replayed || !acknowledged.contains(&key), "{key}");
                is_acknowledged
            })
            .await;
        }
        let wallet = client.get(&format!("/wallet/{}", self.wallet)).await;
        assert_eq!(wallet.json()["balance"], json!(f64::from(end)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_deposit_is_lost_or_doubled_while_leaders_are_killed_and_stopped() {
    let folder = Folder::new();
    // The first process owns the database.
    let mut cluster = Cluster::start(vec![folder.setting()], None).await;
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
            let another = cluster.another().await;
            cluster.programs.push(another);
        }
    }

    cluster.check(next, &acknowledged).await;
    let mut answered = 0.0;
    for program in &cluster.programs {
        answered += metric(program, ANSWERED).await;
    }
    assert!(answered > 0.0, "no posting was sent to a leader");
    for program in cluster.programs.into_iter().rev() {
        assert!(program.stop().await.success());
    }
}

/// Variable with the path of a former version of the program. Without it, the test of updates replaces processes by
/// others of the same version.
const FORMER_PROGRAM: &str = "REVWALLET_TEST_FORMER_PROGRAM";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_deposit_is_lost_or_doubled_while_processes_are_updated_one_after_another() {
    let former = std::env::var_os(FORMER_PROGRAM).map(PathBuf::from);
    let database = Database::create().await;
    let url = format!("--database-url={}", database.url);
    let settings = vec![url, "--access=open".to_owned(), "--allow-unsafe-server".to_owned()];
    let mut cluster = Cluster::start(settings, former.as_deref()).await;
    let (mut acknowledged, mut end) = (Vec::new(), 0);

    // After each round, one more process has the current version.
    for replaced in 0..3 {
        let keys = end..end + 250;
        end = keys.end;
        let update = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let updated = cluster.another().await;
            cluster.programs[replaced].signal("TERM");
            updated
        };
        let (found, updated) = tokio::join!(cluster.deposit(keys), update);
        acknowledged.extend(found);
        let former = std::mem::replace(&mut cluster.programs[replaced], updated);
        assert!(former.wait().await.success());
        acknowledged.extend(cluster.deposit(end..end + 50).await);
        end += 50;
    }

    cluster.check(end, &acknowledged).await;
    for program in cluster.programs {
        assert!(program.stop().await.success());
    }
    database.drop().await;
}

//! Crashes under load: each acknowledged deposit is in the book once, and no deposit twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;

use crate::harness::program::{Folder, Program, postmaster_of, signal};
use crate::harness::{Client, eventually};

/// Number of concurrent clients.
const CLIENTS: u32 = 8;

/// Progress of the clients.
#[derive(Default)]
struct Load {
    next: AtomicU32,
    acknowledged: AtomicU32,
    is_stopped: AtomicBool,
}

impl Load {
    /// Makes deposits of 1, each with its own key, until the load stops. Returns the acknowledged keys.
    async fn deposit(&self, client: &Client, wallet: &str) -> Vec<u32> {
        let mut acknowledged = Vec::new();
        while !self.is_stopped.load(Ordering::Relaxed) {
            let key = self.next.fetch_add(1, Ordering::Relaxed);
            if deposit(client, wallet, key).await == Some((200, false)) {
                acknowledged.push(key);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        acknowledged
    }
}

/// Returns the status, and whether it was a replay; `None` if there was no response.
async fn deposit(client: &Client, wallet: &str, key: u32) -> Option<(u16, bool)> {
    let request = client.request(reqwest::Method::POST, "/wallet/deposit");
    let request = request.header("idempotency-key", format!("key-{key}"));
    let request = request.json(&json!({ "id": wallet, "amount": 1 }));
    let answer = Client::try_send(request).await.ok()?;
    assert!([200, 503].contains(&answer.status), "{}", answer.text);
    Some((answer.status, answer.header("idempotent-replayed") == "true"))
}

/// Starts clients, waits until deposits succeed, injects the fault, and returns the acknowledged keys.
async fn under_load(
    program: &Program,
    wallet: &str,
    load: &Arc<Load>,
    inject_fault: impl AsyncFnOnce(),
) -> Vec<u32> {
    load.is_stopped.store(false, Ordering::Relaxed);
    let before = load.acknowledged.load(Ordering::Relaxed);
    let clients = (0..CLIENTS).map(|_| {
        let (load, client, wallet) = (Arc::clone(load), program.public.clone(), wallet.to_owned());
        tokio::spawn(async move { load.deposit(&client, &wallet).await })
    });
    let clients: Vec<_> = clients.collect();
    eventually("deposits succeed", async || {
        load.acknowledged.load(Ordering::Relaxed) > before + 50
    })
    .await;
    inject_fault().await;
    load.is_stopped.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    acknowledged
}

/// Retries every deposit, and compares the responses with the acknowledged keys.
async fn verify_deposits(program: &Program, wallet: &str, load: &Load, acknowledged: &[u32]) {
    let count = load.next.load(Ordering::Relaxed);
    for key in 0..count {
        let mut answer = None;
        eventually("the deposit succeeds", async || {
            answer =
                deposit(&program.public, wallet, key).await.filter(|(status, _)| *status == 200);
            answer.is_some()
        })
        .await;
        let (_, replayed) = answer.unwrap();
        assert!(replayed || !acknowledged.contains(&key), "key {key} was acknowledged and is lost");
    }
    let wallet = program.public.get(&format!("/wallet/{wallet}")).await;
    assert_eq!(wallet.json()["balance"], f64::from(count), "each deposit must count once");
}

async fn open(program: &Program) -> String {
    let request = program.public.request(reqwest::Method::POST, "/wallet");
    let answer =
        program.public.send(request.json(&json!({ "owner": "a", "currency": "EUR" }))).await;
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deposit_counts_once_when_the_program_is_killed_under_load() {
    let folder = Folder::new();
    let mut program = Program::start(&[&folder.setting()]).await;
    let wallet = open(&program).await;
    let (load, mut acknowledged) = (Arc::new(Load::default()), Vec::new());

    for _ in 0..5 {
        acknowledged
            .extend(under_load(&program, &wallet, &load, async || program.signal("KILL")).await);
        program = Program::start(&[&folder.setting()]).await;
    }

    verify_deposits(&program, &wallet, &load, &acknowledged).await;
    assert!(program.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_deposit_counts_once_when_postgres_is_killed_under_load() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let wallet = open(&program).await;
    let (load, mut acknowledged) = (Arc::new(Load::default()), Vec::new());

    for _ in 0..3 {
        let kill_postgres = async || {
            signal(postmaster_of(&folder.0), "KILL");
            let before = load.acknowledged.load(Ordering::Relaxed);
            eventually("deposits succeed again", async || {
                load.acknowledged.load(Ordering::Relaxed) > before + 100
            })
            .await;
        };
        acknowledged.extend(under_load(&program, &wallet, &load, kill_postgres).await);
    }

    verify_deposits(&program, &wallet, &load, &acknowledged).await;
    assert!(program.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_under_load_completes_the_requests_in_flight() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let wallet = open(&program).await;
    let load = Arc::new(Load::default());

    let acknowledged = under_load(&program, &wallet, &load, async || {
        program.signal("TERM");
        eventually("the port is closed", async || {
            program.public.try_status("/wallet").await.is_none()
        })
        .await;
    })
    .await;

    assert!(program.wait().await.success());
    let again = Program::start(&[&folder.setting()]).await;
    verify_deposits(&again, &wallet, &load, &acknowledged).await;
    assert!(again.stop().await.success());
}

//! Killed while money moves: what was acknowledged is there once, and nothing is there twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde_json::json;

use crate::harness::program::{Folder, Program, postmaster_of, signal};
use crate::harness::{Client, eventually};

/// How many clients deposit at the same time.
const CLIENTS: u32 = 8;

/// What clients have asked for.
#[derive(Default)]
struct Load {
    next: AtomicU32,
    acknowledged: AtomicU32,
    enough: AtomicBool,
}

impl Load {
    /// Deposits of 1, each with a key of its own, until it is enough. Returns the keys that were acknowledged.
    async fn deposit(&self, client: &Client, wallet: &str) -> Vec<u32> {
        let mut acknowledged = Vec::new();
        while !self.enough.load(Ordering::Relaxed) {
            let key = self.next.fetch_add(1, Ordering::Relaxed);
            if deposit(client, wallet, key).await == Some((200, false)) {
                acknowledged.push(key);
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        acknowledged
    }
}

/// The status and whether it was a replay; nothing when nobody answered.
async fn deposit(client: &Client, wallet: &str, key: u32) -> Option<(u16, bool)> {
    let request = client.request(reqwest::Method::POST, "/wallet/deposit");
    let request = request.header("idempotency-key", format!("key-{key}"));
    let request = request.json(&json!({ "id": wallet, "amount": 1 }));
    let answer = Client::try_send(request).await.ok()?;
    assert!([200, 503].contains(&answer.status), "{}", answer.text);
    Some((answer.status, answer.header("idempotent-replayed") == "true"))
}

/// Starts clients, waits until money moves, does `harm`, and returns the keys that were acknowledged.
async fn under_load(
    program: &Program,
    wallet: &str,
    load: &Arc<Load>,
    harm: impl AsyncFnOnce(),
) -> Vec<u32> {
    load.enough.store(false, Ordering::Relaxed);
    let before = load.acknowledged.load(Ordering::Relaxed);
    let clients = (0..CLIENTS).map(|_| {
        let (load, client, wallet) = (Arc::clone(load), program.public.clone(), wallet.to_owned());
        tokio::spawn(async move { load.deposit(&client, &wallet).await })
    });
    let clients: Vec<_> = clients.collect();
    eventually("money moves", async || load.acknowledged.load(Ordering::Relaxed) > before + 50)
        .await;
    harm().await;
    load.enough.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    acknowledged
}

/// Asks for everything once more, and holds the answers against what was acknowledged.
async fn settle(program: &Program, wallet: &str, load: &Load, acknowledged: &[u32]) {
    let asked = load.next.load(Ordering::Relaxed);
    for key in 0..asked {
        let mut answer = None;
        eventually("an answer", async || {
            answer =
                deposit(&program.public, wallet, key).await.filter(|(status, _)| *status == 200);
            answer.is_some()
        })
        .await;
        let (_, replayed) = answer.unwrap();
        assert!(replayed || !acknowledged.contains(&key), "key {key} was acknowledged and is gone");
    }
    let wallet = program.public.get(&format!("/wallet/{wallet}")).await;
    assert_eq!(wallet.json()["balance"], f64::from(asked), "each was done once");
}

async fn open(program: &Program) -> String {
    let request = program.public.request(reqwest::Method::POST, "/wallet");
    let answer =
        program.public.send(request.json(&json!({ "owner": "a", "currency": "EUR" }))).await;
    answer.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_killed_under_load_loses_and_doubles_nothing() {
    let folder = Folder::new();
    let mut program = Program::start(&[&folder.setting()]).await;
    let wallet = open(&program).await;
    let (load, mut acknowledged) = (Arc::new(Load::default()), Vec::new());

    for _ in 0..5 {
        acknowledged
            .extend(under_load(&program, &wallet, &load, async || program.signal("KILL")).await);
        program = Program::start(&[&folder.setting()]).await;
    }

    settle(&program, &wallet, &load, &acknowledged).await;
    assert!(program.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_is_killed_under_load_loses_and_doubles_nothing() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let wallet = open(&program).await;
    let (load, mut acknowledged) = (Arc::new(Load::default()), Vec::new());

    for _ in 0..3 {
        let harm = async || {
            signal(postmaster_of(&folder.0), "KILL");
            let before = load.acknowledged.load(Ordering::Relaxed);
            eventually("money moves again", async || {
                load.acknowledged.load(Ordering::Relaxed) > before + 100
            })
            .await;
        };
        acknowledged.extend(under_load(&program, &wallet, &load, harm).await);
    }

    settle(&program, &wallet, &load, &acknowledged).await;
    assert!(program.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_under_load_answers_what_it_has_begun() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting()]).await;
    let wallet = open(&program).await;
    let load = Arc::new(Load::default());

    let acknowledged = under_load(&program, &wallet, &load, async || {
        program.signal("TERM");
        eventually("nobody answers", async || program.public.try_status("/wallet").await.is_none())
            .await;
    })
    .await;

    assert!(program.ended().await.success());
    let again = Program::start(&[&folder.setting()]).await;
    settle(&again, &wallet, &load, &acknowledged).await;
    assert!(again.stop().await.success());
}

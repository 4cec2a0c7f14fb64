//! Main wallets under races and crashes: one per player and currency, and each deposit once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use sqlx::{Connection, Executor};

use super::{balance, cents, deposit};
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, eventually, run};

/// Returns the wallets with each owner label, of all pages.
async fn wallets_of_owners(client: &Client) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    let wallets = client.get("/wallet?limit=1000").await.json();
    for wallet in wallets.as_array().unwrap() {
        *counts.entry(wallet["owner"].as_str().unwrap().to_owned()).or_insert(0) += 1;
    }
    counts
}

#[tokio::test]
async fn first_deposits_at_once_open_one_wallet() {
    run(async |app| {
        let deposits = (0..30).map(async |_| deposit(app, "ada", 10).await);
        let mut balances = futures_util::future::join_all(deposits).await;

        balances.sort_unstable();
        assert_eq!(balances, (1..=30).map(|n| n * 10).collect::<Vec<i64>>());
        assert_eq!(wallets_of_owners(app).await["ada"], 1);
        let metrics = app.internal.get("/metrics").await.text;
        assert!(metrics.contains("wallet_main_wallets_opened_total{holder=\"guest\"} 1\n"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_open_one_wallet_per_player() {
    let folder = Folder::new();
    let programs =
        [Program::start(&[&folder.setting()]).await, Program::start(&[&folder.setting()]).await];
    let deposits = (0..8).flat_map(|player| programs.iter().map(move |program| (player, program)));
    let deposits = deposits.flat_map(|pair| [pair, pair]);
    let deposits = deposits.map(async |(player, program)| {
        deposit(&program.public, &format!("player{player}"), 10).await
    });

    futures_util::future::join_all(deposits).await;

    let counts = wallets_of_owners(&programs[0].public).await;
    assert_eq!(counts.len(), 8);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    for player in 0..8 {
        for program in &programs {
            let found = balance(&program.public, &format!("player{player}")).await;
            assert_eq!(found.json()["balance"], 40);
        }
    }
    for program in programs {
        assert!(program.stop().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_forgets_a_main_wallet_that_another_one_closed() {
    let folder = Folder::new();
    let (one, two) =
        (Program::start(&[&folder.setting()]).await, Program::start(&[&folder.setting()]).await);
    deposit(&one.public, "ada", 10).await;
    deposit(&two.public, "ada", 10).await;
    let first = one.public.get("/wallet?owner=ada").await.json()[0]["id"].clone();
    one.public.post("/api/wallet/withdraw", cents("ada", 20)).await;
    let path = format!("/wallet/{}", first.as_str().unwrap());
    let closed = one.public.send(one.public.request(reqwest::Method::DELETE, &path)).await;
    assert_eq!(closed.status, 204);

    assert_eq!(balance(&two.public, "ada").await.json()["balance"], 0);
    let refused = two.public.post("/api/wallet/withdraw", cents("ada", 1)).await;
    refused.problem(422, "insufficient-funds");
    assert_eq!(deposit(&two.public, "ada", 7).await, 7);
    assert_eq!(balance(&one.public, "ada").await.json()["balance"], 7);
    assert_ne!(one.public.get("/wallet?owner=ada").await.json()[0]["id"], first);
}

/// Makes a first deposit for one player after another, each with its own key, until stopped.
async fn deposit_to_newcomers(client: Client, next: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let player = format!("p{}", next.fetch_add(1, Ordering::Relaxed));
        let request = client.request(reqwest::Method::POST, "/api/wallet/deposit");
        let request = request.header("idempotency-key", &player).json(&cents(&player, 100));
        let _unknown = Client::try_send(request).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_deposit_is_whole_or_absent_after_a_kill() {
    let folder = Folder::new();
    let next = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let program = Program::start(&[&folder.setting()]).await;
        let (stop, before) = (Arc::new(AtomicBool::new(false)), next.load(Ordering::Relaxed));
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let client = program.public.clone();
                tokio::spawn(deposit_to_newcomers(client, Arc::clone(&next), Arc::clone(&stop)))
            })
            .collect();
        eventually("deposits run", async || next.load(Ordering::Relaxed) > before + 30).await;
        program.signal("KILL");
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap();
        }
        program.kill();
    }

    let program = Program::start(&[&folder.setting()]).await;
    let players = next.load(Ordering::Relaxed);
    for player in (0..players).map(|n| format!("p{n}")) {
        let before = balance(&program.public, &player).await;
        match before.status {
            404 => {}
            _ => assert_eq!(before.json()["balance"], 100, "{player}"),
        }
        let path = "/api/wallet/deposit";
        let again = program.public.post_with_key(path, &player, cents(&player, 100)).await;
        assert_eq!(again.json()["balance"], 100, "{player}: {}", again.text);
        assert_eq!(again.header("idempotent-replayed") == "true", before.status == 200, "{player}");
    }
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn the_migration_makes_the_oldest_open_wallet_of_a_user_the_main_one() {
    run(async |app| {
        let ada = app.user("ada").await;
        let mut opened = Vec::new();
        for currency in ["EUR", "EUR", "EUR", "USD"] {
            let body =
                serde_json::json!({ "owner": "x", "currency": currency, "initial_balance": 1 });
            opened.push(ada.post("/wallet", body).await.json()["id"].as_str().unwrap().to_owned());
        }
        let body = serde_json::json!({ "id": opened[0], "amount": 1 });
        ada.post("/wallet/withdraw", body).await;
        let close = ada.request(reqwest::Method::DELETE, &format!("/wallet/{}", opened[0]));
        assert_eq!(ada.send(close).await.status, 204);

        // The statement of the migration, on wallets that were opened before it.
        let migration = include_str!("../../../migrations/0017_player.sql");
        let start = migration.find("update wallet\n").unwrap();
        let statement = migration[start..].split(';').next().unwrap();
        let mut db = app.database.connect().await;
        db.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
        db.close().await.unwrap();

        let moved = ada.post("/api/wallet/deposit", cents(&ada.id, 1)).await.json();
        assert_eq!(moved["balance"], 101);
        let wallets: Value = ada.get("/wallet").await.json();
        assert_eq!(wallets.as_array().unwrap().len(), 3);
        assert_eq!(wallets[0]["id"], opened[1].as_str());
        assert_eq!(wallets[0]["balance"], 1.01);
    })
    .await;
}

//! Seed 000's leaderboard: players by the highest balance that their main wallet ever reached.

use super::*;
use crate::harness::{eventually, run_with};

async fn move_money(client: &Client, operation: &str, user: &str, amount: i64) {
    let body = json!({ "userId": user, "amount": amount });
    let response = client.post(&format!("/api/wallet/{operation}"), body).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

/// Returns rank, player and balance of each entry.
fn entries(page: &Value) -> Vec<(u64, String, Option<i64>)> {
    let entries = page["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let user = entry["userId"].as_str().unwrap().to_owned();
            (entry["rank"].as_u64().unwrap(), user, entry["balance"].as_i64())
        })
        .collect()
}

async fn wait_for_entries(client: &Client, expected: &[(u64, &str, Option<i64>)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(rank, user, balance)| (*rank, (*user).to_owned(), *balance))
        .collect();
    let mut found = Vec::new();
    eventually("the leaderboard is up to date", async || {
        found = entries(&client.get("/api/leaderboard").await.json());
        found == expected
    })
    .await;
}

#[tokio::test]
async fn players_rank_by_the_highest_balance_they_ever_reached() {
    run(async |app| {
        assert_eq!(entries(&app.get("/api/leaderboard").await.json()), []);
        move_money(app, "deposit", "ada", 500).await;
        move_money(app, "deposit", "bob", 700).await;
        move_money(app, "deposit", "cyd", 700).await;
        move_money(app, "withdraw", "bob", 600).await;
        move_money(app, "deposit", "bob", 500).await;
        move_money(app, "deposit", "dan", 100).await;
        app.open_wallet("EUR", "9000.00").await;

        wait_for_entries(
            app,
            &[
                (1, "bob", Some(700)),
                (2, "cyd", Some(700)),
                (3, "ada", Some(500)),
                (4, "dan", Some(100)),
            ],
        )
        .await;
        move_money(app, "deposit", "ada", 201).await;
        wait_for_entries(
            app,
            &[
                (1, "ada", Some(701)),
                (2, "bob", Some(700)),
                (3, "cyd", Some(700)),
                (4, "dan", Some(100)),
            ],
        )
        .await;
        let around = app.get("/api/leaderboard/cyd?around=1").await.json();
        assert_eq!(around["index"], 1);
        assert_eq!(entries(&around).iter().map(|(rank, ..)| *rank).collect::<Vec<_>>(), [2, 3, 4]);
        let first = app.get("/api/leaderboard?limit=2").await;
        let second = app.get(&link(&first, "next").unwrap()).await;
        assert_eq!(entries(&second.json())[0].1, "cyd");
        assert_eq!(app.get(&link(&second, "prev").unwrap()).await.json(), first.json());
        app.get("/api/leaderboard/unknown").await.problem(404, "not-found");
        assert_eq!(
            app.get("/api/leaderboards").await.json(),
            json!([]),
            "it is none of the named ones"
        );
    })
    .await;
}

#[tokio::test]
async fn held_money_counts_and_its_release_is_no_new_balance() {
    run(async |app| {
        let shop = app.api_key(&[Scope::WalletRead, Scope::WalletWrite]).await;
        move_money(app, "deposit", "ada", 500).await;
        let wallets = shop.get("/wallet?owner=ada").await.json();
        let wallet = wallets[0]["id"].as_str().unwrap().to_owned();
        let hold =
            shop.post("/wallet/hold", json!({ "id": wallet, "amount": "4.00" })).await.json();
        move_money(app, "deposit", "ada", 100).await;
        let void = format!("/wallet/hold/{}/void", hold["id"].as_str().unwrap());
        shop.post(&void, json!({})).await;
        move_money(app, "deposit", "bob", 1).await;

        wait_for_entries(app, &[(1, "ada", Some(600)), (2, "bob", Some(1))]).await;
    })
    .await;
}

#[tokio::test]
async fn a_registered_player_shows_the_rank_but_not_the_balance() {
    run_with(&["--access=open"], async |app| {
        let user = app.user("ada").await;
        let shop = app.api_key(&[Scope::WalletRead]).await;
        move_money(&user, "deposit", &user.id, 500).await;
        move_money(app, "deposit", "guest", 100).await;

        wait_for_entries(app, &[(1, &user.id, None), (2, "guest", Some(100))]).await;
        for client in [&user.client, &shop] {
            let page = client.get("/api/leaderboard").await.json();
            assert_eq!(entries(&page)[0].2, Some(500));
        }
    })
    .await;
}

#[tokio::test]
async fn a_balance_behind_transfers_of_no_player_counts_and_is_announced_once() {
    run(async |app| {
        let mut socket = app.socket().await;
        socket.subscribe("leaderboard-game-event").await;
        let wallet = app.open_wallet("EUR", "9000.00").await;
        let deposit = json!({ "id": wallet, "amount": 1 });
        for _ in 0..30 {
            assert_eq!(app.post("/wallet/deposit", deposit.clone()).await.status, 200);
        }
        wait_for_readers(app).await;
        assert_eq!(entries(&app.get("/api/leaderboard").await.json()), []);

        move_money(app, "deposit", "ada", 500).await;

        wait_for_entries(app, &[(1, "ada", Some(500))]).await;
        wait_for_readers(app).await;
        let event = socket.json().await;
        assert_eq!(event["data"]["player"], "ada", "{event}");
        socket.is_silent().await;
    })
    .await;
}

/// Waits until the readers of balances are at the end of the book.
async fn wait_for_readers(app: &TestApp) {
    let mut db = app.database.connect().await;
    eventually("the readers are at the end", async || {
        let caught_up = "select count(*) from ledger.cursor
            where name in ('leaders', 'leaderboard') and seq = (select max(seq) from ledger.seal)";
        sqlx::query_scalar::<_, i64>(caught_up).fetch_one(&mut db).await.unwrap() == 2
    })
    .await;
}

/// Number of pages that the statement reads which finds the transfers that raise balances.
async fn pages_read(db: &mut sqlx::PgConnection, after: i64, end: i64) -> i64 {
    let statement =
        "explain (analyze, buffers, format json) select count(*) from raises(1, $1, $2)";
    let plan: Value =
        sqlx::query_scalar(statement).bind(after).bind(end).fetch_one(db).await.unwrap();
    let pages = |kind: &str| plan[0]["Plan"][format!("Shared {kind} Blocks")].as_i64().unwrap();
    pages("Hit") + pages("Read")
}

#[tokio::test]
async fn balances_are_followed_without_reading_the_whole_book() {
    run(async |app| {
        move_money(app, "deposit", "ada", 500).await;
        let mut db = app.database.connect().await;
        let head = "select max(seq) from ledger.seal";
        let end: i64 = sqlx::query_scalar(head).fetch_one(&mut db).await.unwrap();
        // Each session keeps the plan of its first call, which it makes while the table is small.
        pages_read(&mut db, 0, end).await;
        let (from, to) =
            (app.open_wallet("EUR", "500.00").await, app.open_wallet("EUR", "0").await);
        let transfer = json!({ "from": from, "to": to, "amount": "0.01" });
        let transfers = vec![transfer; 10_000];
        for _ in 0..3 {
            let body = json!({ "atomic": true, "transfers": transfers });
            let response = app.post("/wallet/batch", body).await;
            assert_eq!(response.status, 201, "{}", response.text);
        }
        move_money(app, "deposit", "ada", 500).await;

        let end: i64 = sqlx::query_scalar(head).fetch_one(&mut db).await.unwrap();
        let pages = pages_read(&mut db, end - 10, end).await;
        assert!(pages < 60, "{pages}");
    })
    .await;
}

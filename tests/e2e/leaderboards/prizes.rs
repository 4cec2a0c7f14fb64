//! Prizes: each paid once whatever is killed; those that cannot be paid or received do not stop the others.

use std::time::Duration;

use super::*;
use crate::harness::postgres::Database;
use crate::harness::program::{Program, command};
use crate::harness::{eventually, eventually_within, run_with};

/// Largest balance of a wallet, in minor units.
const FULL: i64 = 9_007_199_254_740_991;

/// Makes the current season of a board end now.
async fn end_season(database: &Database, board: &str) {
    database
        .execute(&format!(
            "update leaderboard_season s set starts_at = starts_at - interval '1 day', ends_at = leaderboard_now()
             from leaderboard b where b.id = s.board and b.name = '{board}' and s.ended_at is null"
        ))
        .await;
}

async fn count(database: &Database, condition: &str) -> i64 {
    let mut db = database.connect().await;
    let statement = format!("select count(*) from leaderboard_prize where {condition}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&mut db).await.unwrap()
}

async fn deposit(client: &Client, user: &str, amount: i64) {
    let body = json!({ "userId": user, "amount": amount });
    let response = client.post("/api/wallet/deposit", body).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

async fn balance(client: &Client, user: &str) -> Value {
    client.get(&format!("/api/wallet/balance/{user}")).await.json()["balance"].clone()
}

async fn fund(admin: &Client, amount: &str) -> Response {
    let body = json!({ "currency": "EUR", "amount": amount });
    admin.post("/api/prize-account/deposit", body).await
}

/// Returns state and reason of the prize of each entry of a season.
async fn prizes(client: &Client, board: &str) -> Vec<(String, String)> {
    let page = client.get(&format!("/api/leaderboards/{board}?season=1")).await.json();
    let entries = page["entries"].as_array().unwrap().iter();
    entries
        .map(|entry| {
            let prize = &entry["prizes"][0];
            let text = |key: &str| prize[key].as_str().unwrap_or_default().to_owned();
            (text("state"), text("reason"))
        })
        .collect()
}

#[tokio::test]
async fn a_closed_wallet_a_full_one_and_a_short_account_stop_no_other_prize() {
    let settings = [&format!("--max-amount={FULL}") as &str];
    run_with(&settings, async |app| {
        let game = app.api_key(&[Scope::EventsWrite, Scope::WalletWrite]).await;
        let admin = app.api_key(&[Scope::Admin]).await;
        let funded = fund(&admin, "100.00").await;
        assert_eq!(funded.json()["balance"], json!(100.0), "{}", funded.text);
        for user in ["rich", "closed", "full"] {
            deposit(app, user, 1).await;
        }
        deposit(app, "full", FULL - 2).await;
        app.post("/api/wallet/withdraw", json!({ "userId": "closed", "amount": 1 })).await;
        let wallets = app.get("/wallet?owner=closed").await.json();
        let wallet = wallets[0]["id"].as_str().unwrap().to_owned();
        app.send(app.request(Method::DELETE, &format!("/wallet/{wallet}"))).await;
        let prize =
            |rank: i32, amount: &str| json!({ "rank": rank, "amount": amount, "currency": "EUR" });
        let rules = [
            prize(1, "50"),
            prize(2, "20"),
            prize(3, "10"),
            prize(4, "1000"),
            prize(5, "0.50"),
            prize(9, "1"),
        ];
        put(&game, "b", json!({ "reset": "@yearly", "prizes": rules })).await;
        for (user, score) in [("rich", 9), ("closed", 8), ("full", 7), ("unlucky", 6), ("new", 5)] {
            submit(&game, "b", user, json!(score)).await;
        }

        end_season(&app.database, "b").await;
        eventually("the prizes are settled", async || {
            count(&app.database, "state <> 'due'").await == 5
        })
        .await;

        let state = |state: &str, reason: &str| (state.to_owned(), reason.to_owned());
        let expected = [
            state("paid", ""),
            state("unpaid", "wallet_closed"),
            state("unpaid", "balance_too_large"),
            state("unpaid", "insufficient_funds"),
            state("paid", ""),
        ];
        assert_eq!(prizes(app, "b").await, expected);
        assert_eq!(balance(app, "rich").await, 5_001);
        assert_eq!(balance(app, "new").await, 50, "a winner without a wallet gets one");
        eventually("the alert has its gauge", async || {
            let metrics = app.internal.get("/metrics").await.text;
            metrics.contains("wallet_leaderboard_prizes_open{state=\"unpaid\"} 3\n")
        })
        .await;
        let page = app.get("/api/leaderboards/b?season=1").await.json();
        let transfer = page["entries"][0]["prizes"][0]["transfer"].as_str().unwrap().to_owned();
        let paid = admin.get(&format!("/wallet/transfer/{transfer}")).await;
        assert_eq!(paid.json()["amount"], json!(50.0), "{}", paid.text);

        // The causes are fixed.
        fund(&admin, "2000").await;
        app.post("/api/wallet/withdraw", json!({ "userId": "full", "amount": 1_000_000 })).await;
        deposit(app, "closed", 1).await;
        let retry = "/api/leaderboards/b/prizes/retry";
        assert_eq!(admin.post(retry, json!({})).await.json()["prizes"], 3);
        eventually("the others are paid", async || {
            count(&app.database, "state = 'paid'").await == 5
        })
        .await;
        assert_eq!(admin.post(retry, json!({})).await.json()["prizes"], 0);
        assert_eq!(balance(app, "closed").await, 2_001);
        assert_eq!(balance(app, "unlucky").await, 100_000);
        let accounts = admin.get("/api/prize-account").await.json();
        assert_eq!(accounts[0]["balance"], json!(1019.5));
        game.post(retry, json!({})).await.problem(403, "forbidden");
    })
    .await;
}

#[tokio::test]
async fn prizes_need_their_scope_and_are_fixed_when_the_season_starts() {
    run_with(&[], async |app| {
        let game = game_server(app).await;
        let cashier = app.api_key(&[Scope::EventsWrite, Scope::WalletWrite]).await;
        let prizes = |amount: &str| json!([{ "rank": 1, "amount": amount, "currency": "EUR" }]);
        let settings = json!({ "prizes": prizes("5"), "reset": "@yearly" });

        put(&game, "b", settings.clone()).await.problem(403, "forbidden");
        assert_eq!(put(&cashier, "b", settings).await.status, 201);
        put(&game, "b", json!({})).await.problem(403, "forbidden");
        delete(&game, "b").await.problem(403, "forbidden");
        let changed = put(&cashier, "b", json!({ "prizes": prizes("7"), "reset": "@yearly" })).await;
        assert_eq!(changed.json()["prizes"][0]["amount"], json!(7.0));
        let page = app.get("/api/leaderboards/b").await.json();
        assert_eq!(page["season"]["prizes"][0]["amount"], json!(5.0), "the season has begun");
        put(&cashier, "once", json!({ "prizes": prizes("5") })).await;
        put(&cashier, "once", json!({ "prizes": prizes("6") })).await.problem(409, "leaderboard-fixed");
        let many: Vec<Value> =
            (1..=1_001).map(|rank| json!({ "rank": rank, "amount": 1, "currency": "EUR" })).collect();
        for prizes in [
            json!(many),
            json!([{ "rank": 0, "amount": 1, "currency": "EUR" }]),
            json!([{ "rank": 1, "amount": 0, "currency": "EUR" }]),
            json!([{ "rank": 1, "amount": 1, "currency": "XXX" }]),
            json!([{ "rank": 1, "amount": 1, "currency": "EUR" }, { "rank": 1, "amount": 2, "currency": "EUR" }]),
        ] {
            put(&cashier, "c", json!({ "prizes": prizes })).await.problem(422, "invalid");
        }
        assert_eq!(delete(&cashier, "b").await.status, 204);
        assert_eq!(count(&app.database, "true").await, 0, "a deleted board pays no prizes");
    })
    .await;
}

#[tokio::test]
async fn a_thousand_prizes_are_paid_once_while_processes_are_killed() {
    const PRIZES: i64 = 1_000;
    let database = Database::create().await;
    let url = format!("--database-url={}", database.url);
    let arguments = [&url as &str, "--allow-unsafe-server", "--access=open"];
    let mut programs = vec![Program::start(&arguments).await, Program::start(&arguments).await];
    let client = programs[0].public.with_credential(&super::model::api_key(&url, "admin"));
    let funding = command(
        &[&arguments[..2], &["prize-account", "deposit", "--in=EUR", "--amount=1500"]].concat(),
    )
    .output()
    .unwrap();
    let printed = String::from_utf8(funding.stdout).unwrap();
    assert!(printed.contains("EUR 1500.00"), "{printed} {:?}", String::from_utf8(funding.stderr));
    let rules: Vec<Value> =
        (1..=PRIZES).map(|rank| json!({ "rank": rank, "amount": 1, "currency": "EUR" })).collect();
    let created = put(&client, "b", json!({ "prizes": rules, "reset": "@yearly" })).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let mut db = database.connect().await;
    let owners: Vec<String> = (0..PRIZES + 5).map(|n| format!("winner{n}")).collect();
    let scores: Vec<i64> = (0..PRIZES + 5).rev().collect();
    super::model::submit_batch(&mut db, 1, &owners, &scores).await;

    end_season(&database, "b").await;
    let mut bound = 20;
    while count(&database, "state = 'paid'").await < PRIZES && bound < PRIZES {
        // A worker that was killed counts as dead after 20 s.
        eventually_within(Duration::from_secs(90), "prizes are paid", async || {
            count(&database, "state = 'paid'").await >= bound
        })
        .await;
        programs.remove(0).kill();
        programs.push(Program::start(&arguments).await);
        bound = count(&database, "state = 'paid'").await + 250;
    }
    eventually_within(Duration::from_secs(90), "every prize is paid", async || {
        count(&database, "state = 'paid'").await == PRIZES
    })
    .await;

    let (payouts, wallets) = sqlx::query_as::<_, (i64, i64)>(
        "select count(*), count(distinct credit) from ledger.transfer where kind = 21 and amount = 100 and home is null",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert_eq!((payouts, wallets), (PRIZES, PRIZES), "one payment for each winner");
    let client = programs[0].public.with_credential(client.credential());
    let accounts = client.get("/api/prize-account").await.json();
    assert_eq!(accounts[0]["balance"], json!(500.0));
    assert_eq!(balance(&client, "winner999").await, 100);
    for program in programs {
        assert!(program.stop().await.success());
    }
    crate::harness::check::book(&database).await;
    drop(db);
    database.drop().await;
}

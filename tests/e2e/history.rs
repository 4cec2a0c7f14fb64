//! Reads of wallets: lists, current and past balances, histories; always by index.

use futures_util::StreamExt;
use revwallet::ledger::account::AccountId;
use revwallet::ledger::money::Minor;
use revwallet::ledger::read;
use serde_json::{Value, json};
use sqlx::{Connection, Executor};

use crate::harness::{TestApp, run};

async fn balance(app: &TestApp, path: &str) -> Value {
    let response = app.get(path).await;
    assert_eq!(response.status, 200, "{}", response.text);
    response.json()
}

#[tokio::test]
async fn wallets_are_listed_and_read() {
    run(async |app| {
        assert_eq!(app.get("/wallet/").await.text, "[]");
        app.open_wallet("EUR", "999").await;

        let listed = app.get("/wallet/").await;

        assert_eq!(listed.text, r#"[{"balance":999.00,"currency":"EUR","id":"1","owner":"ada"}]"#);
        let balance = app.get("/wallet/balance/1").await;
        assert_eq!(balance.text, r#"{"balance":999.00,"currency":"EUR","id":"1","owner":"ada"}"#);
        let detail = app.get("/wallet/1").await;
        assert!(detail.text.contains(r#""available":999.00,"held":0.00"#), "{}", detail.text);
        app.get("/wallet/balance/x").await.problem(404, "not-found");
        app.get("/wallet/2").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn each_page_of_a_list_continues_after_the_previous_one() {
    run(async |app| {
        for n in 0..5 {
            let body = json!({ "owner": if n == 3 { "b & c" } else { "a" }, "currency": "EUR" });
            assert_eq!(app.post("/wallet", body).await.status, 201);
        }

        let mut path = "/wallet?limit=2&owner=a".to_owned();
        let mut seen = Vec::new();
        loop {
            let page = app.get(&path).await;
            seen.extend(
                page.json()
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|wallet| wallet["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page.header("link").strip_suffix(">; rel=\"next\"") else { break };
            path = next.trim_start_matches('<').to_owned();
        }

        assert_eq!(seen, ["1", "2", "3", "5"]);
        let filtered = app.get("/wallet?owner=b%20%26%20c&limit=1").await;
        assert!(
            filtered.header("link").contains("owner=b%20%26%20c"),
            "{}",
            filtered.header("link")
        );
        app.get("/wallet?limit=0").await.problem(422, "invalid");
        app.get("/wallet?limit=1001").await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_balance_can_be_read_as_of_a_moment_in_the_past() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        let path = format!("/wallet/{id}/history");
        for amount in [1, 2, 3] {
            app.post("/wallet/deposit", json!({ "id": id, "amount": amount })).await;
        }

        let history = app.get(&path).await.json();
        // The opening is written together with the first deposit and has the same timestamp.
        for entry in history.as_array().unwrap().iter().filter(|entry| entry["kind"] == "deposit") {
            let at = entry["at"].as_str().unwrap();
            let past = balance(app, &format!("/wallet/balance/{id}?at={at}")).await;
            assert_eq!(past["balance"], entry["available"], "{entry}");
            assert_eq!(past["as_of"], entry["id"], "{entry}");
        }
        let before = balance(app, &format!("/wallet/balance/{id}?at=2001-01-01T00:00:00Z")).await;
        assert_eq!((before["balance"].as_f64(), &before["as_of"]), (Some(0.0), &json!("0")));
        app.get(&format!("/wallet/balance/{id}?at=2999-01-01T00:00:00Z"))
            .await
            .problem(422, "invalid");
        app.get(&format!("/wallet/balance/{id}?at=yesterday")).await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_history_names_the_request_behind_each_transfer() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let request = app.request(reqwest::Method::POST, "/wallet/withdraw");
        let request = request.header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
        app.send(request.json(&json!({ "id": id, "amount": "2.50" }))).await;

        let history = app.get(&format!("/wallet/{id}/history?limit=2")).await;

        assert!(
            history.text.contains(r#""amount":2.50,"balance":7.50,"available":7.50"#),
            "{}",
            history.text
        );
        let entries = history.json();
        assert_eq!(entries[0]["trace_id"], trace);
        assert_eq!(entries[0]["direction"], "out");
        assert_eq!(entries[1]["kind"], "deposit");
        assert!(history.header("link").contains("after="));
    })
    .await;
}

#[tokio::test]
async fn every_read_of_the_book_uses_an_index() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        let deposits =
            (0..300).map(|_| app.post("/wallet/deposit", json!({ "id": id, "amount": 1 })));
        futures_util::future::join_all(deposits).await;
        let mut db = app.database.connect().await;
        let mut tx = db.begin().await.unwrap();
        // The planner scans a table this small sequentially unless that is disabled.
        sqlx::query("set local enable_seqscan = off").execute(&mut *tx).await.unwrap();
        let account = AccountId(id.parse().unwrap());

        read::head_for(&mut tx, account).await.unwrap();
        read::seq_at(&mut tx, account, time::OffsetDateTime::now_utc()).await.unwrap();
        read::balances(&mut tx, &[account], read::END).await.unwrap();
        read::balances(&mut tx, &[account], 5).await.unwrap();
        for oldest_first in [false, true] {
            let span = read::HistoryRange { from: 0, before: read::END, oldest_first, limit: 10 };
            let page = read::history(&mut tx, account, span).await.unwrap();
            assert_eq!(page.entries.len(), 10);
        }
        read::seq_before(&mut tx, account, time::OffsetDateTime::now_utc()).await.unwrap();
        read::state(&mut tx, account).await.unwrap();

        let scans = sqlx::query_as::<_, (String, i64, i64)>(
            "select relname::text, seq_scan, idx_tup_fetch
             from pg_stat_xact_user_tables
             where schemaname = 'ledger' and relname in ('transfer_open', 'seal')",
        );
        for (table, sequential, fetched) in scans.fetch_all(&mut *tx).await.unwrap() {
            assert_eq!(sequential, 0, "{table} was scanned sequentially");
            assert!((1..80).contains(&fetched), "{fetched} rows of {table} were fetched by index");
        }
    })
    .await;
}

#[tokio::test]
async fn an_account_without_debits_is_found_by_index_in_a_book_of_many_deposits() {
    run(async |app| {
        let id = app.open_wallet("EUR", "0").await;
        let deposits =
            (0..3_000).map(|_| app.post("/wallet/deposit", json!({ "id": id, "amount": 1 })));
        futures_util::stream::iter(deposits).buffer_unordered(200).count().await;
        let mut db = app.database.connect().await;
        db.execute("analyze ledger.transfer").await.unwrap();
        // As on the writer's connection: one plan for all accounts.
        db.execute("set enable_seqscan = off; set plan_cache_mode = force_generic_plan")
            .await
            .unwrap();
        let mut tx = db.begin().await.unwrap();
        let hold = AccountId(id.parse().unwrap()).hold().unwrap();

        let balances = read::balances(&mut tx, &[hold], read::END).await.unwrap();

        assert_eq!(balances, [Minor::ZERO]);
        let fetched: i64 = sqlx::query_scalar(
            "select idx_tup_fetch from pg_stat_xact_user_tables
             where schemaname = 'ledger' and relname = 'transfer_open'",
        )
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        assert!(fetched < 10, "{fetched} transfers were read");
    })
    .await;
}

#[tokio::test]
async fn a_past_balance_never_changes() {
    run(async |app| {
        let id = app.open_wallet("EUR", "0").await;
        let deposits = async {
            for _ in 0..300 {
                let body = json!({ "id": id, "amount": "0.01" });
                assert_eq!(app.post("/wallet/deposit", body).await.status, 200);
            }
        };
        let mut past_balances = Vec::new();
        let reads = async {
            for _ in 0..300 {
                // The database's clock may differ a little from ours.
                let now = time::OffsetDateTime::now_utc() - time::Duration::microseconds(300);
                let now = now.format(&time::format_description::well_known::Rfc3339).unwrap();
                past_balances.push(balance(app, &format!("/wallet/balance/{id}?at={now}")).await);
            }
        };

        tokio::join!(deposits, reads);

        for past in past_balances {
            let at = past["as_of_at"].as_str().unwrap();
            let later = balance(app, &format!("/wallet/balance/{id}?at={at}")).await;
            assert_eq!(later, past);
        }
    })
    .await;
}

//! Looking at wallets: lists, balances now and then, histories; always by index.

use revwallet::ledger::account::AccountId;
use revwallet::ledger::read;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::harness::{TestApp, run};

async fn balance(app: &TestApp, path: &str) -> Value {
    let answer = app.get(path).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

#[tokio::test]
async fn wallets_are_listed_and_looked_at() {
    run(async |app| {
        assert_eq!(app.get("/wallet/").await.text, "[]");
        app.open_wallet("EUR", "999").await;

        let listed = app.get("/wallet/").await;

        assert_eq!(
            listed.text,
            r#"[{"balance":999.00,"currency":"EUR","id":"1","owner":"somebody"}]"#
        );
        let looked_at = app.get("/wallet/balance/1").await;
        assert_eq!(
            looked_at.text,
            r#"{"balance":999.00,"currency":"EUR","id":"1","owner":"somebody"}"#
        );
        let detail = app.get("/wallet/1").await;
        assert!(detail.text.contains(r#""available":999.00,"held":0.00"#), "{}", detail.text);
        app.get("/wallet/balance/x").await.problem(404, "not-found");
        app.get("/wallet/2").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn lists_go_on_where_the_last_page_ended() {
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
        let only = app.get("/wallet?owner=b%20%26%20c&limit=1").await;
        assert!(only.header("link").contains("owner=b%20%26%20c"), "{}", only.header("link"));
        app.get("/wallet?limit=0").await.problem(422, "invalid");
        app.get("/wallet?limit=1001").await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_balance_can_be_asked_for_a_moment_in_the_past() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        let path = format!("/wallet/{id}/history");
        for amount in [1, 2, 3] {
            app.post("/wallet/deposit", json!({ "id": id, "amount": amount })).await;
        }

        let history = app.get(&path).await.json();
        // The opening has the moment of the first deposit, with which it was written.
        for entry in history.as_array().unwrap().iter().filter(|entry| entry["kind"] == "deposit") {
            let at = entry["at"].as_str().unwrap();
            let then = balance(app, &format!("/wallet/balance/{id}?at={at}")).await;
            assert_eq!(then["balance"], entry["available"], "{entry}");
            assert_eq!(then["as_of"], entry["id"], "{entry}");
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
async fn every_read_of_the_book_goes_by_index() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        let deposits =
            (0..300).map(|_| app.post("/wallet/deposit", json!({ "id": id, "amount": 1 })));
        futures_util::future::join_all(deposits).await;
        let mut db = app.database.connect().await;
        let mut tx = db.begin().await.unwrap();
        // So small a table is read whole, unless that is forbidden; then it is seen whether an index would do.
        sqlx::query("set local enable_seqscan = off").execute(&mut *tx).await.unwrap();
        let account = AccountId(id.parse().unwrap());

        read::head(&mut tx, 1).await.unwrap();
        read::seq_at(&mut tx, 1, time::OffsetDateTime::now_utc()).await.unwrap();
        read::balances(&mut tx, 1, &[account], read::END).await.unwrap();
        read::balances(&mut tx, 1, &[account], 5).await.unwrap();
        for oldest_first in [false, true] {
            let span = read::Span { from: 0, before: read::END, oldest_first, limit: 10 };
            let page = read::history(&mut tx, 1, account, span).await.unwrap();
            assert_eq!(page.len(), 10);
        }
        read::seq_before(&mut tx, 1, time::OffsetDateTime::now_utc()).await.unwrap();
        read::state(&mut tx, 1, account).await.unwrap();

        let scans = sqlx::query_as::<_, (String, i64, i64)>(
            "select relname::text, seq_scan, idx_tup_fetch
             from pg_stat_xact_user_tables
             where schemaname = 'ledger' and relname in ('transfer', 'seal')",
        );
        for (table, sequential, fetched) in scans.fetch_all(&mut *tx).await.unwrap() {
            assert_eq!(sequential, 0, "{table} was read from end to end");
            assert!((1..80).contains(&fetched), "{fetched} rows of {table} were fetched");
        }
    })
    .await;
}

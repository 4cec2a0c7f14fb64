//! Invariants that are checked at the end of every test.

use std::collections::HashMap;

use revwallet::ledger::account::AccountId;
use revwallet::ledger::book::{book_of_account, first_seal};
use serde_json::Value;
use sqlx::{PgConnection, Row};

use super::postgres::Database;
use super::{Logs, TestApp, eventually};

/// Checks the app before it stops: no request is still counted as active.
pub async fn while_running(app: &TestApp) {
    // The canary of the app goes on with its requests.
    eventually("the scrape itself is the one active request", async || {
        let metrics = app.internal.get("/metrics").await.text;
        metrics.contains("http_server_active_requests 1\n")
    })
    .await;
}

/// Checks that every log line follows the schema, contains no secret, and is no error.
pub fn logs(logs: &Logs) {
    for line in logs.lines() {
        no_secret(&line.to_string());
        schema(&line);
        assert_ne!(line["level"], "ERROR", "{line}");
    }
}

/// Marker that every password in these tests contains, so that a leak is recognized.
pub const SECRET_MARKER: &str = "test-secret";

/// Checks that a log line contains no password, token, key or hash.
pub fn no_secret(line: &str) {
    // The message about a malformed webhook secret names its prefix.
    let line = line.replace("whsec_ and 24", "");
    for marker in [SECRET_MARKER, "eyJ", "rwk_", "argon2id", "whsec_"] {
        assert!(!line.contains(marker), "the log line contains {marker}: {line}");
    }
}

/// Checks a log line against the schema.
pub fn schema(line: &Value) {
    let text =
        |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}")).to_owned();
    let ts = text("ts");
    assert!(
        ts.len() == 30 && ts.ends_with('Z'),
        "the timestamp is not in UTC with nanoseconds: {line}"
    );
    assert!(
        ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&text("level").as_str()),
        "{line}"
    );
    assert!(!text("message").is_empty(), "{line}");
    assert_eq!(text("service"), "revwallet");
    for key in ["version", "env", "_target"] {
        assert!(!text(key).is_empty(), "{line}");
    }
    if line["event"] == "http.request" {
        assert_eq!(text("trace_id").len(), 32, "{line}");
        assert_eq!(text("span_id").len(), 16, "{line}");
        for key in ["request_id", "http.request.method", "outcome"] {
            assert!(!text(key).is_empty(), "{line}");
        }
        assert!(
            line["http.response.status_code"].is_u64() && line["duration_ms"].is_number(),
            "{line}"
        );
        let failed = !["ok", "client_gone"].contains(&text("outcome").as_str());
        assert_eq!(line["error.type"].is_string(), failed, "{line}");
    }
}

/// Balances of the ledger, recomputed from all transfers.
pub struct Book {
    balances: HashMap<i64, i64>,
}

impl Book {
    pub fn balance(&self, account: i64) -> i64 {
        self.balances.get(&account).copied().unwrap_or_default()
    }
}

/// Recomputes every book: no gap, correct running balances, no overdraft, and no money created or lost. The balance of
/// an account is that in its own book; that of a system account, of which each book has one, is the sum of all.
pub async fn book(database: &Database) -> Book {
    let mut connection = database.connect().await;
    let books = "select book from ledger.book order by book";
    let books = sqlx::query_scalar(books).fetch_all(&mut connection).await.unwrap();
    let mut balances = HashMap::new();
    for book in books {
        for (account, balance) in one_book(&mut connection, book).await {
            let id = AccountId(account);
            if book_of_account(id).is_none_or(|own| own == book) && id.own_id() == id {
                *balances.entry(account).or_insert(0) += balance;
            }
        }
    }
    Book { balances }
}

async fn one_book(connection: &mut PgConnection, book: i32) -> HashMap<i64, i64> {
    let rows = sqlx::query(
        "select seq, debit, credit, amount, debit_balance, credit_balance
         from ledger.transfer where book = $1 order by seq",
    )
    .bind(book)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let mut balances = HashMap::new();
    let first = first_seal(book);
    for (row, seq) in rows.iter().zip(first + 1..) {
        let column = |name: &str| row.get::<i64, _>(name);
        assert_eq!(column("seq"), seq, "the sequence has a gap");
        *balances.entry(column("debit")).or_insert(0) -= column("amount");
        *balances.entry(column("credit")).or_insert(0) += column("amount");
        assert_eq!(balances[&column("debit")], column("debit_balance"), "at {seq}");
        assert_eq!(balances[&column("credit")], column("credit_balance"), "at {seq}");
        let debit = AccountId(column("debit"));
        assert!(
            debit.0 < 0 || book_of_account(debit) != Some(book) || balances[&column("debit")] >= 0,
            "an account is overdrawn at {seq}"
        );
    }
    assert_eq!(balances.values().sum::<i64>(), 0, "money was created or lost");
    let end = "select seq from ledger.seal where book = $1 order by seq desc limit 1";
    let end: i64 = sqlx::query_scalar(end).bind(book).fetch_one(connection).await.unwrap();
    let count = i64::try_from(rows.len()).unwrap();
    assert_eq!(end, first + count, "the last seal does not end at the last transfer");
    balances
}

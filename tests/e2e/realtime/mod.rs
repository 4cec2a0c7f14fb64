//! WebSocket connections: the dialects frame by frame, access, limits, replay, and what happens when things fail.

mod access;
mod dialects;
mod docs;
mod limits;
mod play;
mod reconnect;
mod replay;
mod resume;
mod slow;

use serde_json::{Value, json};

use crate::harness::{Client, TestApp};

/// Deposits into a wallet.
async fn deposit(client: &Client, wallet: &str, amount: &str) {
    let body = json!({ "id": wallet, "amount": amount });
    let response = client.post("/wallet/deposit", body).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

/// Reads a wallet, and returns the position that the read belongs to.
async fn position_of(client: &Client, wallet: &str) -> String {
    let response = client.get(&format!("/wallet/balance/{wallet}")).await;
    assert_eq!(response.status, 200, "{}", response.text);
    response.header("book-position").to_owned()
}

/// Appends an event to the event table, in a transaction of its own.
async fn append(app: &TestApp, topic: &str, body: &Value) {
    let mut db = app.database.connect().await;
    let insert = "insert into ledger.event (book, topic, body) values (1, $1, $2::text::json)";
    sqlx::query(insert).bind(topic).bind(body.to_string()).execute(&mut db).await.unwrap();
    sqlx::query("select pg_notify('event', '1')").execute(&mut db).await.unwrap();
}

/// Returns the amount of a transfer's event, with two decimals.
fn amount(event: &Value) -> String {
    assert!(event["position"].is_string(), "{event}");
    format!("{:.2}", event["data"]["amount"].as_f64().unwrap())
}

/// Returns a decimal in cents.
fn cents(value: &Value) -> i64 {
    let text = format!("{:.2}", value.as_f64().unwrap_or_else(|| panic!("{value}")));
    text.replace('.', "").parse().unwrap()
}

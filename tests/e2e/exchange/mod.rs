//! The exchange: accounts, wallets, quotes, orders, and what the outside world does to them.

mod crash;
mod docs;
mod faults;
mod internal;
mod kills;
mod limits;
mod notifications;
mod operators;
mod orders;
mod original;
mod page;
mod postman;
mod versions;

use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::users::User;
use crate::harness::{Client, Response, TestApp, eventually};

/// A user with wallets on the exchange and a balance in cents.
async fn trader(app: &TestApp, name: &str, cents: i64) -> User {
    let user = app.user(name).await;
    let bank = app.api_key(&[Scope::WalletWrite]).await;
    let opened = bank.post(&format!("/exchange/wallet/{}", user.id), json!({})).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    if cents > 0 {
        let body = json!({ "userId": user.id, "amount": cents });
        let funded = bank.post("/api/wallet/deposit", body).await;
        assert_eq!(funded.status, 200, "{}", funded.text);
    }
    user
}

async fn buy(user: &User, body: Value) -> Response {
    user.post(&format!("/exchange/buy/{}", user.id), body).await
}

async fn sell(user: &User, body: Value) -> Response {
    user.post(&format!("/exchange/sell/{}", user.id), body).await
}

/// Number of the order that a response is about.
fn order_id(response: &Response) -> i64 {
    assert_eq!(response.status, 200, "{}", response.text);
    response.json()["order_id"].as_i64().unwrap()
}

async fn order(client: &Client, id: i64) -> Value {
    client.get(&format!("/exchange/order/{id}")).await.json()
}

/// Waits until an order is in a state, and returns it.
async fn reaches(client: &Client, id: i64, state: &str) -> Value {
    let mut found = Value::Null;
    eventually(&format!("order {id} is {state}"), async || {
        found = order(client, id).await;
        let is_over = ["completed", "failed", "stuck"].contains(&found["state"].as_str().unwrap());
        assert!(found["state"] == state || !is_over, "{found}");
        found["state"] == state
    })
    .await;
    found
}

/// State of a step of an order.
fn step<'a>(order: &'a Value, name: &str) -> &'a Value {
    let steps = order["steps"].as_array().unwrap();
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name}: {order}"))
}

/// Fiat and crypto of a user, as the exchange shows them.
async fn balances(user: &User) -> (String, String) {
    let wallet = user.get(&format!("/exchange/wallet/{}", user.id)).await;
    assert_eq!(wallet.status, 200, "{}", wallet.text);
    amounts(&wallet.text)
}

/// Fiat and crypto of the hot wallets.
async fn hot_wallets(app: &TestApp) -> (String, String) {
    let auditor = app.api_key(&[Scope::WalletRead]).await;
    amounts(&auditor.get("/api/hot-wallets").await.text)
}

/// The amounts of a body, digit by digit.
fn amounts(body: &str) -> (String, String) {
    let member = |name: &str| {
        let rest = body.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("{body}"));
        rest.split([',', '}']).next().unwrap().to_owned()
    };
    (member("fiat_amount"), member("crypto_amount"))
}

fn texts(fiat: &str, crypto: &str) -> (String, String) {
    (fiat.to_owned(), crypto.to_owned())
}

/// Makes the next calls whose reference contains `part` meet a fault.
async fn fault(app: &TestApp, part: &str, fault: &str, count: i32) {
    let sql = format!(
        "insert into simulated_fault (part, fault, remaining) values ('{part}', '{fault}', {count})"
    );
    app.database.execute(&sql).await;
}

/// Asserts that every fault that was prepared has happened: the injected call is the one that was hit.
async fn assert_faults_happened(app: &TestApp) {
    let mut db = app.database.connect().await;
    let left: Vec<(String, String, i32)> =
        sqlx::query_as("select part, fault, remaining from simulated_fault where remaining > 0")
            .fetch_all(&mut db)
            .await
            .unwrap();
    assert!(left.is_empty(), "these faults did not happen: {left:?}");
}

/// Moves money between the outside and a hot wallet.
async fn fund_hot(app: &TestApp, code: &str, amount: &str) {
    let exchange = &app.app().exchange;
    let (fiat, crypto) = (exchange.pair().fiat, exchange.pair().crypto);
    let currency = if code == crypto.code() { crypto } else { fiat };
    let operator = revwallet::auth::Caller::operator();
    let key = revwallet::idempotency_key::IdempotencyKey::absent();
    exchange.fund_hot_wallet(currency, amount, &operator, &key, "test").await.unwrap();
}

/// Sets the price of the simulated exchange.
async fn set_price(app: &TestApp, price: &str) {
    app.database.execute(&format!("update simulated_outside set price = {price}")).await;
}

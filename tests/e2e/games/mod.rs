//! The games store: the catalog, purchases, refunds, libraries, and the store page.

mod activation_keys;
mod admin_page;
mod cached_quotes;
mod catalog;
mod contention;
mod crash;
mod docs;
mod import;
mod offers;
mod original;
mod page;
mod publisher_keys;
mod purchases;
mod refunds;
mod statements;
mod webhooks;

use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::users::User;
use crate::harness::{Client, Response, Socket, TestApp};

/// Body of a game with the members that the original service knows.
fn game(title: &str, price: &str) -> Value {
    json!({ "title": title, "genre": "puzzle", "price": price, "description": format!("About {title}") })
}

/// Adds a game with further members and returns its id.
async fn add(client: &Client, title: &str, price: &str, further: Value) -> i64 {
    let mut body = game(title, price);
    for (name, value) in further.as_object().unwrap() {
        body[name] = value.clone();
    }
    let added = client.post("/api/games", body).await;
    assert_eq!(added.status, 201, "{}", added.text);
    added.json()["gameId"].as_i64().unwrap()
}

async fn change(client: &Client, game: i64, body: Value) -> Response {
    let request = client.request(reqwest::Method::PUT, &format!("/api/games/{game}"));
    client.send(request.json(&body)).await
}

async fn delete(client: &Client, game: i64) -> Response {
    let request = client.request(reqwest::Method::DELETE, &format!("/api/games/{game}"));
    client.send(request).await
}

async fn buy(client: &Client, game: i64, body: Value) -> Response {
    client.post(&format!("/api/games/{game}/purchase"), body).await
}

async fn refund(client: &Client, game: i64, body: Value) -> Response {
    client.post(&format!("/api/games/{game}/refund"), body).await
}

/// A user with a balance in cents of the default currency.
async fn buyer(app: &TestApp, name: &str, cents: i64) -> User {
    let user = app.user(name).await;
    fund(app, &user.id, cents).await;
    user
}

async fn fund(app: &TestApp, user: &str, cents: i64) {
    let bank = app.api_key(&[Scope::WalletWrite]).await;
    let body = json!({ "userId": user, "amount": cents });
    let funded = bank.post("/api/wallet/deposit", body).await;
    assert_eq!(funded.status, 200, "{}", funded.text);
}

/// Balance of a user in cents.
async fn cents(user: &User) -> i64 {
    let balance = user.get(&format!("/api/wallet/balance/{}", user.id)).await;
    balance.json()["balance"].as_i64().unwrap()
}

/// The next event about an entitlement: one about the catalog from before the subscription can still arrive.
async fn next_entitlement(socket: &mut Socket) -> Value {
    loop {
        let event = socket.json().await;
        if event["type"].as_str().unwrap().starts_with("entitlement.") {
            return event;
        }
    }
}

/// Titles in the library of a user.
async fn titles(user: &User) -> Vec<String> {
    let library = user.get(&format!("/api/users/{}/library", user.id)).await.json();
    let titles = library["games"].as_array().unwrap().iter();
    titles.map(|game| game["title"].as_str().unwrap().to_owned()).collect()
}

/// Makes a new user a publisher with this fee and returns both.
async fn publisher(app: &TestApp, name: &str, fee: &str) -> (User, String) {
    let user = app.user(name).await;
    let admin = app.api_key(&[Scope::Admin]).await;
    let body = json!({ "user": user.id, "name": format!("{name} Games"), "fee": fee });
    let created = admin.post("/api/publishers", body).await;
    assert_eq!(created.status, 201, "{}", created.text);
    (user, created.json()["id"].as_str().unwrap().to_owned())
}

/// Balances of the store's accounts: revenue, tax, and the publisher's share.
async fn accounts(app: &TestApp, publisher: &str) -> [i64; 3] {
    // EUR as a number: a letter counts from 11, in base 37, padded to six digits.
    let mut db = app.database.connect().await;
    let books: Vec<i32> =
        sqlx::query_scalar("select book from ledger.book").fetch_all(&mut db).await.unwrap();
    let balance = "select case when credit = $1 then credit_balance else debit_balance end
        from ledger.transfer
        where book = $2 and (credit = $1 or debit = $1)
        order by seq desc limit 1";
    let eur = "EUR".bytes().fold(0_i64, |number, byte| number * 37 + i64::from(byte - b'A') + 11)
        * 37_i64.pow(3);
    let payable = -(1_i64 << 54) - (publisher.parse::<i64>().unwrap() << 32 | eur);
    let mut balances = [0; 3];
    for (n, account) in [-(2 << 32 | eur), -(8 << 32 | eur), payable].into_iter().enumerate() {
        for book in &books {
            // Each book has accounts of the operator; what the publisher is owed is in the first book.
            if *book == 1 || account != payable {
                let last: Option<i64> = sqlx::query_scalar(balance)
                    .bind(account)
                    .bind(book)
                    .fetch_optional(&mut db)
                    .await
                    .unwrap();
                balances[n] += last.unwrap_or_default();
            }
        }
    }
    balances
}

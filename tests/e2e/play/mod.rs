//! Play: `/api/wallet` in minor units, guests, and main wallets.

mod document;
mod guests;
mod main_wallets;

use reqwest::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::{Client, Response, run, run_with};

/// Returns the body of a deposit or withdrawal.
fn cents(player: &str, amount: i64) -> Value {
    json!({ "userId": player, "amount": amount })
}

/// Deposits and returns the new balance.
async fn deposit(client: &Client, player: &str, amount: i64) -> i64 {
    let response = client.post("/api/wallet/deposit", cents(player, amount)).await;
    assert_eq!(response.status, 200, "{}", response.text);
    response.json()["balance"].as_i64().unwrap()
}

async fn balance(client: &Client, player: &str) -> Response {
    client.get(&format!("/api/wallet/balance/{player}")).await
}

#[tokio::test]
async fn money_moves_in_minor_units() {
    run(async |app| {
        let first = app.post("/api/wallet/deposit", cents("ada", 12_300)).await;
        assert_eq!(first.status, 200, "{}", first.text);
        let transfer = first.json()["transferId"].as_str().unwrap().to_owned();
        let expected = json!({ "userId": "ada", "balance": 12_300, "currency": "EUR", "transferId": transfer });
        assert_eq!(first.json(), expected);

        let second = app.post("/api/wallet/withdraw", cents("ada", 300)).await.json();
        assert_eq!(second["balance"], 12_000);
        let expected = json!({ "userId": "ada", "balance": 12_000, "currency": "EUR" });
        let read = balance(app, "ada").await;
        assert_eq!(read.json(), expected);
        assert!(read.header("book-position").starts_with("p1."));

        let found = app.get(&format!("/wallet/transfer/{transfer}")).await.json();
        assert_eq!((&found["kind"], &found["amount"]), (&json!("deposit"), &json!(123.0)));
        let too_much = app.post("/api/wallet/withdraw", cents("ada", 12_001)).await;
        let problem = too_much.problem(422, "insufficient-funds");
        assert_eq!((&problem["available"], &problem["required"]), (&json!(12_000), &json!(12_001)));
        for alias in ["details", "message"] {
            assert_eq!(problem[alias], problem["detail"]);
        }
    })
    .await;
}

#[tokio::test]
async fn each_spelling_of_the_user_id_is_accepted_once() {
    run(async |app| {
        for (name, id) in [
            ("userId", json!("77")),
            ("user_id", json!("77")),
            ("userID", json!("77")),
            ("userId", json!(77)),
        ] {
            let response =
                app.post("/api/wallet/deposit", json!({ name: id, "amount": 100 })).await;
            assert_eq!(response.json()["userId"], "77", "{name}");
        }
        assert_eq!(balance(app, "77").await.json()["balance"], 400);

        let twice = json!({ "userId": "77", "user_id": "78", "amount": 1 });
        app.post("/api/wallet/deposit", twice).await.problem(422, "invalid");
        let long = "x".repeat(65);
        for id in
            [json!(""), json!("a b"), json!("ü"), json!(-5), json!(1.5), json!(true), json!(long)]
        {
            let body = json!({ "userId": id, "amount": 1 });
            let problem = app.post("/api/wallet/deposit", body).await.problem(422, "invalid");
            assert_eq!(problem["errors"][0]["pointer"], "/userId", "{id}");
        }
        let problem = app.post("/api/wallet/withdraw", json!({})).await.problem(422, "invalid");
        assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    })
    .await;
}

#[tokio::test]
async fn an_amount_is_a_whole_number_of_minor_units() {
    run(async |app| {
        for amount in ["100", "\"100\"", "1e2"] {
            let body = format!(r#"{{"userId":"ada","amount":{amount}}}"#);
            let request = app.request(Method::POST, "/api/wallet/deposit").body(body);
            let response = app.send(request.header("content-type", "application/json")).await;
            assert_eq!(response.status, 200, "{amount}: {}", response.text);
        }
        for (amount, detail) in [
            ("1.5", "minor units"),
            ("100.00", "minor units"),
            ("\"0.01\"", "minor units"),
            ("0", "zero"),
            ("-1", "negative"),
            ("-1.5", "negative"),
            ("1e30", "too large"),
            ("\"NaN\"", "decimal number"),
            ("[]", "decimal number"),
        ] {
            for path in ["/api/wallet/deposit", "/api/wallet/withdraw"] {
                let body = format!(r#"{{"userId":"ada","amount":{amount}}}"#);
                let request = app.request(Method::POST, path).body(body);
                let request = request.header("content-type", "application/json");
                let problem = app.send(request).await.problem(422, "invalid");
                assert_eq!(problem["errors"][0]["pointer"], "/amount", "{amount}");
                assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
            }
        }
        let over = app.post("/api/wallet/deposit", cents("ada", 1_000_000_000_001)).await;
        over.problem(422, "amount-too-large");
        assert_eq!(balance(app, "ada").await.json()["balance"], 300);
    })
    .await;
}

#[tokio::test]
async fn each_currency_has_a_main_wallet_of_its_own() {
    run_with(&["--default-currency=USD"], async |app| {
        let body =
            |currency: Value| json!({ "userId": "ada", "amount": 500, "currency": currency });
        for (currency, expected) in
            [(Value::Null, "USD"), (json!("BTC"), "BTC"), (json!("JPY"), "JPY")]
        {
            let moved = app.post("/api/wallet/deposit", body(currency)).await.json();
            assert_eq!((&moved["currency"], &moved["balance"]), (&json!(expected), &json!(500)));
        }
        let read = app.get("/api/wallet/balance/ada?currency=BTC").await.json();
        assert_eq!(read, json!({ "userId": "ada", "balance": 500, "currency": "BTC" }));
        assert_eq!(app.get("/api/wallet/balance/ada?currency=CHF").await.json()["balance"], 0);
        let problem = app.post("/api/wallet/deposit", body(json!("EURO"))).await;
        assert_eq!(problem.problem(422, "invalid")["errors"][0]["pointer"], "/currency");
        let problem = app.get("/api/wallet/balance/ada?currency=EURO").await;
        assert_eq!(problem.problem(422, "invalid")["errors"][0]["pointer"], "?currency");
        let listed = app.get("/wallet?owner=ada").await.json();
        assert_eq!(listed.as_array().unwrap().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_request_without_a_content_type_is_json_unless_it_is_a_foreign_page() {
    run(async |app| {
        let own = format!("http://{}", app.address);
        let body = || cents("ada", 100).to_string();
        for (content_type, origin, status) in [
            (None, None, 200),
            (None, Some(own.as_str()), 200),
            (None, Some("https://evil.example"), 415),
            (None, Some("null"), 415),
            (Some("text/plain"), None, 415),
            (Some("application/json"), Some("https://evil.example"), 200),
        ] {
            for path in ["/api/wallet/deposit", "/api/wallet/withdraw"] {
                let mut request = app.request(Method::POST, path).body(body());
                for (name, value) in [("content-type", content_type), ("origin", origin)] {
                    request = match value {
                        Some(value) => request.header(name, value),
                        None => request,
                    };
                }
                let response = app.send(request).await;
                assert_eq!(
                    response.status, status,
                    "{content_type:?} {origin:?}: {}",
                    response.text
                );
            }
        }
        let without_type = app.request(Method::POST, "/wallet/deposit").body("{}");
        app.send(without_type).await.problem(415, "unsupported-media-type");
        let malformed = app.request(Method::POST, "/api/wallet/deposit").body("{");
        app.send(malformed).await.problem(400, "malformed-json");
    })
    .await;
}

#[tokio::test]
async fn a_user_moves_only_their_own_money() {
    run(async |app| {
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        assert_eq!(balance(&ada, &ada.id).await.json()["balance"], 0);
        let none = ada.post("/api/wallet/withdraw", cents(&ada.id, 1)).await;
        assert_eq!(none.problem(422, "insufficient-funds")["available"], 0);
        assert_eq!(deposit(&ada, &ada.id, 500).await, 500);

        for path in ["/api/wallet/deposit", "/api/wallet/withdraw"] {
            app.post(path, cents(&ada.id, 1)).await.problem(401, "unauthenticated");
            bob.post(path, cents(&ada.id, 1)).await.problem(403, "forbidden");
            // A signed-in user is no guest.
            bob.post(path, cents("guest", 1)).await.problem(403, "forbidden");
        }
        balance(app, &ada.id).await.problem(401, "unauthenticated");
        balance(&bob, &ada.id).await.problem(403, "forbidden");
        let shop = app.api_key(&[Scope::WalletWrite]).await;
        assert_eq!(deposit(&shop, &ada.id, 1).await, 501);
        assert_eq!(deposit(&shop, "guest", 1).await, 1);
        balance(&shop, &ada.id).await.problem(403, "forbidden");
        let reader = app.api_key(&[Scope::WalletRead]).await;
        assert_eq!(balance(&reader, &ada.id).await.json()["balance"], 501);
        reader.post("/api/wallet/deposit", cents(&ada.id, 1)).await.problem(403, "forbidden");
    })
    .await;
}

#[tokio::test]
async fn users_fund_themselves_only_where_the_operator_allows_it() {
    run_with(&["--self-service-funding=false"], async |app| {
        let ada = app.user("ada").await;
        ada.post("/api/wallet/deposit", cents(&ada.id, 1)).await.problem(403, "forbidden");
        app.post("/api/wallet/deposit", cents("guest", 1)).await.problem(401, "unauthenticated");
        let shop = app.api_key(&[Scope::WalletWrite]).await;
        deposit(&shop, &ada.id, 10).await;
        let withdrawn = ada.post("/api/wallet/withdraw", cents(&ada.id, 10)).await;
        assert_eq!(withdrawn.json()["balance"], 0);
    })
    .await;
}

#[tokio::test]
async fn a_key_moves_money_once_even_after_its_wallet_was_closed() {
    run(async |app| {
        let post = async |path: &str, key: &str, amount: i64| {
            app.post_with_key(path, key, cents("ada", amount)).await
        };
        let first = post("/api/wallet/deposit", "d", 500).await;
        let again = post("/api/wallet/deposit", "d", 500).await;
        assert_eq!((again.json(), again.header("idempotent-replayed")), (first.json(), "true"));
        let other = post("/api/wallet/deposit", "d", 501).await;
        other.problem(422, "idempotency-key-reused");
        let withdrawn = post("/api/wallet/withdraw", "w", 500).await;
        assert_eq!(withdrawn.json()["balance"], 0);

        let wallets = app.get("/wallet?owner=ada").await.json();
        let wallet = wallets[0]["id"].as_str().unwrap();
        let close = app.request(Method::DELETE, &format!("/wallet/{wallet}"));
        assert_eq!(app.send(close).await.status, 204);

        for (path, key, original) in
            [("/api/wallet/deposit", "d", &first), ("/api/wallet/withdraw", "w", &withdrawn)]
        {
            let replay = post(path, key, 500).await;
            assert_eq!(replay.json(), original.json(), "{path}");
            assert_eq!(replay.header("idempotent-replayed"), "true");
        }
        post("/api/wallet/withdraw", "w", 499).await.problem(422, "idempotency-key-reused");
        post("/api/wallet/withdraw", "x", 1).await.problem(422, "insufficient-funds");
        assert_eq!(app.get("/wallet?owner=ada").await.json(), json!([]));
        assert_eq!(balance(app, "ada").await.json()["balance"], 0);
        assert_eq!(deposit(app, "ada", 7).await, 7);
        assert_eq!(app.get("/wallet?owner=ada").await.json().as_array().unwrap().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_frozen_main_wallet_receives_and_does_not_pay() {
    run(async |app| {
        deposit(app, "ada", 100).await;
        let wallets = app.get("/wallet?owner=ada").await.json();
        let path = format!("/wallet/{}", wallets[0]["id"].as_str().unwrap());
        let freeze = app.request(Method::PATCH, &path).json(&json!({ "freeze": true }));
        assert_eq!(app.send(freeze).await.status, 200);

        let refused = app.post("/api/wallet/withdraw", cents("ada", 1)).await;

        assert_eq!(refused.problem(409, "wallet-frozen")["errors"][0]["pointer"], "/userId");
        assert_eq!(deposit(app, "ada", 1).await, 101);
    })
    .await;
}

#[tokio::test]
async fn held_money_is_part_of_the_balance_and_cannot_be_withdrawn() {
    run(async |app| {
        deposit(app, "ada", 1_000).await;
        let wallets = app.get("/wallet?owner=ada").await.json();
        let hold = json!({ "id": wallets[0]["id"], "amount": "4.00" });
        assert_eq!(app.post("/wallet/hold", hold).await.status, 201);

        assert_eq!(balance(app, "ada").await.json()["balance"], 1_000);
        let refused = app.post("/api/wallet/withdraw", cents("ada", 601)).await;
        assert_eq!(refused.problem(422, "insufficient-funds")["available"], 600);
        let withdrawn = app.post("/api/wallet/withdraw", cents("ada", 600)).await;
        assert_eq!(withdrawn.json()["balance"], 400);
    })
    .await;
}

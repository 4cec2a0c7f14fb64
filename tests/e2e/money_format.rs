//! Amounts as JSON numbers or as strings: `Prefer: money=string` and `--money string`.

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::{Client, Response, TestApp, run, run_with};

async fn prefer(
    client: &Client,
    format: &str,
    method: Method,
    path: &str,
    body: Value,
) -> Response {
    let request = client.request(method, path).header("prefer", format!("money={format}"));
    let request = if body.is_null() { request } else { request.json(&body) };
    client.send(request).await
}

async fn get_strings(client: &Client, path: &str) -> Response {
    let response = prefer(client, "string", Method::GET, path, Value::Null).await;
    assert_eq!(response.header("preference-applied"), "money=string", "{path}");
    response
}

async fn post_strings(client: &Client, path: &str, body: Value) -> Response {
    let response = prefer(client, "string", Method::POST, path, body).await;
    assert_eq!(response.header("preference-applied"), "money=string", "{path}");
    response
}

/// The decimals among the numbers of an answer, by their names.
fn decimals(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(number) if number.is_f64() => found.push(name.to_owned()),
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| decimals(value, name, found));
        }
        Value::Array(items) => items.iter().for_each(|item| decimals(item, name, found)),
        _ => {}
    }
}

/// Asserts that an answer has the same members in both formats, and decimals only in one of them.
fn assert_same(numbers: &Response, strings: &Response) {
    let mut found = Vec::new();
    decimals(&strings.json(), "", &mut found);
    assert!(found.is_empty(), "{found:?} in {}", strings.text);
    decimals(&numbers.json(), "", &mut found);
    assert!(!found.is_empty(), "no decimals in {}", numbers.text);
    for name in found {
        assert!(strings.text.contains(&format!("\"{name}\":\"")), "{name} in {}", strings.text);
    }
    let unquoted = |text: &str| text.replace('"', "");
    assert_eq!(unquoted(&numbers.text), unquoted(&strings.text));
}

async fn bank(app: &TestApp) -> Client {
    app.api_key(&[Scope::WalletRead, Scope::WalletWrite, Scope::GamesWrite, Scope::EventsWrite])
        .await
}

#[tokio::test]
async fn amounts_that_no_double_holds_come_back_as_they_were_sent() {
    run_with(
        &["--currency=WEI:18,BIG:0,CENTI:2,SAT:8", "--max-amount=9007199254740991"],
        async |app| {
            for (currency, amount) in [
                ("CENTI", "90071992547409.91"),
                ("SAT", "0.00000001"),
                ("SAT", "90071992.54740991"),
                ("WEI", "0.009007199254740991"),
                ("BIG", "9007199254740991"),
            ] {
                let opened =
                    json!({ "owner": "ada", "currency": currency, "initial_balance": amount });
                let opened = post_strings(app, "/wallet", opened).await;
                assert_eq!(opened.status, 201, "{}", opened.text);
                assert_eq!(opened.json()["balance"], amount);
                let id = opened.json()["id"].as_str().unwrap().to_owned();

                let balance = get_strings(app, &format!("/wallet/balance/{id}")).await.json();
                assert_eq!(balance["balance"], amount);
                let withdrawn = json!({ "id": id, "amount": balance["balance"] });
                let withdrawn = post_strings(app, "/wallet/withdraw", withdrawn).await;
                assert!(withdrawn.json()["balance"].is_string(), "{}", withdrawn.text);
            }
        },
    )
    .await;
}

#[tokio::test]
async fn every_read_has_its_decimals_in_the_format_that_the_client_prefers() {
    run(async |app| {
        let bank = bank(app).await;
        let wallet = app.open_wallet("EUR", "10").await;
        let other = app.open_wallet("EUR", "0.5").await;
        let transfer = json!({ "from": wallet, "to": other, "amount": "1.25", "fee": "0.10" });
        let transfer = app.post("/wallet/transfer", transfer).await.json();
        let hold = app.post("/wallet/hold", json!({ "id": wallet, "amount": "2.50" })).await.json();
        let game = json!({ "title": "Alpha", "genre": "puzzle", "price": "19.99", "description": "A" });
        let game = bank.post("/api/games", game).await.json()["gameId"].clone();
        let sale = json!({
            "name": "spring", "percent": "12.5", "games": [game],
            "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2099-01-01T00:00:00Z",
        });
        bank.post("/api/sales", sale).await;
        let board = bank.request(Method::PUT, "/api/leaderboards/weekly").json(
            &json!({ "reset": "@weekly", "prizes": [{ "rank": 1, "amount": 5, "currency": "EUR" }] }),
        );
        assert!(bank.send(board).await.status < 300);

        let text = |value: &Value| value.as_str().unwrap().to_owned();
        for path in [
            "/wallet".to_owned(),
            format!("/wallet/{wallet}"),
            format!("/wallet/balance/{wallet}"),
            format!("/wallet/{wallet}/history"),
            format!("/wallet/{wallet}/statement"),
            format!("/wallet/{wallet}/holds"),
            format!("/wallet/hold/{}", text(&hold["id"])),
            format!("/wallet/transfer/{}", text(&transfer["id"])),
            "/api/games".to_owned(),
            format!("/api/games/{game}"),
            "/exchange/info".to_owned(),
        ] {
            let numbers = bank.get(&path).await;
            assert_eq!(numbers.status, 200, "{path}: {}", numbers.text);
            assert_eq!(numbers.header("preference-applied"), "");
            if path == "/exchange/info" {
                assert_eq!(get_strings(&bank, &path).await.json()["fee_percent"], "0");
            } else {
                assert_same(&numbers, &get_strings(&bank, &path).await);
            }
        }
        let csv = bank
            .request(Method::GET, &format!("/wallet/{wallet}/statement"))
            .header("accept", "text/csv");
        let [plain, preferred] =
            [csv.try_clone().unwrap(), csv.header("prefer", "money=string")].map(|r| bank.send(r));
        assert_eq!(plain.await.text, preferred.await.text);
    })
    .await;
}

#[tokio::test]
async fn refusals_and_batches_write_their_amounts_as_strings_too() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "5.00").await;
        let other = app.open_wallet("EUR", "0").await;
        let too_much = json!({ "from": wallet, "to": other, "amount": "7.50" });

        let refused = post_strings(app, "/wallet/transfer", too_much.clone()).await;

        let problem = refused.problem(422, "insufficient-funds");
        assert_eq!((&problem["available"], &problem["required"]), (&json!("5.00"), &json!("7.50")));
        let transfers = json!([too_much, { "from": wallet, "to": other, "amount": "1.10" }]);
        let batch = json!({ "atomic": false, "transfers": transfers });
        let batch = post_strings(app, "/wallet/batch", batch).await.json();
        assert_eq!(batch["results"][0]["problem"]["required"], "7.50");
        assert_eq!(batch["results"][1]["transfer"]["amount"], "1.10");
    })
    .await;
}

#[tokio::test]
async fn a_replay_follows_the_preference_of_the_new_request() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "0").await;
        let body = json!({ "id": wallet, "amount": "1.10" });
        let deposit = app.request(Method::POST, "/wallet/deposit").json(&body);
        let deposit = deposit.header("idempotency-key", "the-first");
        let again = deposit.try_clone().unwrap().header("prefer", "respond-async, money=string");

        assert_eq!(app.send(deposit).await.json()["balance"], json!(1.1));
        let again = app.send(again).await;

        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.json()["balance"], "1.10");
    })
    .await;
}

#[tokio::test]
async fn lists_with_a_tag_have_one_for_each_format() {
    run(async |app| {
        let bank = bank(app).await;
        let game =
            json!({ "title": "Alpha", "genre": "puzzle", "price": "19.99", "description": "A" });
        assert_eq!(bank.post("/api/games", game).await.status, 201);
        let numbers = bank.get("/api/games").await;
        let strings = get_strings(&bank, "/api/games").await;

        assert_ne!(numbers.header("etag"), strings.header("etag"));
        for response in [&numbers, &strings] {
            let mut varies = response.headers.get_all("vary").iter();
            assert!(varies.any(|value| value == "prefer"), "{:?}", response.headers);
        }
        let known =
            |tag: &str| bank.request(Method::GET, "/api/games").header("if-none-match", tag);
        assert_eq!(bank.send(known(numbers.header("etag"))).await.status, 304);
        assert_eq!(bank.send(known(strings.header("etag"))).await.status, 200);
        let preferred = known(strings.header("etag")).header("prefer", "money=string");
        assert_eq!(bank.send(preferred).await.status, 304);
    })
    .await;
}

#[tokio::test]
async fn events_have_numbers_whatever_their_cause_prefers() {
    run(async |app| {
        let bank = bank(app).await;
        let mut socket = app.socket().await;
        socket.subscribe("game_updates").await;
        let game =
            json!({ "title": "Alpha", "genre": "puzzle", "price": "19.99", "description": "A" });
        let added = prefer(&bank, "string", Method::POST, "/api/games", game).await;
        assert_eq!(added.status, 201, "{}", added.text);

        let event = socket.json().await;

        assert_eq!(event["type"], "game.added", "{event}");
        assert_eq!(event["data"]["price"], json!(19.99), "{event}");
    })
    .await;
}

#[tokio::test]
async fn the_server_can_write_strings_by_default() {
    run_with(&["--money=string"], async |app| {
        let open = app.request(Method::POST, "/wallet");
        // Not through the client, which checks answers against the document of the usual default.
        let opened = open.json(&json!({ "owner": "a", "currency": "EUR" })).send().await.unwrap();
        assert_eq!(opened.headers().get("preference-applied"), None);
        let opened: Value = opened.json().await.unwrap();
        assert_eq!(opened["balance"], "0.00", "{opened}");

        let path = format!("/wallet/balance/{}", opened["id"].as_str().unwrap());
        let numbers = prefer(app, "number", Method::GET, &path, Value::Null).await;

        assert_eq!(numbers.json()["balance"], json!(0.0));
        assert_eq!(numbers.header("preference-applied"), "money=number");
    })
    .await;
}

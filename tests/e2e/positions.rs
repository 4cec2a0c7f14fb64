//! The header `Book-Position`: every read says how far it takes the book and its events into account.

use http::Method;
use revwallet::auth::Scope;
use serde_json::json;

use crate::harness::{Response, TestApp, eventually, run};

/// Returns the seq of the newest transfer that a read takes into account.
fn seq(response: &Response) -> i64 {
    let position = response.header("book-position");
    let parts: Vec<&str> = position.split('.').collect();
    assert_eq!((parts.len(), parts[0]), (6, "p1"), "{position:?}");
    parts[2].parse().unwrap()
}

async fn head(app: &TestApp) -> i64 {
    let mut db = app.database.connect().await;
    let head = "select max(seq) from ledger.seal where book = 1";
    sqlx::query_scalar(head).fetch_one(&mut db).await.unwrap()
}

#[tokio::test]
async fn every_documented_read_carries_a_position() {
    run(async |app| {
        let admin = app.api_key(&[Scope::Admin]).await;
        let user = app.user("ada").await;
        let wallet = admin.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await;
        let wallet = wallet.json()["id"].as_str().unwrap().to_owned();
        let deposit = json!({ "id": wallet, "amount": "9.00" });
        assert_eq!(admin.post("/wallet/deposit", deposit).await.status, 200);
        let hold = admin.post("/wallet/hold", json!({ "id": wallet, "amount": "1.00" })).await;
        let hold = hold.json()["id"].as_str().unwrap().to_owned();
        let hook = json!({ "url": "https://example.com/hook", "events": ["*"] });
        let hook = admin.post("/wallet/webhook", hook).await.json()["id"].to_string();
        let board = admin.request(Method::PUT, "/api/leaderboards/b").json(&json!({}));
        assert_eq!(admin.send(board).await.status, 201);
        let score = json!({ "user": wallet, "score": 1 });
        assert_eq!(admin.post("/api/leaderboards/b/scores", score).await.status, 200);
        let deposit = json!({ "userId": user.id, "amount": 1 });
        assert_eq!(admin.post("/api/wallet/deposit", deposit).await.status, 200);
        let rank = format!("/api/leaderboard/{}", user.id);
        eventually("the player has a rank", async || admin.get(&rank).await.status == 200).await;
        let body = json!({ "user": user.id, "name": "Ada Games" });
        let publisher = admin.post("/api/publishers", body).await.json()["id"].clone();
        let game = json!({ "title": "Alpha", "genre": "puzzle", "price": 0 });
        let game = admin.post("/api/games", game).await.json()["gameId"].to_string();
        let bought = user.post(&format!("/api/games/{game}/purchase"), json!({})).await;
        assert_eq!(bought.status, 201, "{}", bought.text);
        let deposit = json!({ "userId": user.id, "amount": 100 });
        assert_eq!(admin.post("/api/wallet/deposit", deposit).await.status, 200);
        let buy = format!("/exchange/buy/{}", user.id);
        let order =
            user.post(&buy, json!({ "fiat_amount": 1 })).await.json()["order_id"].to_string();
        let order_path = format!("/exchange/order/{order}");
        eventually("the order is complete", async || {
            user.get(&order_path).await.json()["state"] == "completed"
        })
        .await;
        let document = app.get("/openapi.json").await.json();
        let head = head(app).await;
        let mut reads = 0;

        for (path, item) in document["paths"].as_object().unwrap() {
            let operation = &item["get"];
            let is_read =
                !["about", "realtime"].map(|tag| json!(tag)).contains(&operation["tags"][0]);
            if operation.is_null() || !is_read {
                continue;
            }
            let id = match path.split('/').nth(2) {
                Some("users") => &user.id,
                Some("games") => &game,
                Some("publishers") => publisher.as_str().unwrap(),
                _ => &wallet,
            };
            let filled = path
                .replace("/transfer/{id}", &format!("/transfer/{head}"))
                .replace("{id}", id)
                .replace("{user_id}", &user.id)
                .replace("{board}", "b")
                .replace("{order_id}", &order)
                .replace("{hold}", &hold)
                .replace("{webhook}", hook.trim_matches('"'));
            let caller = if path == "/api/users/me" { &user.client } else { &admin };
            let response = caller.get(&filled).await;

            assert_eq!(response.status, 200, "{filled}: {}", response.text);
            assert_eq!(seq(&response), head, "{path}");
            let header = &operation["responses"]["200"]["headers"]["Book-Position"]["$ref"];
            assert_eq!(header, "#/components/headers/Book-Position", "{path}: {operation}");
            reads += 1;
        }
        assert!(reads >= 21, "{reads} reads");
    })
    .await;
}

#[tokio::test]
async fn only_reads_carry_a_position() {
    run(async |app| {
        let opened = app.post("/wallet", json!({ "owner": "ada", "currency": "EUR" })).await;
        assert_eq!(opened.status, 201);
        assert_eq!(opened.header("book-position"), "");
        assert_eq!(app.get("/openapi.json").await.header("book-position"), "");
    })
    .await;
}

#[tokio::test]
async fn a_balance_belongs_to_the_position_that_comes_with_it() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "0").await;
        let opened = head(app).await;
        let is_done = std::cell::Cell::new(false);
        let writes = async {
            while !is_done.get() {
                let body = json!({ "id": wallet, "amount": "1.00" });
                assert_eq!(app.post("/wallet/deposit", body).await.status, 200);
            }
        };
        let reads = async {
            let mut seen = std::collections::BTreeSet::new();
            while seen.len() < 20 {
                for path in ["/wallet/balance/", "/wallet/"] {
                    let read = app.get(&format!("{path}{wallet}")).await;

                    // Each transfer after the opening is a deposit of 1.
                    let deposits = format!("\"balance\":{}.00,", seq(&read) - opened);
                    assert!(read.text.contains(&deposits), "{path}: {}", read.text);
                    seen.insert(seq(&read));
                }
            }
            is_done.set(true);
        };

        tokio::join!(writes, reads);
    })
    .await;
}

#[tokio::test]
async fn a_restored_database_has_another_epoch() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let path = format!("/wallet/balance/{wallet}");
        let epoch = async || {
            let position = app.get(&path).await.header("book-position").to_owned();
            position.split('.').nth(1).unwrap().to_owned()
        };
        let before = epoch().await;

        revwallet::app::after_restore::prepare(&app.app().db, &app.app().metrics).await.unwrap();

        assert_ne!(epoch().await, before);
    })
    .await;
}

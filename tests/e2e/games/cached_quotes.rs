//! Purchases at a quote that an earlier purchase read: they read nothing, and notice whatever has changed since.

use revwallet::auth::Scope;
use serde_json::json;

use super::activation_keys::{keys, redeem};
use super::offers::{crowd, put_sale, running};
use super::{accounts, add, buy, cents, change, publisher, refund};
use crate::harness::{TestApp, run};

/// Number of quotes that were read from the database.
async fn quotes_read(app: &TestApp) -> u64 {
    let metrics = app.internal.get("/metrics").await.text;
    let name = "db_client_operation_duration_seconds_count{db_operation_name=\"games.quote\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name));
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn a_cached_quote_costs_no_read_and_charges_the_same() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        let id = add(&store, "Alpha", "10", json!({ "publisher": nova })).await;
        let users = crowd(app, 4, 1_000).await;
        assert_eq!(buy(&users[0], id, json!({})).await.status, 201);
        let read = quotes_read(app).await;

        let path = format!("/api/games/{id}/purchase");
        let bought = users[1].post_with_key(&path, "k", json!({ "expected_price": 10 })).await;
        assert_eq!(bought.status, 201, "{}", bought.text);
        assert_eq!(quotes_read(app).await, read);
        let again = users[1].post_with_key(&path, "k", json!({ "expected_price": 10 })).await;
        assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &bought.text));
        buy(&users[1], id, json!({})).await.problem(409, "game-owned");
        buy(&users[2], id, json!({ "expected_price": 9 })).await.problem(409, "price-changed");
        assert_eq!(refund(&users[1], id, json!({})).await.status, 200);
        assert_eq!(buy(&users[1], id, json!({})).await.status, 201);

        assert_eq!(
            [cents(&users[0]).await, cents(&users[1]).await, cents(&users[2]).await],
            [0, 0, 1_000]
        );
        assert_eq!(accounts(app, &nova).await, [200, 0, 1_800]);
    })
    .await;
}

#[tokio::test]
async fn a_change_of_the_game_its_sales_or_its_fee_outdates_a_cached_quote() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let admin = app.api_key(&[Scope::Admin]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        let id = add(&store, "Alpha", "5", json!({ "publisher": nova })).await;
        let users = crowd(app, 8, 1_000).await;
        let (last, users) = users.split_last().unwrap();
        let mut users = users.iter();
        let mut paid = async || {
            let user = users.next().unwrap();
            assert_eq!(buy(user, id, json!({})).await.status, 201);
            1_000 - cents(user).await
        };
        assert_eq!([paid().await, paid().await], [500, 500]);

        change(&store, id, json!({ "price": "4" })).await;
        assert_eq!(paid().await, 400);
        put_sale(&store, id, "half", running(&json!({ "percent": 50 }))).await;
        assert_eq!(paid().await, 200);
        app.database.execute("update game_sale set ends_at = clock_timestamp()").await;
        change(&store, id, json!({ "description": "The sale has ended." })).await;
        assert_eq!(paid().await, 400);

        let [fees, _, _] = accounts(app, &nova).await;
        let put = admin.request(reqwest::Method::PUT, &format!("/api/publishers/{nova}"));
        assert_eq!(admin.send(put.json(&json!({ "fee": "50" }))).await.status, 200);
        assert_eq!(paid().await, 400);
        assert_eq!(accounts(app, &nova).await[0], fees + 200);

        change(&store, id, json!({ "state": "retired" })).await;
        buy(last, id, json!({})).await.problem(409, "not-for-sale");
    })
    .await;
}

#[tokio::test]
async fn a_cached_quote_ends_with_its_sale() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "5", json!({})).await;
        let users = crowd(app, 3, 1_000).await;
        let mut sale = running(&json!({ "percent": 50 }));
        sale["ends_at"] = json!(super::offers::from_now(8.0));
        assert_eq!(put_sale(&store, id, "half", sale).await.status, 201);
        assert_eq!(buy(&users[0], id, json!({})).await.status, 201);
        assert_eq!(cents(&users[0]).await, 750);

        let mut db = app.database.connect().await;
        let wait = "select pg_sleep(greatest(0, extract(epoch from max(ends_at) - clock_timestamp()) + 0.05)) from game_sale";
        sqlx::query(wait).execute(&mut db).await.unwrap();

        assert_eq!(buy(&users[1], id, json!({})).await.status, 201);
        assert_eq!(cents(&users[1]).await, 500);
    })
    .await;
}

#[tokio::test]
async fn ownership_and_money_are_checked_at_a_cached_quote() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let content = add(&store, "More", "1", json!({ "base": id })).await;
        let users = crowd(app, 3, 1_100).await;
        let poor = app.user("poor").await;
        let key = keys(&store, id, 1).await.remove(0);
        for game in [id, content] {
            assert_eq!(buy(&users[0], game, json!({})).await.status, 201);
        }

        assert_eq!(redeem(&users[1], &key).await.status, 200);
        buy(&users[1], id, json!({})).await.problem(409, "game-owned");
        buy(&users[2], content, json!({})).await.problem(409, "base-game-missing");
        buy(&poor, id, json!({})).await.problem(422, "insufficient-funds");
        assert_eq!([cents(&users[1]).await, cents(&users[2]).await], [1_100, 1_100]);
        assert_eq!(buy(&users[1], content, json!({})).await.status, 201);
    })
    .await;
}

#[tokio::test]
async fn a_price_with_a_budget_is_never_cached() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "4", json!({})).await;
        let users = crowd(app, 4, 1_000).await;
        put_sale(&store, id, "few", running(&json!({ "percent": 50, "budget": 1 }))).await;

        let mut left = Vec::new();
        for user in &users[..2] {
            assert_eq!(buy(user, id, json!({})).await.status, 201);
            left.push(cents(user).await);
        }
        // A refund gives the lower price back, without a change of the game.
        assert_eq!(refund(&users[0], id, json!({})).await.status, 200);
        for user in &users[2..] {
            assert_eq!(buy(user, id, json!({})).await.status, 201);
            left.push(cents(user).await);
        }
        assert_eq!(left, [800, 600, 800, 600]);
    })
    .await;
}

//! Sales and discount codes.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{accounts, add, buy, buyer, cents, fund, publisher, refund};
use crate::harness::users::User;
use crate::harness::{Client, Response, TestApp, run, run_with};

/// A moment this far from now.
pub(super) fn from_now(seconds: f64) -> String {
    (OffsetDateTime::now_utc() + time::Duration::seconds_f64(seconds)).format(&Rfc3339).unwrap()
}

pub(super) async fn put_sale(client: &Client, game: i64, name: &str, body: Value) -> Response {
    let request = client.request(Method::PUT, &format!("/api/games/{game}/sales/{name}"));
    client.send(request.json(&body)).await
}

/// A sale that runs now, with further members.
pub(super) fn running(further: &Value) -> Value {
    let mut body = json!({ "starts_at": from_now(-60.0), "ends_at": from_now(600.0) });
    body.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
    body
}

/// Users with a balance each.
pub(super) async fn crowd(app: &TestApp, size: usize, cents: i64) -> Vec<User> {
    let users = stream::iter(0..size).map(async |n| app.user(&format!("user{n}")).await);
    let users: Vec<User> = users.buffered(8).collect().await;
    if cents > 0 {
        join_all(users.iter().map(|user| fund(app, &user.id, cents))).await;
    }
    users
}

#[tokio::test]
async fn the_lowest_price_of_the_running_sales_holds() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let further = json!({ "prices": [{ "currency": "USD", "price": "10" }] });
        let id = add(&store, "Alpha", "9.99", further).await;
        add(&store, "Beta", "5", json!({})).await;
        let created = put_sale(&store, id, "a", running(&json!({ "percent": 25 }))).await;
        assert_eq!(created.status, 201, "{}", created.text);
        let changed =
            put_sale(&store, id, "a", running(&json!({ "percent": "12.5", "budget": 7 }))).await;
        assert_eq!((changed.status, &changed.json()["left"]), (200, &json!(7)));
        put_sale(&store, id, "b", running(&json!({ "price": "8" }))).await;
        let later = json!({ "price": 1, "starts_at": from_now(60.0), "ends_at": from_now(90.0) });
        put_sale(&store, id, "later", later).await;

        let prices = app.get(&format!("/api/games/{id}")).await.json()["prices"].clone();
        assert_eq!((&prices[0]["price"], &prices[0]["sale"]["price"]), (&json!(9.99), &json!(8.0)));
        // 12.5 % of 10.00 are 1.25.
        assert_eq!(prices[1]["sale"]["price"], 8.75);
        let on_sale = app.get("/api/games?sale=true").await.json();
        assert_eq!(on_sale["games"].as_array().unwrap().len(), 1);
        assert_eq!(on_sale["games"][0]["price"], 9.99);
        let ada = buyer(app, "ada", 1_000).await;
        buy(&ada, id, json!({ "expected_price": "9.99" })).await.problem(409, "price-changed");
        let bought = buy(&ada, id, json!({ "expected_price": 8 })).await;
        assert_eq!((bought.status, cents(&ada).await), (201, 200), "{}", bought.text);

        let listed = store.get(&format!("/api/games/{id}/sales")).await.json();
        let names: Vec<&Value> =
            listed["sales"].as_array().unwrap().iter().map(|sale| &sale["name"]).collect();
        assert_eq!(names.len(), 3);
        assert_eq!(names[0], "later");
        let path = format!("/api/games/{id}/sales/b");
        assert_eq!(store.send(store.request(Method::DELETE, &path)).await.status, 204);
        store.send(store.request(Method::DELETE, &path)).await.problem(404, "not-found");
        let prices = app.get(&format!("/api/games/{id}")).await.json()["prices"].clone();
        assert_eq!(prices[0]["sale"]["price"], 8.74);
    })
    .await;
}

#[tokio::test]
async fn a_sale_that_makes_no_sense_is_refused() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let backwards =
            json!({ "percent": 10, "starts_at": from_now(60.0), "ends_at": from_now(30.0) });
        let refused = put_sale(&store, id, "x", backwards).await.problem(422, "invalid");
        assert_eq!(refused["errors"][0]["pointer"], "/ends_at");
        for (body, pointer) in [
            (running(&json!({})), "/percent"),
            (running(&json!({ "percent": 10, "price": 1 })), "/percent"),
            (running(&json!({ "percent": 10, "currency": "EUR" })), "/currency"),
            (running(&json!({ "percent": 0 })), "/percent"),
            (running(&json!({ "percent": "100.01" })), "/percent"),
            (running(&json!({ "price": "1.999" })), "/price"),
            (running(&json!({ "percent": 10, "budget": 0 })), "/budget"),
            (json!({ "percent": 10, "ends_at": from_now(30.0) }), "/starts_at"),
        ] {
            let refused = put_sale(&store, id, "x", body).await.problem(422, "invalid");
            assert_eq!(refused["errors"][0]["pointer"], pointer, "{refused}");
        }
        put_sale(&store, id, "a%20b", running(&json!({ "percent": 10 })))
            .await
            .problem(422, "invalid");
        put_sale(app, id, "x", running(&json!({ "percent": 10 })))
            .await
            .problem(401, "unauthenticated");
        put_sale(&store, 99, "x", running(&json!({ "percent": 10 })))
            .await
            .problem(404, "game-not-found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_never_outlives_its_window() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let users = crowd(app, 30, 1_000).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let window = json!({ "price": 5, "starts_at": from_now(1.0), "ends_at": from_now(4.0) });
        assert_eq!(put_sale(&store, id, "flash", window.clone()).await.status, 201);
        let ends: Vec<OffsetDateTime> = ["starts_at", "ends_at"]
            .map(|name| OffsetDateTime::parse(window[name].as_str().unwrap(), &Rfc3339).unwrap())
            .to_vec();

        // One purchase every 200 ms, from before the window to after it.
        let buys = users.iter().enumerate().map(async |(n, user)| {
            tokio::time::sleep(Duration::from_millis(200 * n as u64)).await;
            buy(user, id, json!({})).await
        });
        let answers = join_all(buys).await;

        let mut db = app.database.connect().await;
        let rows: Vec<(i64, OffsetDateTime)> =
            sqlx::query_as("select price, at from game_purchase order by at")
                .fetch_all(&mut db)
                .await
                .unwrap();
        assert_eq!(
            (answers.iter().filter(|answer| answer.status == 201).count(), rows.len()),
            (30, 30)
        );
        for (price, at) in &rows {
            // The row is written after the clock has been asked, later on a busy machine.
            let slack = time::Duration::milliseconds(500);
            let is_on_sale = ends[0] <= *at && *at < ends[1];
            let is_at_edge = ends.iter().any(|end| (*at - *end).abs() < slack);
            assert!(
                is_at_edge || (*price == 500) == is_on_sale,
                "{price} at {at}, window {ends:?}"
            );
        }
        assert!(
            rows.iter().any(|(price, _)| *price == 500)
                && rows.iter().any(|(price, _)| *price == 1_000)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_sells_exactly_so_many_copies_at_its_price() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        put_sale(&store, id, "s", running(&json!({ "price": "4", "budget": 11 }))).await;
        let users = crowd(app, 30, 1_000).await;

        let cheap = json!({ "expected_price": 4 });
        let answers = join_all(users.iter().map(|user| buy(user, id, cheap.clone()))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 11);
        for (user, answer) in users.iter().zip(&answers) {
            let spent = if answer.status == 201 { 400 } else { 0 };
            assert_eq!(cents(user).await, 1_000 - spent);
            if answer.status != 201 {
                assert_eq!(answer.problem(409, "price-changed")["price"], 10.0);
            }
        }
        let won = users.iter().zip(&answers).find(|(_, answer)| answer.status == 201).unwrap().0;
        assert_eq!(refund(won, id, json!({})).await.status, 200);
        let other = users.iter().zip(&answers).find(|(_, answer)| answer.status != 201).unwrap().0;
        assert_eq!(buy(other, id, cheap).await.status, 201, "the refund gave the budget back");
    })
    .await;
}

pub(super) async fn create_code(client: &Client, body: Value) -> Response {
    client.post("/api/codes", body).await
}

#[tokio::test]
async fn a_code_lowers_the_price_where_it_is_valid() {
    run_with(&["--tax-rates=EUR=19"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (nova, nova_id) = publisher(app, "nova", "10").await;
        let own = add(&store, "Own", "10", json!({ "publisher": nova_id })).await;
        let other = add(&store, "Other", "10", json!({})).await;
        let ada = buyer(app, "ada", 2_000).await;
        let drawn = create_code(&store, json!({ "amount": "2.50" })).await;
        assert_eq!(drawn.status, 201, "{}", drawn.text);
        let drawn = drawn.json()["code"].as_str().unwrap().to_owned();
        assert_eq!(drawn.len(), 10);
        let named = json!({ "code": "half-off", "percent": 50, "publisher": nova_id });
        assert_eq!(create_code(&nova, named.clone()).await.json()["code"], "HALF-OFF");
        create_code(&nova, named).await.problem(409, "code-exists");
        create_code(&nova, json!({ "percent": 50 })).await.problem(403, "forbidden");
        create_code(&nova, json!({ "percent": 50, "game": other })).await.problem(403, "forbidden");
        create_code(app, json!({ "percent": 50 })).await.problem(401, "unauthenticated");

        buy(&ada, other, json!({ "code": "half-off" })).await.problem(404, "code-invalid");
        let wrong = buy(&ada, own, json!({ "code": "half-off", "expected_price": 10 })).await;
        assert_eq!(wrong.problem(409, "price-changed")["price"], 5.0);
        let bought = buy(&ada, own, json!({ "code": "Half-Off", "expected_price": 5 })).await;
        assert_eq!((bought.status, &bought.json()["tax"]), (201, &json!(0.8)), "{}", bought.text);
        // The publisher gets 5.00 less 0.80 tax and 10 % of the rest.
        assert_eq!(accounts(app, &nova_id).await, [42, 80, 378]);
        assert_eq!(buy(&ada, other, json!({ "code": drawn })).await.json()["price"], 7.5);
        assert_eq!(cents(&ada).await, 2_000 - 500 - 750);
        let free = create_code(&store, json!({ "percent": 100, "game": own })).await.json();
        let bob = app.user("bob").await;
        let gift = buy(&bob, own, json!({ "code": free["code"] })).await;
        assert_eq!((gift.status, &gift.json()["transferId"]), (201, &Value::Null));
        for body in [
            json!({}),
            json!({ "percent": 10, "amount": 1 }),
            json!({ "percent": 10, "code": "a b" }),
            json!({ "percent": 10, "uses": 0 }),
            json!({ "percent": 10, "uses_per_user": 1001 }),
            json!({ "amount": 0 }),
            json!({ "percent": 10, "starts_at": from_now(9.0), "ends_at": from_now(8.0) }),
        ] {
            create_code(&store, body).await.problem(422, "invalid");
        }
        let ended = json!({ "code": "old", "percent": 10, "ends_at": from_now(-1.0) });
        create_code(&store, ended).await;
        buy(&bob, other, json!({ "code": "old" })).await.problem(404, "code-invalid");
        let once = store.post_with_key("/api/codes", "k", json!({ "percent": 10 })).await;
        let again = store.post_with_key("/api/codes", "k", json!({ "percent": 10 })).await;
        assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &once.text));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_used_as_often_as_it_may_be() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let id = add(&store, "Alpha", "10", json!({})).await;
        let users = crowd(app, 20, 2_000).await;
        create_code(&store, json!({ "code": "once", "percent": 10, "uses": 1 })).await;
        create_code(&store, json!({ "code": "each", "percent": 10, "uses_per_user": 1 })).await;

        let answers =
            join_all(users.iter().map(|user| buy(user, id, json!({ "code": "once" })))).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            answer.problem(409, "code-used-up");
        }
        let winner = users.iter().zip(&answers).find(|(_, answer)| answer.status == 201).unwrap().0;
        assert_eq!(refund(winner, id, json!({})).await.status, 200);
        assert_eq!(buy(winner, id, json!({ "code": "once" })).await.status, 201);

        let mut games = Vec::new();
        for n in 0..6 {
            games.push(add(&store, &format!("G{n}"), "1", json!({})).await);
        }
        let ada = &users[0];
        let code = json!({ "code": "each" });
        let answers = join_all(games.iter().map(|game| buy(ada, *game, code.clone()))).await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 201).collect();
        assert_eq!(won.len(), 1);
        let game = won[0].json()["gameId"].as_i64().unwrap();
        let other = games.into_iter().find(|other| *other != game).unwrap();
        buy(ada, other, code.clone()).await.problem(409, "code-used-up");
        assert_eq!(refund(ada, game, json!({})).await.status, 200);
        assert_eq!(buy(ada, other, code).await.status, 201, "the refund gave the use back");

        create_code(&store, json!({ "code": "thrice", "percent": 10, "uses_per_user": 3 })).await;
        let mut games = Vec::new();
        for n in 0..6 {
            games.push(add(&store, &format!("T{n}"), "1", json!({})).await);
        }
        let code = json!({ "code": "thrice" });
        let answers = join_all(games.iter().map(|game| buy(ada, *game, code.clone()))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 3);
    })
    .await;
}

//! Crashes between any two statements of a purchase, gift, refund, redemption and payout: all of it happens, or nothing.
//!
//! A trigger ends the session of the program at a chosen statement, as a crash would. The client repeats its request.

use std::collections::BTreeSet;

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::activation_keys::keys;
use super::offers::{create_code, put_sale, running};
use super::{accounts, add, buyer, cents, publisher, titles};
use crate::harness::{Client, Response, TestApp, eventually, run_with};

/// Tables that the operations write.
const TABLES: [&str; 12] = [
    "ledger.posting",
    "ledger.transfer",
    "ledger.account",
    "ledger.seal",
    "ledger.event",
    "game_purchase",
    "entitlement",
    "stock_claim",
    "stock_return",
    "discount_code_use",
    "refund_key",
    "activation_key",
];

/// The places of a crash: before and after a row of each table is written.
fn places() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.into_iter().flat_map(|table| ["before", "after"].map(|timing| (table, timing)))
}

/// Prepares the triggers, which do nothing yet.
async fn prepare(app: &TestApp) {
    let statements = "create sequence crash_point;
        grant usage on sequence crash_point to public;
        create function crash() returns trigger language plpgsql as $$
        begin
            if nextval('public.crash_point') = 1 then
                perform pg_terminate_backend(pg_backend_pid());
                perform pg_sleep(60);
            end if;
            return case when tg_op = 'DELETE' then old else new end;
        end $$";
    app.database.execute(statements).await;
}

/// Sends a request whose first attempt crashes at a place, and repeats it until it succeeds. `state` must be unchanged or
/// final after the crash. Returns whether the request came by the place.
async fn crash<S: PartialEq + std::fmt::Debug>(
    app: &TestApp,
    (table, timing): (&str, &str),
    send: impl AsyncFn() -> Response,
    state: impl AsyncFn() -> S,
    [before, after]: [&S; 2],
) -> bool {
    let arm = format!(
        "alter sequence crash_point restart;
         create trigger crash {timing} insert or update or delete on {table} for each row execute function crash()"
    );
    app.database.execute(&arm).await;
    let first = send().await;
    app.database.execute(&format!("drop trigger crash on {table}")).await;

    let found = state().await;
    let is_done = first.status < 300;
    assert!(
        found == *after || found == *before && !is_done,
        "{timing} {table}: {found:?} after {}: {}",
        first.status,
        first.text
    );
    eventually("the repeated request succeeds", async || send().await.status < 300).await;
    assert_eq!(state().await, *after, "{timing} {table}");
    let mut db = app.database.connect().await;
    let fired = "select is_called from crash_point";
    sqlx::query_scalar(fired).fetch_one(&mut db).await.unwrap()
}

async fn post(client: &Client, path: &str, key: &str, body: &Value) -> Response {
    client.post_with_key(path, key, body.clone()).await
}

/// Rows that hold copies, budgets and uses at the moment.
async fn claims(app: &TestApp) -> [i64; 3] {
    let mut db = app.database.connect().await;
    let mut counts = [0; 3];
    let queries = [
        "select (select count(*) from stock_claim) - (select count(*) from stock_return)",
        "select count(*) from discount_code_use",
        "select count(*) from game_purchase where refunded_at is null",
    ];
    for (count, query) in counts.iter_mut().zip(queries) {
        *count = sqlx::query_scalar(query).fetch_one(&mut db).await.unwrap();
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purchases_gifts_and_refunds_are_whole_or_absent() {
    run_with(&["--tax-rates=EUR=19"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "30").await;
        let further = json!({ "publisher": nova, "copies": 1000 });
        let game = add(&store, "Alpha", "9.99", further).await;
        put_sale(&store, game, "a", running(&json!({ "percent": 25, "budget": 1000 }))).await;
        create_code(
            &store,
            json!({ "code": "less", "percent": 10, "uses": 1000, "uses_per_user": 1000 }),
        )
        .await;
        let (ada, bob) = (buyer(app, "ada", 1_000).await, app.user("bob").await);
        prepare(app).await;
        let state = async || {
            let libraries = [titles(&ada).await, titles(&bob).await];
            (
                [cents(&ada).await, cents(&bob).await],
                libraries,
                accounts(app, &nova).await,
                claims(app).await,
            )
        };
        let path = |operation: &str| format!("/api/games/{game}/{operation}");
        let before = state().await;
        for (kind, gift) in [("own", json!({})), ("gift", json!({ "gift_to": bob.id }))] {
            let mut body = gift.clone();
            body["code"] = json!("less");
            let bought = post(&ada, &path("purchase"), kind, &body).await;
            assert_eq!(bought.status, 201, "{}", bought.text);
            let after = state().await;
            assert_ne!(before, after);
            post(&ada, &path("refund"), kind, &gift).await;
            assert_eq!(state().await, before);

            let (mut purchases, mut refunds) = (0, 0);
            for (n, place) in places().enumerate() {
                let key = format!("{kind}-{n}");
                let purchase = async || post(&ada, &path("purchase"), &key, &body).await;
                purchases +=
                    usize::from(crash(app, place, purchase, state, [&before, &after]).await);
                let refund = async || post(&ada, &path("refund"), &key, &gift).await;
                refunds += usize::from(crash(app, place, refund, state, [&after, &before]).await);
            }
            assert!(purchases >= 16 && refunds >= 18, "{purchases} purchases, {refunds} refunds");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn free_games_and_redemptions_are_whole_or_absent() {
    run_with(&[], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let ada = app.user("ada").await;
        prepare(app).await;
        let owned = async || titles(&ada).await.into_iter().collect::<BTreeSet<_>>();
        let state = async || (owned().await, claims(app).await);
        let (mut claimed, mut redeemed) = (0, 0);
        for (n, place) in places().enumerate() {
            let free = add(&store, &format!("Free {n}"), "0", json!({ "copies": 5 })).await;
            let keyed = add(&store, &format!("Keyed {n}"), "5", json!({})).await;
            let key = keys(&store, keyed, 1).await.remove(0);
            let before = state().await;
            let mut after = before.clone();
            after.0.insert(format!("Free {n}"));
            after.1[0] += 1;
            after.1[2] += 1;
            let path = format!("/api/games/{free}/purchase");
            let claim = async || post(&ada, &path, &format!("free-{n}"), &json!({})).await;
            claimed += usize::from(crash(app, place, claim, state, [&before, &after]).await);

            let before = after;
            let mut after = before.clone();
            after.0.insert(format!("Keyed {n}"));
            let body = json!({ "key": key });
            let redeem = async || post(&ada, "/api/games/redeem", &format!("key-{n}"), &body).await;
            redeemed += usize::from(crash(app, place, redeem, state, [&before, &after]).await);
        }
        assert!(claimed >= 8 && redeemed >= 6, "{claimed} claimed, {redeemed} redeemed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payouts_are_whole_or_absent() {
    run_with(&[], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (nova, id) = publisher(app, "nova", "0").await;
        let ada = buyer(app, "ada", 10_000).await;
        prepare(app).await;
        let state = async || (cents(&nova).await, accounts(app, &id).await);
        let mut paid = 0;
        for (n, place) in places().enumerate() {
            let game = add(&store, &format!("Game {n}"), "1", json!({ "publisher": id })).await;
            let bought =
                post(&ada, &format!("/api/games/{game}/purchase"), &n.to_string(), &json!({}))
                    .await;
            assert_eq!(bought.status, 201, "{}", bought.text);
            let before = state().await;
            let after = (before.0 + 100, [before.1[0], before.1[1], 0]);
            let path = format!("/api/publishers/{id}/payout");
            let payout = async || post(&nova, &path, &format!("payout-{n}"), &json!({})).await;
            paid += usize::from(crash(app, place, payout, state, [&before, &after]).await);
        }
        assert!(paid >= 6, "{paid} payouts");
    })
    .await;
}

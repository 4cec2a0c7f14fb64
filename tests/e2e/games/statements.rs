//! Statements and payouts of publishers, which equal the ledger to the cent.

use std::collections::BTreeMap;

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{accounts, add, buy, buyer, cents, publisher, refund};
use crate::harness::{Client, Response, run, run_with};

async fn statement(client: &Client, publisher: &str, query: &str) -> Value {
    let found = client.get(&format!("/api/publishers/{publisher}/statement{query}")).await;
    assert_eq!(found.status, 200, "{}", found.text);
    found.json()
}

async fn payout(client: &Client, publisher: &str, body: Value) -> Response {
    client.post(&format!("/api/publishers/{publisher}/payout"), body).await
}

/// An amount of the currency in cents.
fn in_cents(amount: &Value) -> i64 {
    let text = amount.to_string();
    let (sign, text) = text.strip_prefix('-').map_or((1, &*text), |rest| (-1, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let fraction = format!("{fraction:0<2}");
    sign * (whole.parse::<i64>().unwrap() * 100 + fraction.parse::<i64>().unwrap())
}

#[tokio::test]
async fn a_statement_shows_sales_refunds_and_payouts() {
    run_with(&["--tax-rates=EUR=19"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (nova, id) = publisher(app, "nova", "30").await;
        let game = add(&store, "Alpha", "19.99", json!({ "publisher": id })).await;
        let (ada, bob) = (buyer(app, "ada", 5_000).await, buyer(app, "bob", 5_000).await);
        payout(&nova, &id, json!({})).await.problem(409, "nothing-due");
        buy(&ada, game, json!({})).await;
        buy(&bob, game, json!({})).await;
        refund(&bob, game, json!({})).await;
        let stranger = app.user("eve").await;
        let path = format!("/api/publishers/{id}/statement");
        stranger.get(&path).await.problem(403, "forbidden");
        payout(&stranger, &id, json!({})).await.problem(403, "forbidden");

        let path = format!("/api/publishers/{id}/payout");
        let paid = nova.post_with_key(&path, "k", json!({})).await;
        assert_eq!((paid.status, &paid.json()["amount"]), (200, &json!(11.76)), "{}", paid.text);
        let again = nova.post_with_key(&path, "k", json!({})).await;
        assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &paid.text));
        assert_eq!(cents(&nova).await, 1_176);
        assert_eq!(refund(&ada, game, json!({})).await.status, 200);

        let found = statement(&nova, &id, "").await;
        for (member, expected) in [
            ("opening_balance", 0),
            ("sales", 3_998),
            ("refunds", 3_998),
            ("tax", 0),
            ("fees", 0),
            ("payouts", 1_176),
            ("closing_balance", -1_176),
        ] {
            assert_eq!(in_cents(&found[member]), expected, "{member}: {found}");
        }
        let entries = found["entries"].as_array().unwrap();
        let kinds: Vec<&str> =
            entries.iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
        assert_eq!(
            kinds,
            [
                "sale", "tax", "fee", "sale", "tax", "fee", "refund", "tax", "fee", "payout",
                "refund", "tax", "fee"
            ]
        );
        assert!(entries.iter().all(|entry| entry["kind"] == "payout" || entry["game"] == game));
        let debt = payout(&nova, &id, json!({})).await.problem(409, "nothing-due");
        assert_eq!(debt["detail"], "nothing is due: the balance is -11.76");
        buy(&bob, game, json!({})).await;
        assert_eq!(accounts(app, &id).await, [504, 319, 0], "the sale settled the debt");

        let csv = nova.request(reqwest::Method::GET, &format!("/api/publishers/{id}/statement"));
        let csv = nova.send(csv.header("accept", "text/csv")).await;
        let lines: Vec<&str> = csv.text.lines().collect();
        assert_eq!(lines.len(), 1 + 1 + 16 + 1);
        assert_eq!(lines[0], "at,transfer,kind,game,amount,balance,currency");
        assert_eq!(lines[18], ",,closing,,,0.00,EUR");
        assert_eq!(in_cents(&statement(&nova, &id, "?currency=USD").await["closing_balance"]), 0);
        nova.get(&format!("/api/publishers/{id}/statement?currency=x"))
            .await
            .problem(422, "invalid");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_payouts_pay_what_is_due_once() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (nova, id) = publisher(app, "nova", "0").await;
        let game = add(&store, "Alpha", "7", json!({ "publisher": id })).await;
        let ada = buyer(app, "ada", 700).await;
        buy(&ada, game, json!({})).await;

        let payouts = (0..10).map(|_| payout(&nova, &id, json!({})));
        let answers = futures_util::future::join_all(payouts).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
        assert_eq!((cents(&nova).await, accounts(app, &id).await[2]), (700, 0));
    })
    .await;
}

#[tokio::test]
async fn a_payout_moves_at_most_what_one_transfer_may() {
    run_with(&["--max-amount=1000"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (nova, id) = publisher(app, "nova", "0").await;
        let game = add(&store, "Alpha", "8", json!({ "publisher": id })).await;
        for name in ["ada", "bob"] {
            let user = buyer(app, name, 800).await;
            assert_eq!(buy(&user, game, json!({})).await.status, 201);
        }

        assert_eq!(payout(&nova, &id, json!({})).await.json()["amount"], 10.0);
        assert_eq!(payout(&nova, &id, json!({})).await.json()["amount"], 6.0);

        assert_eq!((cents(&nova).await, accounts(app, &id).await[2]), (1_600, 0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statements_of_random_months_equal_the_ledger() {
    run_with(&["--tax-rates=EUR=19"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let operations = if crate::harness::is_long() { 10_000 } else { 300 };
        let mut publishers = Vec::new();
        for (name, fee) in [("nova", "30"), ("orbit", "12.34")] {
            publishers.push(publisher(app, name, fee).await);
        }
        let mut games = Vec::new();
        for n in 0..40_u32 {
            let price = format!("{}.{:02}", fastrand::u32(0..30), fastrand::u32(0..100));
            let (_, id) = &publishers[n as usize % 2];
            games.push(add(&store, &format!("G{n}"), &price, json!({ "publisher": id })).await);
        }
        let mut users = Vec::new();
        for n in 0..12 {
            users.push(buyer(app, &format!("user{n}"), 100_000_000).await);
        }
        let mut bounds = vec![app.database_now().await];
        for n in 0..operations {
            let user = fastrand::choice(&users).unwrap();
            let game = *fastrand::choice(&games).unwrap();
            match fastrand::u32(0..100) {
                0..60 => drop(buy(user, game, json!({})).await),
                60..75 => {
                    let other = fastrand::choice(&users).unwrap();
                    buy(user, game, json!({ "gift_to": other.id })).await;
                }
                75..97 => drop(refund(user, game, json!({})).await),
                _ => {
                    let (user, id) = fastrand::choice(&publishers).unwrap();
                    payout(user, id, json!({})).await;
                }
            }
            if n % (operations / 3) == operations / 3 - 1 {
                bounds.push(app.database_now().await);
            }
        }

        let mut db = app.database.connect().await;
        for (n, (user, id)) in publishers.iter().enumerate() {
            let mut closing = 0;
            for month in bounds.windows(2) {
                let query = format!("?from={}&to={}", month[0], month[1]);
                let found = statement(user, id, &query).await;
                let sum = |member: &str| in_cents(&found[member]);
                assert_eq!(sum("opening_balance"), closing, "months follow each other");
                closing = sum("closing_balance");
                let earned = sum("sales") - sum("refunds") - sum("tax") - sum("fees") - sum("payouts");
                assert_eq!(sum("opening_balance") + earned, closing, "{found}");
                let mut kinds: BTreeMap<&str, i64> = BTreeMap::new();
                let mut balance = sum("opening_balance");
                for entry in found["entries"].as_array().unwrap() {
                    balance += in_cents(&entry["amount"]);
                    assert_eq!(in_cents(&entry["balance"]), balance, "{entry}");
                    *kinds.entry(entry["kind"].as_str().unwrap()).or_default() += in_cents(&entry["amount"]);
                }
                for (kind, member, sign) in [("sale", "sales", 1), ("refund", "refunds", -1), ("tax", "tax", -1), ("fee", "fees", -1), ("payout", "payouts", -1)] {
                    assert_eq!(sign * kinds.get(kind).copied().unwrap_or_default(), sum(member), "{kind}");
                }
            }
            assert_eq!(accounts(app, id).await[2], closing, "publisher {n}");
            let sold = "select coalesce(sum(price - tax - fee), 0)::bigint from game_purchase where publisher = $1 and refunded_at is null";
            let sold: i64 = sqlx::query_scalar(sold).bind(id.parse::<i64>().unwrap()).fetch_one(&mut db).await.unwrap();
            assert_eq!(closing + cents(user).await, sold, "what the purchases say");
        }
    })
    .await;
}

impl crate::harness::TestApp {
    /// The time of the database, as RFC 3339.
    async fn database_now(&self) -> String {
        let mut db = self.database.connect().await;
        let now = "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
        sqlx::query_scalar(now).fetch_one(&mut db).await.unwrap()
    }
}

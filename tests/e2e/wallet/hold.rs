//! Holds: set aside, captured, voided, expired; of two at once one wins.

#![expect(
    clippy::float_cmp,
    reason = "sums of a few cents are exact enough, and a difference would be a cent"
)]

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Client, Program, TestApp, eventually, run};

async fn hold(app: &TestApp, wallet: &str, amount: &str) -> String {
    let answer = app.post("/wallet/hold", json!({ "id": wallet, "amount": amount })).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.json()["id"].as_str().unwrap().to_owned()
}

/// Balance, available and held.
async fn money(app: &TestApp, wallet: &str) -> [f64; 3] {
    let body = app.get(&format!("/wallet/{wallet}")).await.json();
    ["balance", "available", "held"].map(|name| body[name].as_f64().unwrap())
}

async fn capture(app: &Client, hold: &str, body: Value) -> crate::harness::Answer {
    app.post(&format!("/wallet/hold/{hold}/capture"), body).await
}

#[tokio::test]
async fn held_money_is_there_but_cannot_be_spent() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;

        let id = hold(app, &wallet, "7.50").await;

        assert_eq!(money(app, &wallet).await, [10.0, 2.5, 7.5]);
        let refused = app.post("/wallet/withdraw", json!({ "id": wallet, "amount": 3 })).await;
        refused.problem(422, "insufficient-funds");
        let more = app.post("/wallet/hold", json!({ "id": wallet, "amount": 3 })).await;
        more.problem(422, "insufficient-funds");
        let deposit = app.post("/wallet/deposit", json!({ "id": wallet, "amount": 1 })).await;
        assert!(deposit.text.contains(r#""balance":11.00"#), "held money counts: {}", deposit.text);
        let looked = app.get(&format!("/wallet/hold/{id}")).await.json();
        assert_eq!(looked["state"], "open");
        let listed = app.get(&format!("/wallet/{wallet}/holds")).await.json();
        assert_eq!(listed[0], looked);
        app.get("/wallet/hold/999").await.problem(404, "not-found");
        for (name, value) in
            [("expires_in", json!(0)), ("expires_in", json!(7_776_001)), ("amount", json!("0"))]
        {
            let mut body = json!({ "id": wallet, "amount": 1 });
            body[name] = value;
            app.post("/wallet/hold", body).await.problem(422, "invalid");
        }
    })
    .await;
}

#[tokio::test]
async fn a_capture_takes_all_or_a_part_and_releases_the_rest() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let shop = app.open_wallet("EUR", "0").await;

        let whole = hold(app, &wallet, "10").await;
        let done = capture(app, &whole, json!({})).await.json();
        assert_eq!(done["state"], "captured");
        assert_eq!(money(app, &wallet).await, [90.0, 90.0, 0.0]);

        let part = hold(app, &wallet, "10").await;
        let done = capture(app, &part, json!({ "amount": "4", "to": shop })).await;
        assert!(
            done.text.contains(r#""captured":4.00,"released":6.00,"remaining":0.00"#),
            "{}",
            done.text
        );
        assert_eq!(money(app, &wallet).await, [86.0, 86.0, 0.0]);
        assert_eq!(money(app, &shop).await, [4.0, 4.0, 0.0]);

        let steps = hold(app, &wallet, "10").await;
        for _ in 0..2 {
            let body = json!({ "amount": 3, "to": shop, "final": false });
            assert_eq!(capture(app, &steps, body).await.json()["state"], "open");
        }
        assert_eq!(money(app, &wallet).await, [80.0, 76.0, 4.0]);
        let much = capture(app, &steps, json!({ "amount": "4.01" })).await;
        much.problem(422, "insufficient-funds");
        let last = app.post(&format!("/wallet/hold/{steps}/void"), json!({})).await.json();
        assert_eq!(last["state"], "captured");
        assert_eq!(last["released"], 4.0);
        assert_eq!(money(app, &wallet).await, [80.0, 80.0, 0.0]);
        capture(app, &steps, json!({})).await.problem(409, "hold-ended");

        let history = app.get(&format!("/wallet/{wallet}/history?limit=1000")).await.json();
        let entries = history.as_array().unwrap();
        assert_eq!(entries[0]["direction"], "released");
        assert_eq!(entries[0]["linked"], steps);
        let captured: Vec<_> = entries.iter().filter(|entry| entry["kind"] == "capture").collect();
        assert_eq!(captured.len(), 4);
        assert_eq!(
            (&captured[0]["direction"], &captured[0]["counterparty"]),
            (&json!("out"), &json!(shop))
        );
        assert_eq!(
            (&captured[0]["balance"], &captured[0]["available"]),
            (&json!(80.0), &json!(76.0))
        );
        for pair in entries.windows(2) {
            let change =
                pair[0]["balance"].as_f64().unwrap() - pair[1]["balance"].as_f64().unwrap();
            let amount = pair[0]["amount"].as_f64().unwrap();
            let expected = match pair[0]["direction"].as_str().unwrap() {
                "in" => amount,
                "out" => -amount,
                _ => 0.0,
            };
            assert!((change - expected).abs() < 1e-9, "{pair:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn of_a_capture_and_a_void_at_once_exactly_one_wins() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1000").await;
        for _ in 0..20 {
            let id = hold(app, &wallet, "10").await;
            let void = format!("/wallet/hold/{id}/void");
            let before = money(app, &wallet).await;

            let (captured, voided) = futures_util::future::join(
                capture(app, &id, json!({ "amount": 4 })),
                app.post(&void, json!({})),
            )
            .await;

            let mut statuses = [captured.status, voided.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409], "{} {}", captured.text, voided.text);
            let after = money(app, &wallet).await;
            let lost = if captured.status == 200 { 4.0 } else { 0.0 };
            assert!((before[0] - after[0] - lost).abs() < 1e-9);
            assert!(after[2].abs() < 1e-9, "nothing stays held");
        }
    })
    .await;
}

#[tokio::test]
async fn many_partial_captures_at_once_all_take_their_part() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let id = hold(app, &wallet, "10").await;

        let part = json!({ "amount": 1, "final": false });
        let parts = join_all((0..12).map(|_| capture(app, &id, part.clone()))).await;

        let done = parts.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(done, 10, "{:?}", parts.iter().map(|part| &part.text).collect::<Vec<_>>());
        assert_eq!(money(app, &wallet).await, [90.0, 90.0, 0.0]);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_capture_is_done_once_and_answered_the_same() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let body = json!({ "id": wallet, "amount": 10, "expires_in": 60 });
        let placed = app.keyed("/wallet/hold", "h", body.clone()).await;
        let id = placed.json()["id"].as_str().unwrap().to_owned();
        let path = format!("/wallet/hold/{id}/capture");
        let part = json!({ "amount": 3, "final": false });

        let first = app.keyed(&path, "k", part.clone()).await;
        assert_eq!(capture(app, &id, json!({})).await.status, 200);

        let again = app.keyed(&path, "k", part).await;
        assert_eq!((again.status, &again.text), (200, &first.text), "as it was then");
        assert_eq!(again.header("idempotent-replayed"), "true");
        let placed_again = app.keyed("/wallet/hold", "h", body).await;
        assert_eq!((placed_again.status, &placed_again.text), (201, &placed.text));
        app.keyed(&path, "k", json!({})).await.problem(422, "idempotency-key-reused");
        assert_eq!(money(app, &wallet).await, [90.0, 90.0, 0.0]);
    })
    .await;
}

#[tokio::test]
async fn a_hold_ends_by_itself() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let body = json!({ "id": wallet, "amount": 10, "expires_in": 1 });
        let id = app.post("/wallet/hold", body).await.json()["id"].as_str().unwrap().to_owned();

        eventually("it has ended", async || {
            app.get(&format!("/wallet/hold/{id}")).await.json()["state"] == "expired"
        })
        .await;

        assert_eq!(money(app, &wallet).await, [100.0, 100.0, 0.0]);
        capture(app, &id, json!({})).await.problem(409, "hold-ended");
        let newest = app.get(&format!("/wallet/{wallet}/history?limit=1")).await.json();
        assert_eq!(newest[0]["kind"], "expiry");
    })
    .await;
}

#[tokio::test]
async fn what_a_process_remembers_of_a_hold_never_decides_alone() {
    run(async |app| {
        let database = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&database, "--access=open", "--allow-unsafe-server"]).await;
        let wallet = app.open_wallet("EUR", "100").await;
        let shop = app.open_wallet("EUR", "0").await;
        let part = |amount: &str| json!({ "amount": amount, "to": shop, "final": false });

        // Captured in turns: each remembers what the other has changed since.
        let shared = hold(app, &wallet, "10").await;
        for (n, client) in [&**app, &other.public, app, &other.public].into_iter().enumerate() {
            let done = capture(client, &shared, part("2")).await.json();
            assert_eq!(done["captured"], [2.0, 4.0, 6.0, 8.0][n]);
        }
        let refused = capture(app, &shared, part("3")).await;
        assert!(refused.text.contains("2.00"), "what is left by now: {}", refused.text);
        refused.problem(422, "insufficient-funds");
        assert_eq!(money(app, &shop).await[0], 8.0);

        // Ended elsewhere: refused for that reason, whatever this process would have said.
        let ended = hold(app, &wallet, "10").await;
        let void = other.public.post(&format!("/wallet/hold/{ended}/void"), json!({})).await;
        assert_eq!(void.json()["state"], "voided");
        for amount in ["10", "11"] {
            let refused = capture(app, &ended, part(amount)).await;
            assert!(refused.text.contains("voided"), "{}", refused.text);
            refused.problem(409, "hold-ended");
        }
        assert_eq!(money(app, &wallet).await, [92.0, 90.0, 2.0]);
    })
    .await;
}

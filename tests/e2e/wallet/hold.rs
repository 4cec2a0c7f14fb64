//! Holds: placement, capture, void and expiry, also concurrently.

#![expect(
    clippy::float_cmp,
    reason = "sums of a few cents are exact enough, and a difference would be a cent"
)]

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Client, Program, TestApp, eventually, run, run_with};

async fn hold(app: &TestApp, wallet: &str, amount: &str) -> String {
    let response = app.post("/wallet/hold", json!({ "id": wallet, "amount": amount })).await;
    assert_eq!(response.status, 201, "{}", response.text);
    response.json()["id"].as_str().unwrap().to_owned()
}

/// Returns balance, available and held amount of a wallet.
async fn amounts(app: &TestApp, wallet: &str) -> [f64; 3] {
    let body = app.get(&format!("/wallet/{wallet}")).await.json();
    ["balance", "available", "held"].map(|name| body[name].as_f64().unwrap())
}

async fn capture(app: &Client, hold: &str, body: Value) -> crate::harness::Response {
    app.post(&format!("/wallet/hold/{hold}/capture"), body).await
}

#[tokio::test]
async fn held_money_counts_in_the_balance_but_cannot_be_spent() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;

        let id = hold(app, &wallet, "7.50").await;

        assert_eq!(amounts(app, &wallet).await, [10.0, 2.5, 7.5]);
        let refused = app.post("/wallet/withdraw", json!({ "id": wallet, "amount": 3 })).await;
        refused.problem(422, "insufficient-funds");
        let more = app.post("/wallet/hold", json!({ "id": wallet, "amount": 3 })).await;
        more.problem(422, "insufficient-funds");
        let deposit = app.post("/wallet/deposit", json!({ "id": wallet, "amount": 1 })).await;
        assert!(
            deposit.text.contains(r#""balance":11.00"#),
            "the balance excludes held money: {}",
            deposit.text
        );
        let fetched = app.get(&format!("/wallet/hold/{id}")).await.json();
        assert_eq!(fetched["state"], "open");
        let listed = app.get(&format!("/wallet/{wallet}/holds")).await.json();
        assert_eq!(listed[0], fetched);
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
async fn a_capture_takes_all_or_part_and_releases_the_rest() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let shop = app.open_wallet("EUR", "0").await;

        let whole = hold(app, &wallet, "10").await;
        let done = capture(app, &whole, json!({})).await.json();
        assert_eq!(done["state"], "captured");
        assert_eq!(amounts(app, &wallet).await, [90.0, 90.0, 0.0]);

        let part = hold(app, &wallet, "10").await;
        let done = capture(app, &part, json!({ "amount": "4", "to": shop })).await;
        assert!(
            done.text.contains(r#""captured":4.00,"released":6.00,"remaining":0.00"#),
            "{}",
            done.text
        );
        assert_eq!(amounts(app, &wallet).await, [86.0, 86.0, 0.0]);
        assert_eq!(amounts(app, &shop).await, [4.0, 4.0, 0.0]);

        let steps = hold(app, &wallet, "10").await;
        for _ in 0..2 {
            let body = json!({ "amount": 3, "to": shop, "final": false });
            assert_eq!(capture(app, &steps, body).await.json()["state"], "open");
        }
        assert_eq!(amounts(app, &wallet).await, [80.0, 76.0, 4.0]);
        let excessive = capture(app, &steps, json!({ "amount": "4.01" })).await;
        excessive.problem(422, "insufficient-funds");
        let last = app.post(&format!("/wallet/hold/{steps}/void"), json!({})).await.json();
        assert_eq!(last["state"], "captured");
        assert_eq!(last["released"], 4.0);
        assert_eq!(amounts(app, &wallet).await, [80.0, 80.0, 0.0]);
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
async fn of_a_concurrent_capture_and_void_exactly_one_succeeds() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1000").await;
        for _ in 0..20 {
            let id = hold(app, &wallet, "10").await;
            let void = format!("/wallet/hold/{id}/void");
            let before = amounts(app, &wallet).await;

            let (captured, voided) = futures_util::future::join(
                capture(app, &id, json!({ "amount": 4 })),
                app.post(&void, json!({})),
            )
            .await;

            let mut statuses = [captured.status, voided.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 409], "{} {}", captured.text, voided.text);
            let after = amounts(app, &wallet).await;
            let spent = if captured.status == 200 { 4.0 } else { 0.0 };
            assert!((before[0] - after[0] - spent).abs() < 1e-9);
            assert!(after[2].abs() < 1e-9, "money stays held");
        }
    })
    .await;
}

#[tokio::test]
async fn concurrent_partial_captures_all_succeed_up_to_the_held_amount() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let id = hold(app, &wallet, "10").await;

        let part = json!({ "amount": 1, "final": false });
        let parts = join_all((0..12).map(|_| capture(app, &id, part.clone()))).await;

        let succeeded = parts.iter().filter(|response| response.status == 200).count();
        assert_eq!(succeeded, 10, "{:?}", parts.iter().map(|part| &part.text).collect::<Vec<_>>());
        assert_eq!(amounts(app, &wallet).await, [90.0, 90.0, 0.0]);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_capture_is_applied_once_and_its_response_replayed() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let body = json!({ "id": wallet, "amount": 10, "expires_in": 60 });
        let placed = app.post_with_key("/wallet/hold", "h", body.clone()).await;
        let id = placed.json()["id"].as_str().unwrap().to_owned();
        let path = format!("/wallet/hold/{id}/capture");
        let part = json!({ "amount": 3, "final": false });

        let first = app.post_with_key(&path, "k", part.clone()).await;
        assert_eq!(capture(app, &id, json!({})).await.status, 200);

        let again = app.post_with_key(&path, "k", part).await;
        assert_eq!(
            (again.status, &again.text),
            (200, &first.text),
            "the replay must return the original response"
        );
        assert_eq!(again.header("idempotent-replayed"), "true");
        let placed_again = app.post_with_key("/wallet/hold", "h", body).await;
        assert_eq!((placed_again.status, &placed_again.text), (201, &placed.text));
        app.post_with_key(&path, "k", json!({})).await.problem(422, "idempotency-key-reused");
        assert_eq!(amounts(app, &wallet).await, [90.0, 90.0, 0.0]);
    })
    .await;
}

#[tokio::test]
async fn a_hold_expires() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let body = json!({ "id": wallet, "amount": 10, "expires_in": 1 });
        let id = app.post("/wallet/hold", body).await.json()["id"].as_str().unwrap().to_owned();

        eventually("the hold has expired", async || {
            app.get(&format!("/wallet/hold/{id}")).await.json()["state"] == "expired"
        })
        .await;

        assert_eq!(amounts(app, &wallet).await, [100.0, 100.0, 0.0]);
        capture(app, &id, json!({})).await.problem(409, "hold-ended");
        let newest = app.get(&format!("/wallet/{wallet}/history?limit=1")).await.json();
        assert_eq!(newest[0]["kind"], "expiry");
    })
    .await;
}

#[tokio::test]
async fn a_stale_cached_hold_never_decides_a_request() {
    run(async |app| {
        let database = format!("--database-url={}", app.database.url);
        let other = Program::start(&[&database, "--access=open", "--allow-unsafe-server"]).await;
        let wallet = app.open_wallet("EUR", "100").await;
        let shop = app.open_wallet("EUR", "0").await;
        let part = |amount: &str| json!({ "amount": amount, "to": shop, "final": false });

        // Alternating captures: each process has cached a state that the other has changed since.
        let shared = hold(app, &wallet, "10").await;
        for (n, client) in [&**app, &other.public, app, &other.public].into_iter().enumerate() {
            let done = capture(client, &shared, part("2")).await.json();
            assert_eq!(done["captured"], [2.0, 4.0, 6.0, 8.0][n]);
        }
        let refused = capture(app, &shared, part("3")).await;
        assert!(
            refused.text.contains("2.00"),
            "the refusal does not name the current remainder: {}",
            refused.text
        );
        refused.problem(422, "insufficient-funds");
        assert_eq!(amounts(app, &shop).await[0], 8.0);

        // Voided by the other process: refused for that reason, not because of the cached state.
        let ended = hold(app, &wallet, "10").await;
        let void = other.public.post(&format!("/wallet/hold/{ended}/void"), json!({})).await;
        assert_eq!(void.json()["state"], "voided");
        for amount in ["10", "11"] {
            let refused = capture(app, &ended, part(amount)).await;
            assert!(refused.text.contains("voided"), "{}", refused.text);
            refused.problem(409, "hold-ended");
        }
        assert_eq!(amounts(app, &wallet).await, [92.0, 90.0, 2.0]);
    })
    .await;
}

#[tokio::test]
async fn a_hold_cannot_be_captured_to_its_own_wallet() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let id = hold(app, &wallet, "10").await;

        let refused = capture(app, &id, json!({ "to": wallet })).await.problem(422, "invalid");

        assert_eq!(refused["errors"][0]["pointer"], "/to", "{refused}");
        assert_eq!(amounts(app, &wallet).await, [100.0, 90.0, 10.0]);
    })
    .await;
}

#[tokio::test]
async fn holds_of_a_wallet_at_the_maximum_balance_can_be_released() {
    run_with(&["--max-amount=9007199254740991"], async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        let [voided, expiring] =
            ["10", "20"].map(|amount| {
                let body = json!({ "id": wallet, "amount": amount, "expires_in": 2 });
                async move {
                    app.post("/wallet/hold", body).await.json()["id"].as_str().unwrap().to_owned()
                }
            });
        let (voided, expiring) = (voided.await, expiring.await);
        let deposit = async |amount: &str| {
            app.post("/wallet/deposit", json!({ "id": wallet, "amount": amount })).await
        };

        deposit("90071992547309.92").await.problem(422, "amount-too-large");
        let full = deposit("90071992547309.91").await;

        assert_eq!(full.status, 200, "{}", full.text);
        let void = app.post(&format!("/wallet/hold/{voided}/void"), json!({})).await;
        assert_eq!(void.status, 200, "{}", void.text);
        eventually("the other hold expires", async || {
            app.get(&format!("/wallet/hold/{expiring}")).await.json()["state"] == "expired"
        })
        .await;
        let text = app.get(&format!("/wallet/{wallet}")).await.text;
        assert!(text.contains(r#""available":90071992547409.91"#), "{text}");
    })
    .await;
}

#[tokio::test]
async fn holds_that_cannot_expire_do_not_block_others() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "100").await;
        // More than one page of expired rows without held money, so their expiry fails.
        app.database
            .execute(&format!(
                "insert into hold (id, wallet, amount, expires_at, caller)
                select 1000000 + n, {wallet}, 5, now() - interval '1 hour', 'anybody'
                from generate_series(1, 2500) n"
            ))
            .await;
        let body = json!({ "id": wallet, "amount": 10, "expires_in": 1 });
        let id = app.post("/wallet/hold", body).await.json()["id"].as_str().unwrap().to_owned();

        eventually("the valid hold expires", async || {
            app.get(&format!("/wallet/hold/{id}")).await.json()["state"] == "expired"
        })
        .await;

        app.database.execute("delete from hold where id > 1000000").await;
    })
    .await;
}

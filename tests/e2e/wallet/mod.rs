//! Wallets: opening, deposits, withdrawals, idempotency and refusals.

mod bank;
mod batch;
mod hold;
mod info;
mod notes;
mod refund;
mod state;
mod statement;
mod transfer;
mod update;

use futures_util::future::join_all;
use revwallet::auth::Scope;
use serde_json::json;
use sqlx::Row;

use crate::harness::{TestApp, eventually, run, run_with};

#[tokio::test]
async fn a_wallet_opens_with_its_first_deposit() {
    run(async |app| {
        let body = json!({ "owner": "test2", "initial_balance": "999.00", "currency": "EUR" });

        let response = app.post("/wallet/", body).await;

        assert_eq!(response.status, 201, "{}", response.text);
        assert_eq!(
            response.text,
            r#"{"balance":999.00,"currency":"EUR","id":"1","owner":"test2"}"#
        );
        assert_eq!(response.header("location"), "/wallet/1");
    })
    .await;
}

#[tokio::test]
async fn the_arithmetic_is_exact() {
    for currency in ["EUR", "USD"] {
        run(async move |app| {
            for (start, steps, end) in [
                ("1000", &["-200.50"][..], "799.50"),
                ("1000", &["-100", "155.55"], "1055.55"),
                ("1000", &["-1000"], "0.00"),
                ("1000", &["-1000", "1000000", "-999999"], "1.00"),
                ("0", &["0.1", "0.2"], "0.30"),
            ] {
                let id = app.open_wallet(currency, start).await;
                let mut last = String::new();
                for step in steps {
                    let (path, amount) = match step.strip_prefix('-') {
                        Some(amount) => ("/wallet/withdraw", amount),
                        None => ("/wallet/deposit", *step),
                    };
                    let response = app.post(path, json!({ "id": id, "amount": amount })).await;
                    assert_eq!(response.status, 200, "{}", response.text);
                    last = response.text;
                }
                assert!(last.contains(&format!("\"balance\":{end},")), "{last}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn invalid_amounts_are_refused() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        for amount in [
            json!(0),
            json!("0.00"),
            json!(-1),
            json!("-1"),
            json!("0.001"),
            json!("1e-3"),
            json!("NaN"),
            json!("Infinity"),
            json!(""),
            json!(" 1"),
            json!("1,5"),
            json!(true),
            json!([1]),
            json!(null),
            json!("1e400"),
            json!("1e1"),
            json!("1E3"),
            json!("1000e-2"),
            json!("0x10"),
        ] {
            for path in ["/wallet/deposit", "/wallet/withdraw"] {
                let response = app.post(path, json!({ "id": id, "amount": amount })).await;

                assert_eq!(response.status, 422, "{amount}: {}", response.text);
            }
        }
        for amount in [json!(1e1), json!(10), json!("10.00"), json!(10.0), json!("10")] {
            let response = app.post("/wallet/deposit", json!({ "id": id, "amount": amount })).await;

            assert_eq!(response.status, 200, "{amount}: {}", response.text);
        }
    })
    .await;
}

#[tokio::test]
async fn the_largest_amounts_are_stored_exactly_or_refused() {
    run(async |app| {
        let id = app.open_wallet("JPY", "0").await;
        let deposit = async |amount: &str| {
            app.post("/wallet/deposit", json!({ "id": id, "amount": amount })).await
        };

        assert_eq!(deposit("1000000000000").await.status, 200);
        deposit("1000000000001").await.problem(422, "amount-too-large");
        deposit("9223372036854775807").await.problem(422, "amount-too-large");
        assert_eq!(deposit("9223372036854775808").await.status, 422);
    })
    .await;
    run_with(&["--max-amount=9007199254740991"], async |app| {
        let id = app.open_wallet("JPY", "0").await;
        let deposit = async |amount: &str| {
            app.post("/wallet/deposit", json!({ "id": id, "amount": amount })).await
        };

        assert_eq!(deposit("9007199254740991").await.status, 200);
        deposit("1").await.problem(422, "amount-too-large");
    })
    .await;
}

#[tokio::test]
async fn every_invalid_field_is_named() {
    run(async |app| {
        let body = app.post("/wallet", json!({ "currency": "EURO" })).await.problem(422, "invalid");

        let pointers: Vec<_> =
            body["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
        assert_eq!(pointers, ["/owner", "/currency"]);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_not_json_is_refused() {
    run(async |app| {
        let send = async |content_type: &str, body: Vec<u8>| {
            let request = app.request(reqwest::Method::POST, "/wallet/deposit");
            app.send(request.header("content-type", content_type).body(body)).await
        };

        send("application/json", b"{".to_vec()).await.problem(400, "malformed-json");
        send("text/plain", b"{}".to_vec()).await.problem(415, "unsupported-media-type");
        send("application/json", vec![b' '; 1024 * 1024]).await.problem(413, "body-too-large");
        send("application/json", vec![0xff; 10]).await.problem(400, "malformed-json");
    })
    .await;
}

#[tokio::test]
async fn a_withdrawal_above_the_balance_is_refused() {
    run(async |app| {
        let id = app.open_wallet("EUR", "5").await;

        let response = app.post("/wallet/withdraw", json!({ "id": id, "amount": "7.50" })).await;

        let body = response.problem(422, "insufficient-funds");
        assert!(response.text.contains(r#""available":5.00,"required":7.50"#), "{body}");
    })
    .await;
}

#[tokio::test]
async fn an_unknown_wallet_is_not_found() {
    run(async |app| {
        app.post("/wallet/deposit", json!({ "id": "77", "amount": 1 }))
            .await
            .problem(404, "not-found");
        app.post("/wallet/deposit", json!({ "id": "-1", "amount": 1 }))
            .await
            .problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_repeated_request_is_applied_once_and_its_response_replayed() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        let first =
            app.post_with_key("/wallet/deposit", "k", json!({ "id": id, "amount": "5.00" })).await;
        // The same request in another notation.
        let again = app
            .post_with_key(
                "/wallet/deposit",
                "k",
                json!({ "id": id.parse::<u64>().unwrap(), "amount": 5 }),
            )
            .await;

        assert_eq!((first.status, &first.text), (again.status, &again.text));
        assert_eq!(
            (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
            ("", "true")
        );
        let other =
            app.post_with_key("/wallet/deposit", "k", json!({ "id": id, "amount": "6.00" })).await;
        other.problem(422, "idempotency-key-reused");
        let other_operation =
            app.post_with_key("/wallet/withdraw", "k", json!({ "id": id, "amount": "5.00" })).await;
        assert_eq!(other_operation.status, 200, "the key is scoped to its operation");
    })
    .await;
}

#[tokio::test]
async fn opening_twice_with_one_key_opens_one_wallet() {
    run(async |app| {
        let body = json!({ "owner": "ann", "initial_balance": 3, "currency": "EUR" });

        let first = app.post_with_key("/wallet", "k", body.clone()).await;
        let again = app.post_with_key("/wallet", "k", body).await;

        assert_eq!((first.status, again.status), (201, 201));
        assert_eq!(first.text, again.text);
        assert_eq!(first.header("location"), again.header("location"));
    })
    .await;
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_key() {
    run(async |app| {
        let id = app.open_wallet("EUR", "1").await;
        let withdraw = async || {
            app.post_with_key("/wallet/withdraw", "k", json!({ "id": id, "amount": 5 })).await
        };
        withdraw().await.problem(422, "insufficient-funds");
        app.post("/wallet/deposit", json!({ "id": id, "amount": 9 })).await;

        let response = withdraw().await;

        assert_eq!(response.status, 200, "{}", response.text);
        assert_eq!(response.header("idempotent-replayed"), "");
    })
    .await;
}

#[tokio::test]
async fn a_withdrawal_that_emptied_the_wallet_is_replayed() {
    run(async |app| {
        let id = app.open_wallet("EUR", "100").await;
        let withdraw = async || {
            app.post_with_key("/wallet/withdraw", "k", json!({ "id": id, "amount": 100 })).await
        };

        let (first, again) = (withdraw().await, withdraw().await);

        assert_eq!((first.status, again.status), (200, 200), "{}", again.text);
        assert_eq!(again.header("idempotent-replayed"), "true");
    })
    .await;
}

#[tokio::test]
async fn concurrent_requests_with_one_key_are_applied_once() {
    run(async |app| {
        let id = app.open_wallet("EUR", "0").await;

        let responses =
            join_all((0..20).map(|_| {
                app.post_with_key("/wallet/deposit", "k", json!({ "id": id, "amount": 1 }))
            }))
            .await;

        for response in &responses {
            assert_eq!(response.status, 200, "{}", response.text);
            assert_eq!(response.json()["balance"], 1.0);
        }
        let replays =
            responses.iter().filter(|response| response.header("idempotent-replayed") == "true");
        assert_eq!(replays.count(), 19);
    })
    .await;
}

#[tokio::test]
async fn invalid_idempotency_keys_are_refused() {
    run(async |app| {
        for key in ["", "a b", &"k".repeat(256)] {
            let response =
                app.post_with_key("/wallet/deposit", key, json!({ "id": 1, "amount": 1 })).await;

            response.problem(422, "invalid");
        }
    })
    .await;
}

#[tokio::test]
async fn of_concurrent_withdrawals_only_covered_ones_succeed() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;

        let withdrawals =
            (0..30).map(|_| app.post("/wallet/withdraw", json!({ "id": id, "amount": 1 })));
        let responses = join_all(withdrawals).await;

        let succeeded = responses.iter().filter(|response| response.status == 200).count();
        assert_eq!(succeeded, 10);
        for refused in responses.iter().filter(|response| response.status != 200) {
            refused.problem(422, "insufficient-funds");
        }
    })
    .await;
}

#[tokio::test]
async fn closed_access_refuses_anonymous_requests() {
    run_with(&["--access=closed"], async |app| {
        let response = app.post("/wallet/deposit", json!({ "id": 1, "amount": 1 })).await;

        response.problem(401, "unauthenticated");
        assert_eq!(response.header("www-authenticate"), "Bearer");
    })
    .await;
}

#[tokio::test]
async fn postings_are_counted_in_metrics() {
    run(async |app: &TestApp| {
        let id = app.open_wallet("EUR", "1").await;
        app.post_with_key("/wallet/deposit", "k", json!({ "id": id, "amount": 1 })).await;
        app.post_with_key("/wallet/deposit", "k", json!({ "id": id, "amount": 1 })).await;
        app.post("/wallet/withdraw", json!({ "id": id, "amount": 9 })).await;

        let metrics = app.internal.get("/metrics").await.text;

        for line in [
            r#"wallet_ledger_transfers_total{kind="deposit",outcome="replayed"} 1"#,
            r#"wallet_ledger_transfers_total{kind="withdrawal",outcome="rejected"} 1"#,
            r#"wallet_ledger_rejections_total{reason="insufficient_funds"} 1"#,
            r#"wallet_idempotency_total{outcome="new"} 1"#,
            r#"wallet_idempotency_total{outcome="replayed"} 1"#,
            r#"wallet_ledger_batches_total{outcome="sealed"} 2"#,
            "wallet_ledger_head_seq 3",
            "wallet_ledger_queue_depth 0",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
    })
    .await;
}

/// Returns how often the table of wallets was scanned, and how many rows and index entries those scans read.
async fn reads_of_wallets(app: &TestApp) -> (i64, i64) {
    let mut db = app.database.connect().await;
    let query = "select seq_scan + idx_scan as scans, seq_tup_read + (
            select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname = 'wallet'
        ) as reads
        from pg_stat_user_tables where relname = 'wallet'";
    let row = sqlx::query(query).fetch_one(&mut db).await.unwrap();
    (row.get("scans"), row.get("reads"))
}

#[tokio::test]
async fn a_currency_of_few_wallets_does_not_cost_a_scan_of_all() {
    const LISTS: i64 = 12;
    const CROWD: i64 = 29_901;
    run(async |app| {
        app.open_wallet("USD", "1").await;
        let last = app.open_wallet("GBP", "2").await;
        let mut db = app.database.connect().await;
        let crowd = "insert into wallet (id, currency, owner)
            select n, 'EUR', 'crowd' from generate_series(100, 30000) n";
        sqlx::query(crowd).execute(&mut db).await.unwrap();
        sqlx::query("analyze wallet").execute(&mut db).await.unwrap();
        let key = app.api_key(&[Scope::WalletRead]).await;

        for client in [&**app, &key] {
            let mut before = (0, 0);
            eventually("the statistics are still", async || {
                let earlier = std::mem::replace(&mut before, reads_of_wallets(app).await);
                tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
                earlier == before
            })
            .await;
            // Often enough that the plan is cached, with and without rows to find.
            for n in 0..LISTS {
                let (currency, found) = if n % 2 == 0 { ("JPY", 0) } else { ("GBP", 1) };
                let list = client.get(&format!("/wallet?currency={currency}")).await.json();
                assert_eq!(list.as_array().unwrap().len(), found, "{list}");
            }
            let mut after = (0, 0);
            eventually("the scans are counted", async || {
                after = reads_of_wallets(app).await;
                after.0 >= before.0 + LISTS
            })
            .await;
            let reads = after.1 - before.1;
            // A task that counts the wallets for a metric may read all of them meanwhile.
            assert!(reads < 2 * CROWD, "{reads} rows and entries were read");
        }
        let list = key.get("/wallet?currency=EUR&limit=2").await;
        let ids: Vec<_> =
            list.json().as_array().unwrap().iter().map(|one| one["id"].clone()).collect();
        assert_eq!(ids, ["100", "101"]);
        assert!(list.header("link").contains("after=101&currency=EUR"), "{}", list.header("link"));
        let next = key.get("/wallet?currency=EUR&limit=2&after=101").await.json();
        assert_eq!(next[0]["id"], "102");
        assert_eq!(app.get("/wallet?currency=GBP").await.json()[0]["id"], json!(last));
    })
    .await;
}

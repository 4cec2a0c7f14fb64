//! Wallets: opened, filled, emptied, and what is refused.

mod bank;
mod batch;
mod hold;
mod refund;
mod state;
mod statement;
mod transfer;

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{TestApp, run, run_with};

#[tokio::test]
async fn a_wallet_opens_with_its_first_deposit() {
    run(async |app| {
        let body = json!({ "owner": "test2", "initial_balance": "999.00", "currency": "EUR" });

        let answer = app.post("/wallet/", body).await;

        assert_eq!(answer.status, 201, "{}", answer.text);
        assert_eq!(answer.text, r#"{"balance":999.00,"currency":"EUR","id":"1","owner":"test2"}"#);
        assert_eq!(answer.header("location"), "/wallet/1");
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
                    let answer = app.post(path, json!({ "id": id, "amount": amount })).await;
                    assert_eq!(answer.status, 200, "{}", answer.text);
                    last = answer.text;
                }
                assert!(last.contains(&format!("\"balance\":{end},")), "{last}");
            }
        })
        .await;
    }
}

#[tokio::test]
async fn amounts_that_cannot_be_are_refused() {
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
            json!("0x10"),
        ] {
            for path in ["/wallet/deposit", "/wallet/withdraw"] {
                let answer = app.post(path, json!({ "id": id, "amount": amount })).await;

                assert_eq!(answer.status, 422, "{amount}: {}", answer.text);
            }
        }
        for amount in [json!("1e1"), json!(10), json!("10.00"), json!(10.0), json!("1000e-2")] {
            let answer = app.post("/wallet/deposit", json!({ "id": id, "amount": amount })).await;

            assert_eq!(answer.status, 200, "{amount}: {}", answer.text);
        }
    })
    .await;
}

#[tokio::test]
async fn amounts_at_the_edge_of_the_largest_are_kept_or_refused() {
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
    run_with(&["--max-amount=9223372036854775807"], async |app| {
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
async fn every_broken_field_is_named() {
    run(async |app| {
        let body = app.post("/wallet", json!({ "currency": "EURO" })).await.problem(422, "invalid");

        let pointers: Vec<_> =
            body["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
        assert_eq!(pointers, ["/owner", "/currency"]);
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() {
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
async fn more_than_there_is_cannot_be_withdrawn() {
    run(async |app| {
        let id = app.open_wallet("EUR", "5").await;

        let answer = app.post("/wallet/withdraw", json!({ "id": id, "amount": "7.50" })).await;

        let body = answer.problem(422, "insufficient-funds");
        assert!(answer.text.contains(r#""available":5.00,"required":7.50"#), "{body}");
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
async fn a_repeated_request_is_done_once_and_answered_the_same() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;
        let first = app.keyed("/wallet/deposit", "k", json!({ "id": id, "amount": "5.00" })).await;
        // The same request in other words.
        let again = app
            .keyed("/wallet/deposit", "k", json!({ "id": id.parse::<u64>().unwrap(), "amount": 5 }))
            .await;

        assert_eq!((first.status, &first.text), (again.status, &again.text));
        assert_eq!(
            (first.header("idempotent-replayed"), again.header("idempotent-replayed")),
            ("", "true")
        );
        let other = app.keyed("/wallet/deposit", "k", json!({ "id": id, "amount": "6.00" })).await;
        other.problem(422, "idempotency-key-reused");
        let elsewhere =
            app.keyed("/wallet/withdraw", "k", json!({ "id": id, "amount": "5.00" })).await;
        assert_eq!(elsewhere.status, 200, "another operation has keys of its own");
    })
    .await;
}

#[tokio::test]
async fn opening_twice_with_one_key_opens_one_wallet() {
    run(async |app| {
        let body = json!({ "owner": "ann", "initial_balance": 3, "currency": "EUR" });

        let first = app.keyed("/wallet", "k", body.clone()).await;
        let again = app.keyed("/wallet", "k", body).await;

        assert_eq!((first.status, again.status), (201, 201));
        assert_eq!(first.text, again.text);
        assert_eq!(first.header("location"), again.header("location"));
    })
    .await;
}

#[tokio::test]
async fn a_refused_request_does_not_burn_its_key() {
    run(async |app| {
        let id = app.open_wallet("EUR", "1").await;
        let withdraw =
            async || app.keyed("/wallet/withdraw", "k", json!({ "id": id, "amount": 5 })).await;
        withdraw().await.problem(422, "insufficient-funds");
        app.post("/wallet/deposit", json!({ "id": id, "amount": 9 })).await;

        let answer = withdraw().await;

        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("idempotent-replayed"), "");
    })
    .await;
}

#[tokio::test]
async fn the_repetition_of_a_withdrawal_that_emptied_the_wallet_is_no_refusal() {
    run(async |app| {
        let id = app.open_wallet("EUR", "100").await;
        let withdraw =
            async || app.keyed("/wallet/withdraw", "k", json!({ "id": id, "amount": 100 })).await;

        let (first, again) = (withdraw().await, withdraw().await);

        assert_eq!((first.status, again.status), (200, 200), "{}", again.text);
        assert_eq!(again.header("idempotent-replayed"), "true");
    })
    .await;
}

#[tokio::test]
async fn equal_keys_at_the_same_time_are_done_once() {
    run(async |app| {
        let id = app.open_wallet("EUR", "0").await;

        let answers = join_all(
            (0..20).map(|_| app.keyed("/wallet/deposit", "k", json!({ "id": id, "amount": 1 }))),
        )
        .await;

        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert_eq!(answer.json()["balance"], 1.0);
        }
        let replays =
            answers.iter().filter(|answer| answer.header("idempotent-replayed") == "true");
        assert_eq!(replays.count(), 19);
    })
    .await;
}

#[tokio::test]
async fn keys_that_cannot_be_are_refused() {
    run(async |app| {
        for key in ["", "a b", &"k".repeat(256)] {
            let answer = app.keyed("/wallet/deposit", key, json!({ "id": 1, "amount": 1 })).await;

            answer.problem(422, "invalid");
        }
    })
    .await;
}

#[tokio::test]
async fn of_many_withdrawals_at_once_only_those_that_fit_succeed() {
    run(async |app| {
        let id = app.open_wallet("EUR", "10").await;

        let withdrawals =
            (0..30).map(|_| app.post("/wallet/withdraw", json!({ "id": id, "amount": 1 })));
        let answers = join_all(withdrawals).await;

        let done = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(done, 10);
        for refused in answers.iter().filter(|answer| answer.status != 200) {
            refused.problem(422, "insufficient-funds");
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_gets_in_where_access_is_closed() {
    run_with(&["--access=closed"], async |app| {
        let answer = app.post("/wallet/deposit", json!({ "id": 1, "amount": 1 })).await;

        answer.problem(401, "unauthenticated");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    })
    .await;
}

#[tokio::test]
async fn what_the_ledger_does_is_measured() {
    run(async |app: &TestApp| {
        let id = app.open_wallet("EUR", "1").await;
        app.keyed("/wallet/deposit", "k", json!({ "id": id, "amount": 1 })).await;
        app.keyed("/wallet/deposit", "k", json!({ "id": id, "amount": 1 })).await;
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

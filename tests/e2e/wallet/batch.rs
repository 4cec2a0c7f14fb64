//! Batches: many transfers in one request.

use serde_json::{Value, json};

use crate::harness::{TestApp, run};

async fn balances(app: &TestApp, ids: &[&str]) -> Vec<f64> {
    let mut balances = Vec::new();
    for id in ids {
        let wallet = app.get(&format!("/wallet/{id}")).await.json();
        balances.push(wallet["balance"].as_f64().unwrap());
    }
    balances
}

fn transfer(from: &str, to: &str, amount: &str) -> Value {
    json!({ "from": from, "to": to, "amount": amount })
}

#[tokio::test]
async fn an_atomic_batch_is_applied_completely_or_not_at_all() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);
        let valid = [transfer(&a, &b, "10"), transfer(&b, &a, "4"), transfer(&a, &b, "1")];
        let invalid = [transfer(&b, &a, "7"), transfer(&b, &a, "0.01"), transfer(&a, &b, "1")];

        let refused =
            app.post("/wallet/batch", json!({ "atomic": true, "transfers": invalid })).await;

        let body = refused.problem(422, "insufficient-funds");
        assert_eq!(body["errors"][0]["pointer"], "/transfers/0", "{body}");
        assert_eq!(balances(app, &[&a, &b]).await, [10.0, 0.0]);
        let done = app
            .post_with_key("/wallet/batch", "k", json!({ "atomic": true, "transfers": valid }))
            .await;
        assert_eq!(done.status, 201, "{}", done.text);
        assert_eq!(balances(app, &[&a, &b]).await, [3.0, 7.0]);
        let results = done.json()["results"].as_array().unwrap().clone();
        assert_eq!(results.len(), 3);
        assert_eq!(results[1]["transfer"]["from"], b.as_str());
        let overdrawn = [transfer(&b, &a, "7"), transfer(&b, &a, "0.01")];
        let body =
            app.post("/wallet/batch", json!({ "atomic": true, "transfers": overdrawn })).await;
        let body = body.problem(422, "insufficient-funds");
        assert_eq!(body["errors"][0]["pointer"], "/transfers/1", "{body}");
        let again = app
            .post_with_key("/wallet/batch", "k", json!({ "atomic": true, "transfers": valid }))
            .await;
        assert_eq!((again.status, &again.text), (201, &done.text));
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(balances(app, &[&a, &b]).await, [3.0, 7.0]);
    })
    .await;
}

#[tokio::test]
async fn transfers_of_a_non_atomic_batch_are_independent() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);
        let mixed = [
            transfer(&a, &b, "10"),
            transfer(&a, &b, "0.01"),
            transfer(&a, "999", "1"),
            transfer(&a, &a, "1"),
            transfer(&b, &a, "4"),
        ];
        let request = json!({ "transfers": mixed });

        let first = app.post_with_key("/wallet/batch", "k", request.clone()).await;

        assert_eq!(first.status, 200, "{}", first.text);
        let statuses = |text: &str| -> Vec<u64> {
            let body: Value = serde_json::from_str(text).unwrap();
            let results = body["results"].as_array().unwrap();
            results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
        };
        assert_eq!(statuses(&first.text), [201, 422, 404, 422, 201]);
        let body = first.json();
        assert_eq!(body["results"][1]["problem"]["type"], "/problems/insufficient-funds");
        assert_eq!(balances(app, &[&a, &b]).await, [4.0, 6.0]);
        let again = app.post_with_key("/wallet/batch", "k", request).await;
        // Refused transfers are decided again; by now the balance is sufficient.
        assert_eq!(statuses(&again.text), [201, 201, 404, 422, 201]);
        assert_eq!(again.json()["results"][0], body["results"][0]);
        assert_eq!(balances(app, &[&a, &b]).await, [3.99, 6.01]);
    })
    .await;
}

#[tokio::test]
async fn a_batch_may_contain_ten_thousand_transfers() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "1000").await, app.open_wallet("EUR", "0").await);
        let repeated = |count: usize| vec![transfer(&a, &b, "0.01"); count];

        for (atomic, status) in [(true, 201), (false, 200)] {
            let request = json!({ "atomic": atomic, "transfers": repeated(10_000) });
            let response = app.post_with_key("/wallet/batch", &format!("k{atomic}"), request).await;
            assert_eq!(
                response.status,
                status,
                "{}",
                &response.text[..200.min(response.text.len())]
            );
            let results = response.json()["results"].as_array().unwrap().clone();
            assert_eq!(results.len(), 10_000);
            assert!(results.iter().all(|result| result["status"] == 201));
        }
        assert_eq!(balances(app, &[&a, &b]).await, [800.0, 200.0]);
        for count in [0, 10_001] {
            let request = json!({ "atomic": true, "transfers": repeated(count) });
            app.post("/wallet/batch", request).await.problem(422, "invalid");
        }
        let large = json!({ "transfers": [{ "memo": "x".repeat(5 * 1024 * 1024) }] });
        app.post("/wallet/batch", large).await.problem(413, "body-too-large");
    })
    .await;
}

#[tokio::test]
async fn the_key_of_a_batch_covers_the_whole_request() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "100").await, app.open_wallet("EUR", "0").await);
        let (one, two) = (transfer(&a, &b, "1"), transfer(&a, &b, "2"));
        let batch = |transfers: &[&Value], atomic: bool| {
            json!({ "atomic": atomic, "transfers": transfers })
        };

        for (key, first_is_atomic) in [("each", false), ("atomic", true)] {
            let original = batch(&[&one, &two], first_is_atomic);
            let first = app.post_with_key("/wallet/batch", key, original.clone()).await;
            assert!([200, 201].contains(&first.status), "{}", first.text);
            let after = balances(app, &[&a, &b]).await;
            for changed in [
                batch(&[&one, &two], !first_is_atomic),
                batch(&[&one, &two, &one], first_is_atomic),
                batch(&[&two, &one], first_is_atomic),
                batch(&[&one], first_is_atomic),
                batch(&[&one, &transfer(&a, &b, "3")], first_is_atomic),
            ] {
                let response = app.post_with_key("/wallet/batch", key, changed).await;
                response.problem(422, "idempotency-key-reused");
            }
            let other_notation = batch(
                &[&transfer(&a, &b, "1.00"), &json!({ "from": a, "to": b, "amount": 2.0 })],
                first_is_atomic,
            );
            for same in [original, other_notation] {
                let again = app.post_with_key("/wallet/batch", key, same).await;
                assert_eq!((again.status, &again.text), (first.status, &first.text));
                assert_eq!(again.header("idempotent-replayed"), "true");
            }
            assert_eq!(balances(app, &[&a, &b]).await, after, "money moved twice");
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_without_a_posted_transfer_does_not_use_up_its_key() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "1").await, app.open_wallet("EUR", "0").await);
        let refused_batch =
            json!({ "transfers": [transfer(&a, &b, "2"), transfer(&a, "999", "1")] });
        let refused = app.post_with_key("/wallet/batch", "k", refused_batch).await;
        assert_eq!(refused.status, 200, "{}", refused.text);

        let other = json!({ "transfers": [transfer(&a, &b, "1")] });
        let posted = app.post_with_key("/wallet/batch", "k", other).await;

        assert_eq!(posted.json()["results"][0]["status"], 201, "{}", posted.text);
        assert_eq!(balances(app, &[&a, &b]).await, [0.0, 1.0]);
    })
    .await;
}

#[tokio::test]
async fn of_concurrent_batches_with_one_key_only_one_is_applied() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "1000").await, app.open_wallet("EUR", "0").await);
        for round in 0..20 {
            let before = balances(app, &[&b]).await[0];
            let key = format!("race-{round}");
            let posts = (1..=4).map(|count| {
                let transfers = vec![transfer(&a, &b, "1"); count];
                app.post_with_key("/wallet/batch", &key, json!({ "transfers": transfers }))
            });

            let responses = futures_util::future::join_all(posts).await;

            let posted: Vec<usize> = responses
                .iter()
                .filter(|response| response.status == 200)
                .map(|response| response.json()["results"].as_array().unwrap().len())
                .collect();
            assert_eq!(posted.len(), 1, "{responses:?}");
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let moved = posted[0] as f64;
            assert_eq!(balances(app, &[&b]).await, [before + moved]);
        }
    })
    .await;
}

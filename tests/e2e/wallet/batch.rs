//! Many transfers in one request.

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
async fn an_atomic_batch_is_done_whole_or_not_at_all() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);
        let good = [transfer(&a, &b, "10"), transfer(&b, &a, "4"), transfer(&a, &b, "1")];
        let bad = [transfer(&b, &a, "7"), transfer(&b, &a, "0.01"), transfer(&a, &b, "1")];

        let refused = app.post("/wallet/batch", json!({ "atomic": true, "transfers": bad })).await;

        let body = refused.problem(422, "insufficient-funds");
        assert_eq!(body["errors"][0]["pointer"], "/transfers/0", "{body}");
        assert_eq!(balances(app, &[&a, &b]).await, [10.0, 0.0]);
        let done =
            app.keyed("/wallet/batch", "k", json!({ "atomic": true, "transfers": good })).await;
        assert_eq!(done.status, 201, "{}", done.text);
        assert_eq!(balances(app, &[&a, &b]).await, [3.0, 7.0]);
        let results = done.json()["results"].as_array().unwrap().clone();
        assert_eq!(results.len(), 3);
        assert_eq!(results[1]["transfer"]["from"], b.as_str());
        let late = [transfer(&b, &a, "7"), transfer(&b, &a, "0.01")];
        let body = app.post("/wallet/batch", json!({ "atomic": true, "transfers": late })).await;
        let body = body.problem(422, "insufficient-funds");
        assert_eq!(body["errors"][0]["pointer"], "/transfers/1", "{body}");
        let again =
            app.keyed("/wallet/batch", "k", json!({ "atomic": true, "transfers": good })).await;
        assert_eq!((again.status, &again.text), (201, &done.text));
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(balances(app, &[&a, &b]).await, [3.0, 7.0]);
    })
    .await;
}

#[tokio::test]
async fn in_other_batches_each_stands_for_itself() {
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

        let first = app.keyed("/wallet/batch", "k", request.clone()).await;

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
        let again = app.keyed("/wallet/batch", "k", request).await;
        // What was refused was not done, so it is tried again: now there is enough.
        assert_eq!(statuses(&again.text), [201, 201, 404, 422, 201]);
        assert_eq!(again.json()["results"][0], body["results"][0]);
        assert_eq!(balances(app, &[&a, &b]).await, [3.99, 6.01]);
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_at_once_are_done_in_both_ways() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "1000").await, app.open_wallet("EUR", "0").await);
        let many = |count: usize| vec![transfer(&a, &b, "0.01"); count];

        for (atomic, status) in [(true, 201), (false, 200)] {
            let request = json!({ "atomic": atomic, "transfers": many(10_000) });
            let answer = app.keyed("/wallet/batch", &format!("k{atomic}"), request).await;
            assert_eq!(answer.status, status, "{}", &answer.text[..200.min(answer.text.len())]);
            let results = answer.json()["results"].as_array().unwrap().clone();
            assert_eq!(results.len(), 10_000);
            assert!(results.iter().all(|result| result["status"] == 201));
        }
        assert_eq!(balances(app, &[&a, &b]).await, [800.0, 200.0]);
        for count in [0, 10_001] {
            let request = json!({ "atomic": true, "transfers": many(count) });
            app.post("/wallet/batch", request).await.problem(422, "invalid");
        }
        let large = json!({ "transfers": [{ "memo": "x".repeat(5 * 1024 * 1024) }] });
        app.post("/wallet/batch", large).await.problem(413, "body-too-large");
    })
    .await;
}

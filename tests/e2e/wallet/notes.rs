//! Memos and metadata of deposits, withdrawals and holds, and the id of the transfer that an answer is about.

use serde_json::{Value, json};

use crate::harness::{TestApp, run};

const NOTE: &str = r#"{"order":7,"rate":1.10}"#;

async fn history(app: &TestApp, wallet: &str) -> Vec<Value> {
    let history = app.get(&format!("/wallet/{wallet}/history")).await;
    assert!(history.text.contains(&format!("\"metadata\":{NOTE}")), "{}", history.text);
    history.json().as_array().unwrap().clone()
}

/// Body of a movement with a note.
fn body(wallet: &str, amount: &str) -> Value {
    let metadata: Value = serde_json::from_str(NOTE).unwrap();
    json!({ "id": wallet, "amount": amount, "memo": "for order 7", "metadata": metadata })
}

#[tokio::test]
async fn a_deposit_and_a_withdrawal_name_their_transfer_and_keep_their_note() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "0").await;

        for (path, kind) in [("/wallet/deposit", "deposit"), ("/wallet/withdraw", "withdrawal")] {
            let text = body(&wallet, "1.10").to_string().replace("1.1}", "1.10}");
            let request = app.request(http::Method::POST, path).body(text);
            let moved = app.send(request.header("content-type", "application/json")).await;
            assert_eq!(moved.status, 200, "{}", moved.text);
            let id = moved.json()["transfer"].as_str().unwrap().to_owned();
            let transfer = app.get(&format!("/wallet/transfer/{id}")).await.json();
            assert_eq!(transfer["kind"], kind);
            assert_eq!(transfer["memo"], "for order 7");
            assert_eq!(transfer["metadata"]["order"], 7);
        }

        let entries = history(app, &wallet).await;
        assert!(entries.iter().take(2).all(|entry| entry["memo"] == "for order 7"), "{entries:?}");
    })
    .await;
}

#[tokio::test]
async fn a_refund_needs_no_search_for_its_transfer() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "0").await;
        let deposit = app.post("/wallet/deposit", json!({ "id": wallet, "amount": "5" })).await;

        let transfer = json!({ "transfer": deposit.json()["transfer"] });
        let refund = app.post("/wallet/refund", transfer).await;

        assert_eq!(refund.status, 201, "{}", refund.text);
        assert_eq!(refund.json()["from"], wallet);
    })
    .await;
}

#[tokio::test]
async fn a_hold_keeps_its_note() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "5").await;
        let placed = app.post("/wallet/hold", body(&wallet, "2")).await.json();
        let path = format!("/wallet/hold/{}", placed["id"].as_str().unwrap());
        let listed = app.get(&format!("/wallet/{wallet}/holds")).await.json()[0].clone();
        let captured = app.post(&format!("{path}/capture"), json!({ "amount": "1" })).await.json();

        for hold in [placed, listed, captured, app.get(&path).await.json()] {
            assert_eq!(hold["memo"], "for order 7", "{hold}");
            assert_eq!(hold["metadata"]["order"], 7, "{hold}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_covers_the_note_and_a_replay_names_the_first_transfer() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "5").await;
        for path in ["/wallet/deposit", "/wallet/withdraw", "/wallet/hold"] {
            let first = app.post_with_key(path, path, body(&wallet, "1")).await.json();

            let again = app.post_with_key(path, path, body(&wallet, "1.00")).await;
            assert_eq!(again.header("idempotent-replayed"), "true", "{path}: {}", again.text);
            assert_eq!(again.json(), first);
            let mut other = body(&wallet, "1");
            other["memo"] = json!("for order 8");
            let refused = app.post_with_key(path, path, other).await;
            refused.problem(422, "idempotency-key-reused");
            let without = json!({ "id": wallet, "amount": "1" });
            let refused = app.post_with_key(path, path, without).await;
            refused.problem(422, "idempotency-key-reused");
        }
    })
    .await;
}

#[tokio::test]
async fn a_note_that_cannot_be_kept_is_refused() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "5").await;
        for path in ["/wallet/deposit", "/wallet/withdraw", "/wallet/hold"] {
            for (memo, metadata, pointer) in [
                (json!("x".repeat(501)), json!({}), "/memo"),
                (json!(7), json!({}), "/memo"),
                (json!("x"), json!([1]), "/metadata"),
                (json!("x"), json!({ "x": "y".repeat(1_024) }), "/metadata"),
            ] {
                let body =
                    json!({ "id": wallet, "amount": "1", "memo": memo, "metadata": metadata });
                let problem = app.post(path, body).await.problem(422, "invalid");
                assert_eq!(problem["errors"][0]["pointer"], pointer, "{path}: {problem}");
            }
        }
    })
    .await;
}

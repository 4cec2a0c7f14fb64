//! Refunds: partial and full, in total never more than the original amount.

#![expect(
    clippy::float_cmp,
    reason = "sums of a few cents are exact enough, and a difference would be a cent"
)]

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Response, TestApp, run};

async fn transfer(app: &TestApp, from: &str, to: &str, amount: &str) -> String {
    let body = json!({ "from": from, "to": to, "amount": amount, "fee": "0.50" });
    app.post("/wallet/transfer", body).await.json()["id"].as_str().unwrap().to_owned()
}

async fn refund(app: &TestApp, body: Value) -> Response {
    app.post("/wallet/refund", body).await
}

async fn balance(app: &TestApp, id: &str) -> f64 {
    app.get(&format!("/wallet/{id}")).await.json()["balance"].as_f64().unwrap()
}

#[tokio::test]
async fn partial_refunds_and_the_remainder_are_paid_but_no_more() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "5").await);
        let id = transfer(app, &a, &b, "10").await;

        let left =
            async || app.get(&format!("/wallet/transfer/{id}")).await.json()["refundable"].clone();
        assert_eq!(left().await, 10.0);

        let part = refund(app, json!({ "transfer": id, "amount": "4.00" })).await;

        assert_eq!(part.status, 201, "{}", part.text);
        assert_eq!(left().await, 6.0);
        let created = part.json();
        assert_eq!((&created["kind"], &created["linked"]), (&json!("refund"), &json!(id)));
        assert_eq!((&created["from"], &created["to"]), (&json!(b), &json!(a)));
        let excessive = refund(app, json!({ "transfer": id, "amount": "6.01" })).await;
        assert_eq!(excessive.problem(422, "refund-too-large")["detail"], "6.00 is left to refund");
        let rest = refund(app, json!({ "transfer": id })).await;
        assert!(rest.text.contains(r#""amount":6.00"#), "{}", rest.text);
        refund(app, json!({ "transfer": id })).await.problem(422, "refund-too-large");
        assert_eq!(
            [balance(app, &a).await, balance(app, &b).await],
            [19.5, 5.0],
            "a refund does not return the fee"
        );
        assert_eq!(left().await, 0.0);
        let refund_id = created["id"].as_str().unwrap();
        let read = app.get(&format!("/wallet/transfer/{refund_id}")).await.json();
        assert!(read.get("refundable").is_none(), "a refund is final: {read}");
        refund(app, json!({ "transfer": refund_id })).await.problem(409, "not-refundable");
        refund(app, json!({ "transfer": "9999" })).await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn concurrent_refunds_never_exceed_the_original_amount() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "50").await);
        let id = transfer(app, &a, &b, "10").await;

        let refunds =
            join_all((0..25).map(|_| refund(app, json!({ "transfer": id, "amount": 1 })))).await;

        let succeeded = refunds.iter().filter(|response| response.status == 201).count();
        assert_eq!(
            succeeded,
            10,
            "{:?}",
            refunds.iter().map(|refund| &refund.text).collect::<Vec<_>>()
        );
        assert_eq!([balance(app, &a).await, balance(app, &b).await], [19.5, 50.0]);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_refund_is_applied_once_and_its_response_replayed() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "0").await);
        let id = transfer(app, &a, &b, "10").await;

        let first = app.post_with_key("/wallet/refund", "k", json!({ "transfer": id })).await;
        let again = app.post_with_key("/wallet/refund", "k", json!({ "transfer": id })).await;

        assert_eq!((first.status, again.status), (201, 201), "{}", again.text);
        assert_eq!(first.text, again.text);
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(balance(app, &b).await, 0.0);
    })
    .await;
}

#[tokio::test]
async fn deposits_withdrawals_and_captures_can_be_refunded() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "0").await);
        let newest_transfer = async |id: &str| {
            let history = app.get(&format!("/wallet/{id}/history?limit=1")).await.json();
            history[0]["id"].as_str().unwrap().to_owned()
        };

        app.post("/wallet/withdraw", json!({ "id": a, "amount": 5 })).await;
        let withdrawal = newest_transfer(&a).await;
        assert_eq!(refund(app, json!({ "transfer": withdrawal })).await.status, 201);
        assert!((balance(app, &a).await - 20.0).abs() < 1e-9);
        app.post("/wallet/deposit", json!({ "id": a, "amount": 5 })).await;
        let deposit = newest_transfer(&a).await;
        assert_eq!(refund(app, json!({ "transfer": deposit })).await.status, 201);
        assert!((balance(app, &a).await - 20.0).abs() < 1e-9);
        let hold = app.post("/wallet/hold", json!({ "id": a, "amount": 5 })).await.json();
        let hold = hold["id"].as_str().unwrap();
        let capture = format!("/wallet/hold/{hold}/capture");
        let captured = app.post(&capture, json!({ "to": b })).await.json();
        let refunded = refund(app, json!({ "transfer": captured["transfer"] })).await;
        assert_eq!(refunded.status, 201, "{}", refunded.text);
        assert!((balance(app, &a).await - 20.0).abs() < 1e-9);
        refund(app, json!({ "transfer": hold })).await.problem(409, "not-refundable");
    })
    .await;
}

//! Refunds: the way back, never more in all than there was.

#![expect(
    clippy::float_cmp,
    reason = "sums of a few cents are exact enough, and a difference would be a cent"
)]

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::{Answer, TestApp, run};

async fn transfer(app: &TestApp, from: &str, to: &str, amount: &str) -> String {
    let body = json!({ "from": from, "to": to, "amount": amount, "fee": "0.50" });
    app.post("/wallet/transfer", body).await.json()["id"].as_str().unwrap().to_owned()
}

async fn refund(app: &TestApp, body: Value) -> Answer {
    app.post("/wallet/refund", body).await
}

async fn balance(app: &TestApp, id: &str) -> f64 {
    app.get(&format!("/wallet/{id}")).await.json()["balance"].as_f64().unwrap()
}

#[tokio::test]
async fn parts_and_then_the_rest_go_back_but_not_more() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "5").await);
        let id = transfer(app, &a, &b, "10").await;

        let part = refund(app, json!({ "transfer": id, "amount": "4.00" })).await;

        assert_eq!(part.status, 201, "{}", part.text);
        let made = part.json();
        assert_eq!((&made["kind"], &made["linked"]), (&json!("refund"), &json!(id)));
        assert_eq!((&made["from"], &made["to"]), (&json!(b), &json!(a)));
        let much = refund(app, json!({ "transfer": id, "amount": "6.01" })).await;
        assert_eq!(much.problem(422, "refund-too-large")["detail"], "6.00 is left to refund");
        let rest = refund(app, json!({ "transfer": id })).await;
        assert!(rest.text.contains(r#""amount":6.00"#), "{}", rest.text);
        refund(app, json!({ "transfer": id })).await.problem(422, "refund-too-large");
        assert_eq!([balance(app, &a).await, balance(app, &b).await], [19.5, 5.0], "the fee stays");
        let refunded = made["id"].as_str().unwrap();
        refund(app, json!({ "transfer": refunded })).await.problem(409, "not-refundable");
        refund(app, json!({ "transfer": "9999" })).await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn refunds_at_once_never_return_more_than_there_was() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "50").await);
        let id = transfer(app, &a, &b, "10").await;

        let refunds =
            join_all((0..25).map(|_| refund(app, json!({ "transfer": id, "amount": 1 })))).await;

        let done = refunds.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(done, 10, "{:?}", refunds.iter().map(|one| &one.text).collect::<Vec<_>>());
        assert_eq!([balance(app, &a).await, balance(app, &b).await], [19.5, 50.0]);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_refund_is_done_once_and_answered_the_same() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "0").await);
        let id = transfer(app, &a, &b, "10").await;

        let first = app.keyed("/wallet/refund", "k", json!({ "transfer": id })).await;
        let again = app.keyed("/wallet/refund", "k", json!({ "transfer": id })).await;

        assert_eq!((first.status, again.status), (201, 201), "{}", again.text);
        assert_eq!(first.text, again.text);
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(balance(app, &b).await, 0.0);
    })
    .await;
}

#[tokio::test]
async fn what_came_from_or_went_outside_or_was_captured_goes_back_too() {
    run(async |app| {
        let (a, b) = (app.open_wallet("EUR", "20").await, app.open_wallet("EUR", "0").await);
        let newest = async |id: &str| {
            let history = app.get(&format!("/wallet/{id}/history?limit=1")).await.json();
            history[0]["id"].as_str().unwrap().to_owned()
        };

        app.post("/wallet/withdraw", json!({ "id": a, "amount": 5 })).await;
        let withdrawal = newest(&a).await;
        assert_eq!(refund(app, json!({ "transfer": withdrawal })).await.status, 201);
        assert!((balance(app, &a).await - 20.0).abs() < 1e-9);
        app.post("/wallet/deposit", json!({ "id": a, "amount": 5 })).await;
        let deposit = newest(&a).await;
        assert_eq!(refund(app, json!({ "transfer": deposit })).await.status, 201);
        assert!((balance(app, &a).await - 20.0).abs() < 1e-9);
        let hold = app.post("/wallet/hold", json!({ "id": a, "amount": 5 })).await.json();
        let hold = hold["id"].as_str().unwrap();
        let capture = format!("/wallet/hold/{hold}/capture");
        let captured = app.post(&capture, json!({ "to": b })).await.json();
        let back = refund(app, json!({ "transfer": captured["transfer"] })).await;
        assert_eq!(back.status, 201, "{}", back.text);
        assert!((balance(app, &a).await - 20.0).abs() < 1e-9);
        refund(app, json!({ "transfer": hold })).await.problem(409, "not-refundable");
    })
    .await;
}

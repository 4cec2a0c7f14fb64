//! Transfers: amount and fee move atomically.

use serde_json::json;

use crate::harness::{TestApp, run};

/// Returns the balance as it is written in the response.
async fn balance(app: &TestApp, id: &str) -> String {
    let text = app.get(&format!("/wallet/balance/{id}")).await.text;
    text.split([':', ',']).nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn amount_and_fee_move_together() {
    run(async |app| {
        let (from, to) = (app.open_wallet("EUR", "10").await, app.open_wallet("EUR", "0").await);

        let body = json!({
            "from": from, "to": to, "amount": "5.00", "fee": "0.10",
            "memo": "for the \"coffee\"", "metadata": { "order": 7, "tags": ["a"] },
        });
        let response = app.post("/wallet/transfer", body).await;

        assert_eq!(response.status, 201, "{}", response.text);
        let transfer = response.json();
        assert!(
            response.text.contains(r#""amount":5.00,"fee":0.10,"currency":"EUR""#),
            "{}",
            response.text
        );
        assert_eq!(transfer["from"], from.as_str());
        assert_eq!(transfer["to"], to.as_str());
        let path = response.header("location").to_owned();
        assert_eq!(path, format!("/wallet/transfer/{}", transfer["id"].as_str().unwrap()));
        assert_eq!(
            app.get(&path).await.text.replace(r#","refundable":5.00}"#, "}"),
            response.text,
            "a later read returns the same transfer, and how much of it can be refunded"
        );
        assert_eq!(balance(app, &from).await, "4.90");
        assert_eq!(balance(app, &to).await, "5.00");
        let history = app.get(&format!("/wallet/{from}/history")).await;
        let entries = history.json();
        assert_eq!(entries[0]["kind"], "fee");
        assert_eq!(entries[1]["direction"], "out");
        assert_eq!(entries[1]["memo"], "for the \"coffee\"");
        assert_eq!(entries[1]["metadata"]["order"], 7);
        assert_eq!(entries[1]["counterparty"], to.as_str());
        assert_eq!(entries[1]["trace_id"], transfer["trace_id"]);
    })
    .await;
}

#[tokio::test]
async fn a_transfer_whose_fee_is_not_covered_moves_nothing() {
    run(async |app| {
        let (from, to) = (app.open_wallet("EUR", "5").await, app.open_wallet("EUR", "0").await);

        let body = json!({ "from": from, "to": to, "amount": 5, "fee": "0.01" });
        let refused = app.post("/wallet/transfer", body).await;

        let text = refused.text.clone();
        refused.problem(422, "insufficient-funds");
        assert!(text.contains(r#""available":5.00,"required":5.01"#), "{text}");
        assert_eq!(balance(app, &from).await, "5.00");
        assert_eq!(balance(app, &to).await, "0.00");
    })
    .await;
}

#[tokio::test]
async fn invalid_transfers_are_refused() {
    run(async |app| {
        let euro = app.open_wallet("EUR", "5").await;
        let dollar = app.open_wallet("USD", "5").await;
        let other = app.open_wallet("EUR", "5").await;
        let transfer = async |body| app.post("/wallet/transfer", body).await;

        let same = json!({ "from": euro, "to": euro, "amount": 1 });
        let body = transfer(same).await.problem(422, "invalid");
        assert_eq!(body["errors"][0]["pointer"], "/to");
        let foreign = json!({ "from": euro, "to": dollar, "amount": 1 });
        transfer(foreign).await.problem(422, "currency-mismatch");
        let unknown = json!({ "from": euro, "to": "999999", "amount": 1 });
        transfer(unknown).await.problem(404, "not-found");
        let empty = json!({}).to_owned();
        let body = transfer(empty).await.problem(422, "invalid");
        assert_eq!(body["errors"].as_array().unwrap().len(), 3, "{body}");
        for (name, value) in [
            ("amount", json!(0)),
            ("amount", json!("-1")),
            ("fee", json!("0.001")),
            ("memo", json!("")),
            ("memo", json!("x".repeat(501))),
            ("memo", json!("a\u{0}b")),
            ("metadata", json!([1])),
            ("metadata", json!({ "x": "y".repeat(1100) })),
        ] {
            let mut body = json!({ "from": euro, "to": other, "amount": 1 });
            body[name] = value.clone();
            let body = transfer(body).await.problem(422, "invalid");
            assert_eq!(body["errors"][0]["pointer"], format!("/{name}"), "{value}");
        }
        let free = json!({ "from": euro, "to": other, "amount": 1, "fee": 0 });
        assert_eq!(transfer(free).await.status, 201, "a fee of 0 is accepted");
        app.get("/wallet/transfer/999999").await.problem(404, "not-found");
        app.get("/wallet/transfer/x").await.problem(404, "not-found");
    })
    .await;
}

#[tokio::test]
async fn a_repeated_transfer_is_applied_once_and_its_response_replayed() {
    run(async |app| {
        let (from, to) = (app.open_wallet("EUR", "5").await, app.open_wallet("EUR", "0").await);
        let body = json!({ "from": from, "to": to, "amount": 4, "fee": 1, "memo": "m" });

        let first = app.post_with_key("/wallet/transfer", "k", body.clone()).await;
        let again = app.post_with_key("/wallet/transfer", "k", body).await;

        assert_eq!(first.status, 201, "{}", first.text);
        assert_eq!(
            (again.status, &again.text),
            (201, &first.text),
            "the replay succeeds although a new transfer would be refused"
        );
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(first.header("idempotent-replayed"), "");
        let other = json!({ "from": from, "to": to, "amount": 4, "fee": 1, "memo": "n" });
        app.post_with_key("/wallet/transfer", "k", other)
            .await
            .problem(422, "idempotency-key-reused");
    })
    .await;
}

//! Statements, and histories between two moments.

use serde_json::json;

use crate::harness::{TestApp, run};

async fn csv(app: &TestApp, path: &str) -> String {
    let request = app.request(http::Method::GET, path).header("accept", "text/csv");
    let response = app.send(request).await;
    assert_eq!(response.status, 200, "{}", response.text);
    assert!(response.header("content-type").starts_with("text/csv"));
    response.text
}

#[tokio::test]
async fn a_statement_connects_opening_and_closing_balance() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;
        let other = app.open_wallet("EUR", "0").await;
        app.post("/wallet/hold", json!({ "id": wallet, "amount": 3 })).await;
        let transfer = json!({ "from": wallet, "to": other, "amount": 2, "memo": "=cmd|'x'" });
        app.post("/wallet/transfer", transfer).await;

        let statement = app.get(&format!("/wallet/{wallet}/statement")).await;

        let body = statement.json();
        assert!(statement.text.contains(r#""opening_balance":0.00"#), "{}", statement.text);
        assert!(statement.text.ends_with(r#""closing_balance":8.00}"#), "{}", statement.text);
        let kinds: Vec<_> =
            body["entries"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
        assert_eq!(kinds, ["open", "deposit", "hold", "transfer"]);
        let document = csv(app, &format!("/wallet/{wallet}/statement")).await;
        let lines: Vec<_> = document.lines().collect();
        assert_eq!(lines.len(), 7, "{document}");
        let columns = lines[0].split(',').count();
        assert!(lines[1..].iter().all(|line| line.split(',').count() == columns), "{document}");
        assert!(lines[5].contains(r#""'=cmd|'x'""#), "{document}");
        app.get("/wallet/999/statement").await.problem(404, "not-found");
        app.get(&format!("/wallet/{wallet}/statement?from=x")).await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_long_statement_is_complete() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "0").await;
        let other = app.open_wallet("EUR", "100").await;
        let transfer = json!({ "from": other, "to": wallet, "amount": "0.01" });
        let batch = json!({ "atomic": true, "transfers": vec![transfer; 2_500] });
        assert_eq!(app.post("/wallet/batch", batch).await.status, 201);

        let body = app.get(&format!("/wallet/{wallet}/statement")).await.json();

        assert_eq!(body["entries"].as_array().unwrap().len(), 2_501);
        assert_eq!(body["closing_balance"], 25.0);
    })
    .await;
}

#[tokio::test]
async fn history_and_statement_agree_on_the_bounds_of_a_period() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let mut moments = Vec::new();
        for _ in 0..3 {
            let deposit = json!({ "id": wallet, "amount": 1 });
            app.post("/wallet/deposit", deposit).await;
            let newest = app.get(&format!("/wallet/{wallet}/history?limit=1")).await.json();
            moments.push(newest[0]["at"].as_str().unwrap().to_owned());
        }
        let query = format!("from={}&to={}", moments[0], moments[2]);

        let history = app.get(&format!("/wallet/{wallet}/history?{query}")).await.json();
        let statement = app.get(&format!("/wallet/{wallet}/statement?{query}")).await.json();

        assert_eq!(
            history.as_array().unwrap().len(),
            2,
            "the start is inclusive, the end is exclusive"
        );
        assert_eq!(statement["entries"].as_array().unwrap().len(), 2);
        assert_eq!(statement["opening_balance"], 1.0);
        assert_eq!(statement["closing_balance"], 3.0);
        let first = app.get(&format!("/wallet/{wallet}/history?{query}&limit=1")).await;
        let next =
            first.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
        let second = app.get(&next).await.json();
        assert_eq!(second[0], history[1]);
    })
    .await;
}

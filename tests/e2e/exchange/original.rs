//! The calls of the original service, word for word.

use reqwest::Method;
use serde_json::json;

use super::{amounts, order, reaches, texts};
use crate::harness::run;

#[tokio::test]
async fn the_calls_of_the_original_work_word_for_word() {
    run(async |app| {
        let body = json!({
            "username": "johndoe589", "first_name": "John", "last_name": "Doe",
            "email": "bestjohn@doe.com", "password": "test-secret password"
        });
        let registered = app.post("/exchange/register", body.clone()).await;
        assert_eq!((registered.status, registered.text.as_str()), (200, r#"{"id":2}"#));
        app.post("/exchange/register", body).await.problem(409, "name-taken");

        let wrong = json!({ "username": "johndoe589", "password": "test-secret wrong" });
        app.post("/exchange/login", wrong).await.problem(401, "invalid-credentials");
        let login = json!({ "username": "johndoe589", "password": "test-secret password" });
        let login = app.post("/exchange/login", login).await;
        assert_eq!((login.status, &login.json()["status"]), (200, &json!("OK")));
        let token = login.json()["token"].as_str().unwrap().to_owned();
        assert_eq!(login.header("authorization"), format!("Bearer {token}"));

        let john = app.with_credential(&token);
        john.get("/exchange/wallet/2").await.problem(404, "not-found");
        let opened = john.send(john.request(Method::POST, "/exchange/wallet/2")).await;
        assert_eq!((opened.status, opened.text.as_str()), (200, r#"{"status":"OK"}"#));
        let again = john.send(john.request(Method::POST, "/exchange/wallet/2")).await;
        again.problem(409, "wallets-exist");
        for path in ["/exchange/wallet/2", "/exchange/wallet/2/deposit"] {
            let deposit = john.request(Method::PATCH, path).body(r#"{"fiat_amount":300}"#);
            let deposited = john.send(deposit).await;
            assert_eq!((deposited.status, deposited.text.as_str()), (200, r#"{"status":"OK"}"#));
        }
        let wallet = john.get("/exchange/wallet/2").await.text;
        assert_eq!(wallet, r#"{"user_id":2,"crypto_amount":0.00000000,"fiat_amount":600.00}"#);

        let bought = john.post("/exchange/buy/2", json!({ "fiat_amount": 30 })).await;
        assert_eq!((bought.status, bought.text.as_str()), (200, r#"{"order_id":1,"status":"OK"}"#));
        reaches(&john, 1, "completed").await;
        let wallet = john.get("/exchange/wallet/2").await.text;
        assert_eq!(amounts(&wallet), texts("570.00", "3.00000000"));

        let sold = john.post("/exchange/sell/2", json!({ "crypto_amount": 1.5 })).await;
        assert_eq!((sold.status, sold.text.as_str()), (200, r#"{"order_id":2,"status":"OK"}"#));
        reaches(&john, 2, "completed").await;
        let wallet = john.get("/exchange/wallet/2").await.text;
        assert_eq!(amounts(&wallet), texts("585.00", "1.50000000"));

        let poor = john.post("/exchange/buy/2", json!({ "fiat_amount": 600 })).await;
        let problem = poor.problem(422, "insufficient-funds");
        assert_eq!((&problem["available"], &problem["required"]), (&json!(585.0), &json!(600.0)));
        assert_eq!(order(&john, 3).await["status"], 404);
    })
    .await;
}

#[tokio::test]
async fn users_reach_only_their_own() {
    run(async |app| {
        let (ada, bob) =
            (super::trader(app, "ada", 10_000).await, super::trader(app, "bob", 0).await);
        let placed = super::buy(&ada, json!({ "fiat_amount": 10 })).await;
        let id = super::order_id(&placed);
        let buy = json!({ "fiat_amount": 10 });
        for path in ["buy", "sell"] {
            let path = format!("/exchange/{path}/{}", ada.id);
            app.post(&path, buy.clone()).await.problem(401, "unauthenticated");
            app.with_credential("nonsense")
                .post(&path, buy.clone())
                .await
                .problem(401, "unauthenticated");
            bob.post(&path, buy.clone()).await.problem(403, "forbidden");
        }
        for path in ["wallet", "orders"] {
            let path = format!("/exchange/{path}/{}", ada.id);
            app.get(&path).await.problem(401, "unauthenticated");
            bob.get(&path).await.problem(403, "forbidden");
        }
        let path = format!("/exchange/order/{id}");
        app.get(&path).await.problem(401, "unauthenticated");
        bob.get(&path).await.problem(404, "not-found");
        assert_eq!(ada.get(&path).await.status, 200);
        // The house cannot sign in.
        let house = json!({ "username": "house", "password": "!" });
        app.post("/exchange/login", house).await.problem(401, "invalid-credentials");
    })
    .await;
}

//! The routes of the internal listener.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{amounts, balances, buy, fault, order_id, reaches, texts, trader};
use crate::harness::{Client, Response, eventually, run};

async fn patch(client: &Client, path: &str, body: Value) -> Response {
    client.send(client.request(reqwest::Method::PATCH, path).json(&body)).await
}

#[tokio::test]
async fn balances_are_changed_with_an_admin_key_only() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let key = app.api_key(&[Scope::Admin]).await;
        let admin = app.internal.with_credential(key.credential());
        let path = format!("/internal/balance/wallet/{}", ada.id);
        app.internal.get(&path).await.problem(401, "unauthenticated");
        let user = app.internal.with_credential(ada.credential());
        user.get(&path).await.problem(403, "forbidden");
        patch(&user, &path, json!({ "fiat_amount": 1 })).await.problem(403, "forbidden");
        key.get(&path).await.problem(404, "not-found");

        let changed = patch(&admin, &path, json!({ "fiat_amount": -30, "crypto_amount": 3 })).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        assert_eq!(amounts(&admin.get(&path).await.text), texts("70.00", "3.00000000"));
        // Both or neither.
        let refused = patch(&admin, &path, json!({ "fiat_amount": 10, "crypto_amount": -4 })).await;
        refused.problem(422, "insufficient-funds");
        for body in [json!({}), json!({ "fiat_amount": 0 }), json!({ "fiat_amount": 0.001 })] {
            patch(&admin, &path, body).await.problem(422, "invalid");
        }
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
        admin.post(&path, json!({})).await.problem(409, "wallets-exist");
        let house = admin.get("/internal/balance/wallet/1").await.text;
        assert_eq!(amounts(&house), texts("0.00", "0.00000000"));
    })
    .await;
}

#[tokio::test]
async fn a_call_of_a_step_makes_the_worker_try_it_and_moves_nothing_by_itself() {
    run(async |app| {
        let ada = trader(app, "ada", 10_000).await;
        let key = app.api_key(&[Scope::Admin]).await;
        let admin = app.internal.with_credential(key.credential());
        fault(app, "exchange-do", "lost", 4).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        let body = json!({ "acquirer_user_id": ada.id.parse::<i64>().unwrap(), "order_id": id, "crypto_amount": 3, "compensate": false });
        let path = format!("/internal/exchanger/buy/{id}");
        app.internal.post(&path, body.clone()).await.problem(401, "unauthenticated");
        admin.post("/internal/exchanger/buy/99", body.clone()).await.problem(404, "not-found");
        admin.post(&format!("/internal/exchanger/sell/{id}"), body.clone()).await.problem(409, "order-fixed");
        admin.post(&format!("/internal/exchanger/hold/{id}"), body.clone()).await.problem(404, "not-found");
        let mut wrong = body.clone();
        wrong["crypto_amount"] = json!(4);
        admin.post(&path, wrong).await.problem(422, "invalid");
        let notification = format!("/internal/notification/send/{id}");
        eventually("the order completes while its step is called", async || {
            let called = admin.post(&path, body.clone()).await;
            assert!([200, 409].contains(&called.status), "{}", called.text);
            super::order(&ada, id).await["state"] == "completed"
        })
        .await;
        reaches(&ada, id, "completed").await;
        admin.post(&path, body.clone()).await.problem(409, "order-fixed");
        let withdraw = format!("/internal/bcgateway/withdraw/{}", ada.id);
        admin.post(&withdraw, body).await.problem(409, "order-fixed");
        // Without a mail server there is nothing to send.
        admin.post(&notification, json!({})).await.problem(409, "order-fixed");
        assert_eq!(balances(&ada).await, texts("70.00", "3.00000000"));
    })
    .await;
}

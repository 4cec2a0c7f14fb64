//! Updates of wallets, and their replay under an idempotency key.

use http::Method;
use serde_json::{Value, json};

use crate::harness::{Response, TestApp, run};

async fn patch(app: &TestApp, wallet: &str, key: &str, body: Value) -> Response {
    let request = app.request(Method::PATCH, &format!("/wallet/{wallet}")).json(&body);
    app.send(request.header("idempotency-key", key)).await
}

#[tokio::test]
async fn a_repeated_update_is_applied_once_and_its_response_replayed() {
    run(async |app| {
        for first_body in [
            json!({ "label": "one" }),
            json!({ "label": "one", "metadata": { "a": 1 } }),
            json!({ "freeze": true }),
            json!({ "freeze": true, "label": "one" }),
            json!({ "freeze": false, "label": "one" }),
        ] {
            let wallet = app.open_wallet("EUR", "10").await;
            let key = format!("update-{wallet}");

            let first = patch(app, &wallet, &key, first_body.clone()).await;

            assert_eq!(first.status, 200, "{}", first.text);
            assert_eq!(first.headers.get("idempotent-replayed"), None);
            let later = patch(
                app,
                &wallet,
                &format!("later-{wallet}"),
                json!({ "label": "two", "freeze": false }),
            )
            .await;
            assert_eq!(later.status, 200, "{}", later.text);
            app.post("/wallet/deposit", json!({ "id": wallet, "amount": 5 })).await;
            let again = patch(app, &wallet, &key, first_body).await;
            assert_eq!(
                (again.status, &again.text),
                (200, &first.text),
                "the replay must return the first response"
            );
            assert_eq!(again.header("idempotent-replayed"), "true");
            let now = app.get(&format!("/wallet/{wallet}")).await.json();
            assert_eq!((&now["label"], &now["state"]), (&json!("two"), &json!("open")), "{now}");
            let other = patch(app, &wallet, &key, json!({ "label": "three" })).await;
            other.problem(422, "idempotency-key-reused");
        }
    })
    .await;
}

#[tokio::test]
async fn a_repeated_close_is_marked_as_a_replay() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "0").await;
        let close = async || {
            let request = app.request(Method::DELETE, &format!("/wallet/{wallet}"));
            app.send(request.header("idempotency-key", "close")).await
        };

        let (first, again) = (close().await, close().await);

        assert_eq!((first.status, again.status), (204, 204));
        assert_eq!(first.headers.get("idempotent-replayed"), None);
        assert_eq!(again.header("idempotent-replayed"), "true");
    })
    .await;
}

//! Refusals say what is wrong with a credential, and what it lacks.

use http::Method;
use revwallet::auth::Scope;
use serde_json::json;

use crate::harness::{Response, TestApp, run, run_with};

async fn with_header(app: &TestApp, value: &str) -> Response {
    app.send(app.request(Method::GET, "/api/users/me").header("authorization", value)).await
}

#[tokio::test]
async fn a_missing_a_malformed_and_a_wrong_credential_are_told_apart() {
    run(async |app| {
        let ada = app.user("ada").await;
        let signed_out = app.user("bob").await;
        signed_out.post("/api/users/logout", json!({})).await;
        let wrong = "the credential is wrong, or was revoked";
        let malformed = "send one credential, as `Authorization: Bearer <credential>`";
        for (response, detail) in [
            (app.get("/api/users/me").await, "sign in or send an API key"),
            (with_header(app, "Basic YTpi").await, malformed),
            (with_header(app, "secret").await, malformed),
            (with_header(app, "Bearer nothing").await, wrong),
            (with_header(app, "Bearer rwk_7_nothing").await, wrong),
            (with_header(app, &format!("Bearer {}x", ada.credential())).await, wrong),
            (signed_out.get("/api/users/me").await, wrong),
        ] {
            assert_eq!(response.header("www-authenticate"), "Bearer");
            assert_eq!(response.problem(401, "unauthenticated")["detail"], detail);
        }
    })
    .await;
}

#[tokio::test]
async fn an_expired_token_is_called_expired_unless_it_is_forged() {
    run_with(&["--token-lifetime=1s"], async |app| {
        let ada = app.user("ada").await;
        tokio::time::sleep(std::time::Duration::from_millis(2_100)).await;

        let expired = ada.get("/api/users/me").await.problem(401, "unauthenticated");
        assert_eq!(expired["detail"], "the token has expired: sign in again");
        let forged = with_header(app, &format!("Bearer {}x", ada.credential())).await;
        let forged = forged.problem(401, "unauthenticated");
        assert_eq!(forged["detail"], "the credential is wrong, or was revoked");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_names_the_missing_scope() {
    run(async |app| {
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        let reader = app.api_key(&[Scope::WalletRead]).await;
        let opened = ada.post("/wallet", json!({ "owner": "a", "currency": "EUR" })).await.json();
        let deposit = json!({ "id": opened["id"], "amount": "1" });
        for (response, scope) in [
            (reader.post("/wallet/deposit", deposit).await, "wallet:write"),
            (bob.get(&format!("/wallet/{}", opened["id"].as_str().unwrap())).await, "wallet:read"),
            (bob.get(&format!("/api/users/{}", ada.id)).await, "users:read"),
            (bob.get("/api/keys").await, "admin"),
        ] {
            let detail =
                format!("this needs the scope `{scope}`, which the credential does not have");
            assert_eq!(response.problem(403, "forbidden")["detail"], detail);
        }
    })
    .await;
}

#[tokio::test]
async fn me_is_the_signed_in_user() {
    run(async |app| {
        let ada = app.user("ada").await;

        let me = ada.get("/api/users/me").await;

        assert_eq!(me.json(), ada.get(&format!("/api/users/{}", ada.id)).await.json());
        let key = app.api_key(&[Scope::Admin]).await;
        let refused = key.get("/api/users/me").await.problem(403, "forbidden");
        let detail = "only a signed-in user can do this, and the credential is an API key";
        assert_eq!(refused["detail"], detail);
    })
    .await;
}

#[tokio::test]
async fn a_key_opens_wallets_for_users() {
    run_with(&["--access=closed"], async |app| {
        let server = app.api_key(&[Scope::WalletWrite]).await;
        let (ada, bob) = (app.user("ada").await, app.user("bob").await);
        let wallet = |user: &str| {
            json!({ "owner": "main", "currency": "EUR", "user": user, "initial_balance": "5" })
        };

        let opened = server.post_with_key("/wallet", "ada", wallet(&ada.id)).await;

        assert_eq!(opened.status, 201, "{}", opened.text);
        let path = format!("/wallet/{}", opened.json()["id"].as_str().unwrap());
        assert_eq!(ada.get(&path).await.status, 200, "it belongs to the user");
        assert!(bob.get(&path).await.status >= 400);
        let again = server.post_with_key("/wallet", "ada", wallet(&ada.id)).await;
        assert_eq!((again.header("idempotent-replayed"), again.json()), ("true", opened.json()));
        let other = server.post_with_key("/wallet", "ada", wallet(&bob.id)).await;
        other.problem(422, "idempotency-key-reused");

        let refused = bob.post("/wallet", wallet(&ada.id)).await.problem(403, "forbidden");
        let detail = "this needs the scope `wallet:write`, which the credential does not have";
        assert_eq!(refused["detail"], detail);
        let own = json!({ "owner": "main", "currency": "EUR", "user": bob.id });
        assert_eq!(bob.post("/wallet", own).await.status, 201, "a user may name itself");
        for user in [json!("4711"), json!("ada"), json!(-1)] {
            let body = json!({ "owner": "main", "currency": "EUR", "user": user });
            let problem = server.post("/wallet", body).await.problem(422, "invalid");
            assert_eq!(problem["errors"][0]["pointer"], "/user", "{problem}");
        }
    })
    .await;
}

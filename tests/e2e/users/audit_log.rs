//! The audit log: complete, append-only, and without secrets.

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::check::SECRET_MARKER;
use crate::harness::program::command;
use crate::harness::run;

#[tokio::test]
async fn actions_on_users_and_keys_are_in_the_audit_log() {
    run(async |app| {
        let ada = app.user("ada").await;
        let name = format!("user:{}", ada.id);
        let wrong = json!({ "username": "ada", "password": "test-secret wrongly" });
        app.post("/api/users/login", wrong).await.problem(401, "invalid-credentials");
        let unknown =
            json!({ "username": "test-secret as a name", "password": "test-secret wrongly" });
        app.post("/api/users/login", unknown).await.problem(401, "invalid-credentials");
        let change = json!({ "password": "test-secret, changed", "firstName": "Ada" });
        ada.send(ada.request(Method::PUT, &format!("/api/users/{}", ada.id)).json(&change)).await;
        ada.post("/api/users/logout", json!({})).await;
        let admin = app.api_key(&[Scope::Admin]).await;

        let log = admin.get("/api/audit?limit=50").await;

        assert_eq!(log.status, 200, "{}", log.text);
        let entries: Vec<(String, String, String, Value)> = log
            .json()
            .as_array()
            .unwrap()
            .iter()
            .rev()
            .map(|entry| {
                assert!(entry["at"].is_string());
                let text = |key: &str| entry[key].as_str().unwrap().to_owned();
                assert_eq!(entry["address"].is_string(), text("actor") != "operator", "{entry}");
                assert_eq!(entry["trace_id"].is_string(), text("actor") != "operator", "{entry}");
                (text("actor"), text("action"), text("outcome"), entry["subject"].clone())
            })
            .collect();
        let entry = |actor: &str, action: &str, outcome: &str, subject: Value| {
            (actor.to_owned(), action.to_owned(), outcome.to_owned(), subject)
        };
        let expected = [
            entry("anybody", "user.registered", "done", json!(name)),
            entry(&name, "user.signed_in", "done", json!(name)),
            entry("anybody", "user.signed_in", "refused", json!(name)),
            entry("anybody", "user.signed_in", "refused", Value::Null),
            entry(&name, "user.password_changed", "done", json!(name)),
            entry(&name, "user.profile_changed", "done", json!(name)),
            entry(&name, "user.signed_out", "done", json!(name)),
            entry("operator", "key.created", "done", json!("key:1")),
        ];
        assert_eq!(entries, expected);
        assert!(!log.text.contains(SECRET_MARKER));
        let of_key = admin.get("/api/audit?subject=key:1").await.json();
        assert_eq!(of_key.as_array().unwrap().len(), 1);
        let page = admin.get("/api/audit?limit=3").await;
        let next =
            page.header("link").trim_start_matches('<').split('>').next().unwrap().to_owned();
        assert_eq!(admin.get(&next).await.json()[0]["action"], "user.password_changed");

        let url = format!("--database-url={}", app.database.url);
        let printed =
            command(&["audit", "--lines", "3", "--log-filter=warn", &url]).output().unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        assert_eq!(printed.lines().count(), 3, "{printed}");
        assert!(printed.contains("key.created") && printed.contains("by operator"), "{printed}");
    })
    .await;
}

#[tokio::test]
async fn no_role_can_change_the_audit_log() {
    run(async |app| {
        app.user("ada").await;
        for statement in ["update trail set actor = 'x'", "delete from trail", "truncate trail"] {
            let refused = app.database.try_execute(statement).await;
            assert!(refused.unwrap_err().to_string().contains("append-only"), "{statement}");
        }
        let as_application_role =
            "do $$ begin set local role revwallet_app; delete from trail; end $$";
        let refused = app.database.try_execute(as_application_role).await;
        assert!(refused.unwrap_err().to_string().contains("permission denied"));
    })
    .await;
}

//! The trail: everything is in it, nothing can be taken out of it, and no secret is in it.

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::check::PLANTED;
use crate::harness::program::command;
use crate::harness::run;

#[tokio::test]
async fn what_happens_around_users_and_keys_is_on_the_trail() {
    run(async |app| {
        let ada = app.person("ada").await;
        let name = format!("user:{}", ada.id);
        let wrong = json!({ "username": "ada", "password": "planted wrongly" });
        app.post("/api/users/login", wrong).await.problem(401, "invalid-credentials");
        let unknown = json!({ "username": "planted as a name", "password": "planted wrongly" });
        app.post("/api/users/login", unknown).await.problem(401, "invalid-credentials");
        let change = json!({ "password": "planted anew", "firstName": "Ada" });
        ada.send(ada.request(Method::PUT, &format!("/api/users/{}", ada.id)).json(&change)).await;
        ada.post("/api/users/logout", json!({})).await;
        let admin = app.key(&[Scope::Admin]).await;

        let trail = admin.get("/api/audit?limit=50").await;

        assert_eq!(trail.status, 200, "{}", trail.text);
        let lines: Vec<(String, String, String, Value)> = trail
            .json()
            .as_array()
            .unwrap()
            .iter()
            .rev()
            .map(|line| {
                assert!(line["at"].is_string());
                let text = |key: &str| line[key].as_str().unwrap().to_owned();
                assert_eq!(line["address"].is_string(), text("actor") != "operator", "{line}");
                assert_eq!(line["trace_id"].is_string(), text("actor") != "operator", "{line}");
                (text("actor"), text("action"), text("outcome"), line["subject"].clone())
            })
            .collect();
        let line = |actor: &str, action: &str, outcome: &str, subject: Value| {
            (actor.to_owned(), action.to_owned(), outcome.to_owned(), subject)
        };
        let expected = [
            line("anybody", "user.registered", "done", json!(name)),
            line(&name, "user.signed_in", "done", json!(name)),
            line("anybody", "user.signed_in", "refused", json!(name)),
            line("anybody", "user.signed_in", "refused", Value::Null),
            line(&name, "user.password_changed", "done", json!(name)),
            line(&name, "user.profile_changed", "done", json!(name)),
            line(&name, "user.signed_out", "done", json!(name)),
            line("operator", "key.created", "done", json!("key:1")),
        ];
        assert_eq!(lines, expected);
        assert!(!trail.text.contains(PLANTED));
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
async fn nobody_changes_the_trail() {
    run(async |app| {
        app.person("ada").await;
        for statement in
            ["update trail set actor = 'nobody'", "delete from trail", "truncate trail"]
        {
            let refused = app.database.try_execute(statement).await;
            assert!(refused.unwrap_err().to_string().contains("append-only"), "{statement}");
        }
        let as_the_program = "do $$ begin set local role revwallet_app; delete from trail; end $$";
        let refused = app.database.try_execute(as_the_program).await;
        assert!(refused.unwrap_err().to_string().contains("permission denied"));
    })
    .await;
}

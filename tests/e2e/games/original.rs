//! The calls of the original games platform, as its documentation writes them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::run;

#[tokio::test]
async fn users_of_the_original_service_sign_in_word_for_word() {
    run(async |app| {
        let status = app.get("/api/status").await;
        assert_eq!(status.status, 200);
        let body = status.json();
        assert_eq!((&body["service"], &body["status"]), (&json!("revwallet"), &json!("OK")));
        assert!(body["timestamp"].is_string() && body.get("details").is_none(), "{body}");

        let body =
            json!({ "username": "ada", "email": "ada@example.com", "password": "test-secret one" });
        let registered = app.post("/api/users/register", body).await;
        assert_eq!(registered.status, 200, "{}", registered.text);
        assert_eq!(registered.json()["message"], "User registered successfully");
        assert_eq!(registered.json()["username"], "ada");
        let id = registered.json()["id"].as_str().unwrap().to_owned();
        let body = json!({ "email": "ada@example.com", "password": "test-secret one" });
        let login = app.post("/api/users/login", body).await.json();
        assert_eq!(login["message"], "Login successful");
        let wrong = json!({ "email": "ada@example.com", "password": "test-secret wrong" });
        let wrong = app.post("/api/users/login", wrong).await;
        assert_eq!((wrong.status, &wrong.json()["error"]), (401, &json!("Invalid credentials")));
        let ada = app.with_credential(login["token"].as_str().unwrap());
        let put = ada.request(Method::PUT, &format!("/api/users/{id}"));
        let put = ada.send(put.json(&json!({ "username": "ada2" }))).await;
        assert_eq!(put.json(), json!({ "message": "Profile updated successfully" }));

        let logout = ada.post("/api/users/logout", json!({})).await;
        assert_eq!(logout.json(), json!({ "message": "Logout successful" }));
    })
    .await;
}

#[tokio::test]
async fn games_of_the_original_service_are_managed_word_for_word() {
    run(async |app| {
        assert_eq!(app.get("/api/games").await.json(), json!({ "games": [] }));
        let game =
            json!({ "title": "Alpha", "genre": "puzzle", "price": 19.99, "description": "First" });
        let added = app.post("/api/games", game.clone()).await;
        assert_eq!(added.status, 201, "{}", added.text);
        let expected =
            json!({ "message": "Game added successfully", "title": "Alpha", "gameId": 1 });
        assert_eq!(added.json(), expected);
        let mut listed = game;
        listed["gameId"] = json!(1);
        assert_eq!(app.get("/api/games").await.json(), json!({ "games": [listed] }));
        assert!(app.get("/api/games").await.text.contains(r#""price":19.99,"#));

        let found = app.get("/api/games/1").await.json();
        for member in ["gameId", "title", "genre", "price", "description"] {
            assert_eq!(found[member], listed[member]);
        }
        let missing = app.get("/api/games/2").await;
        assert_eq!((missing.status, &missing.json()["error"]), (404, &json!("Game not found")));

        let bad = app.post("/api/games", json!({ "title": "", "price": 1.999 })).await;
        let problem = bad.problem(400, "invalid-game");
        assert!(problem["error"].is_string() && problem["details"].is_string());
        let pointers: Vec<&Value> =
            problem["errors"].as_array().unwrap().iter().map(|field| &field["pointer"]).collect();
        assert_eq!(pointers, ["/title", "/genre", "/price"]);

        let put = |id: i64, body: Value| {
            app.send(app.request(Method::PUT, &format!("/api/games/{id}")).json(&body))
        };
        let changed = put(
            1,
            json!({ "title": "Alpha 2", "genre": "puzzle", "price": 9.99, "description": "" }),
        );
        assert_eq!(changed.await.json(), json!({ "message": "Game updated successfully" }));
        assert_eq!(app.get("/api/games/1").await.json()["title"], "Alpha 2");
        let missing = put(2, json!({ "title": "x" })).await;
        assert_eq!((missing.status, &missing.json()["error"]), (404, &json!("Game not found")));
        let delete = |id: i64| app.send(app.request(Method::DELETE, &format!("/api/games/{id}")));
        assert_eq!(delete(1).await.json(), json!({ "message": "Game deleted successfully" }));
        let missing = delete(1).await;
        assert_eq!((missing.status, &missing.json()["error"]), (404, &json!("Game not found")));
        assert_eq!(app.get("/api/games").await.json(), json!({ "games": [] }));

        let mut socket = app.socket().await;
        let ask = |action: &str| json!({ "action": action, "topic": "game_updates" });
        let subscribed = socket.ask(ask("subscribe")).await;
        assert_eq!(subscribed["message"], "Subscribed to game_updates");
        let body = json!({ "title": "Beta", "genre": "race", "price": 0, "description": "" });
        app.post("/api/games", body).await;
        // The events of the changes before the subscription can still arrive.
        let event = loop {
            let event = socket.json().await;
            if event["data"]["title"] == "Beta" {
                break event;
            }
        };
        assert_eq!(
            (&event["type"], &event["data"]["title"]),
            (&json!("game.added"), &json!("Beta"))
        );
        let unsubscribed = socket.ask(ask("unsubscribe")).await;
        assert_eq!(unsubscribed["message"], "Unsubscribed from game_updates");
    })
    .await;
}

#[tokio::test]
async fn the_status_is_an_error_while_the_database_does_not_answer() {
    run(async |app| {
        // Nothing else uses the pool of this app: closing it is like a database that is gone.
        app.app().db.pool().close().await;

        let status = app.get("/api/status").await;

        assert_eq!(status.status, 500);
        let body = status.json();
        assert_eq!((&body["service"], &body["status"]), (&json!("revwallet"), &json!("ERROR")));
        assert_eq!(body["details"], "the database does not respond");
    })
    .await;
}

//! The examples of `docs/realtime.md` run as they are written.

use serde_json::{Value, json};

use super::deposit;
use crate::harness::examples::{assert_alike, read};
use crate::harness::run;

/// Returns the JSON of every code block.
fn blocks(document: &str) -> Vec<Value> {
    let blocks = document.split("```json\n").skip(1);
    blocks.map(|rest| serde_json::from_str(rest.split("\n```").next().unwrap()).unwrap()).collect()
}

/// Returns every frame that stands in a line of text.
fn inline(document: &str) -> Vec<&str> {
    document.split('`').filter(|code| code.starts_with("{\"")).collect()
}

#[tokio::test]
async fn the_examples_of_the_documentation_work() {
    run(async |app| {
        let document = read("docs/realtime.md");
        let blocks = blocks(&document);
        let [subscribe, event, subscribe_after] = &blocks[..] else { panic!("{blocks:?}") };
        let frames = inline(&document);
        assert_eq!(app.open_wallet("EUR", "1").await, "1", "the wallet of the examples");
        let mut socket = app.socket().await;

        let reply = socket.ask(subscribe.clone()).await;
        let subscribed = frames.iter().find(|frame| frame.contains("Subscribed to")).unwrap();
        assert_eq!(reply, serde_json::from_str::<Value>(subscribed).unwrap());
        deposit(app, "1", "2.50").await;
        let received = socket.json().await;
        assert_alike(&received, event, "");
        for name in ["/topic", "/type", "/data/amount", "/data/available", "/data/currency"] {
            assert_eq!(received.pointer(name), event.pointer(name), "{name}");
        }

        // The position of the document belongs to another installation.
        let reply = socket.ask(subscribe_after.clone()).await;
        let unrecoverable = frames.iter().find(|frame| frame.contains("unrecoverable")).unwrap();
        let example: Value = serde_json::from_str(unrecoverable).unwrap();
        assert_alike(&reply, &example, "");
        assert_eq!(reply["error"], example["error"]);
        let mut again = subscribe_after.clone();
        again["after"] = received["position"].clone();
        assert_eq!(socket.ask(again).await["message"], "Subscribed to wallet:1");

        let mut actions = 0;
        for frame in frames.iter().filter(|frame| frame.contains(r#""action""#)) {
            let reply = socket.ask(serde_json::from_str(frame).unwrap()).await;
            let is_authenticate = frame.contains("authenticate");
            let expected = if is_authenticate { "unauthenticated" } else { "" };
            assert_eq!(reply["error"].as_str().unwrap_or_default(), expected, "{frame}: {reply}");
            actions += 1;
        }
        assert_eq!(actions, 2, "authenticate and unsubscribe");
    })
    .await;
}

#[tokio::test]
async fn the_examples_for_older_clients_work() {
    run(async |app| {
        let document = read("docs/realtime.md");
        let frames = inline(&document);
        let change = frames.iter().find(|frame| frame.contains("change_game")).unwrap();
        let send = frames.iter().find(|frame| frame.contains("send_message")).unwrap();
        let server = app.api_key(&[revwallet::auth::Scope::EventsWrite]).await;
        let mut socket = server.socket().await;

        for frame in [change, send] {
            socket.send(serde_json::from_str(frame).unwrap()).await;
        }

        let frame = socket.json().await;
        assert_eq!(frame["type"], "new_message");
        let payload = &frame["payload"];
        assert_eq!(payload["message"], json!("..."));
        for member in payload.as_object().unwrap().keys() {
            assert!(document.contains(&format!("\"{member}\"")), "{member} is not documented");
        }

        let path = "/ws?event_type=outcomes&userID=2";
        assert!(document.contains(path));
        let mut socket = app.socket_at(path).await;
        let event = |user: &str| json!({ "type": "game-outcome", "game": "chess", "user": user });
        for user in ["3", "2"] {
            assert_eq!(server.post("/api/events", event(user)).await.status, 202);
        }
        assert_eq!(socket.json().await["data"]["user"], "2");
    })
    .await;
}

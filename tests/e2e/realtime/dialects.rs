//! Conversations of each dialect, frame by frame.

use std::time::Duration;

use revwallet::auth::Scope;
use serde_json::json;

use super::{append, deposit};
use crate::harness::run;

#[tokio::test]
async fn a_subscriber_gets_the_transfers_of_its_wallet() {
    run(async |app| {
        let [own, other] = [app.open_wallet("EUR", "1").await, app.open_wallet("EUR", "1").await];
        let mut socket = app.socket().await;
        let topic = format!("wallet:{own}");

        socket.subscribe(&topic).await;
        deposit(app, &other, "5.00").await;
        deposit(app, &own, "2.50").await;
        let event = socket.json().await;

        let members: Vec<_> = event.as_object().unwrap().keys().collect();
        assert_eq!(members, ["at", "data", "position", "topic", "type"]);
        assert_eq!((&event["topic"], &event["type"]), (&json!(topic), &json!("transfer.deposit")));
        assert_eq!(event["data"]["amount"], 2.5);
        assert_eq!(event["data"]["available"], 3.5);
        assert_eq!(event["data"]["wallet"], own);
        let trace = app.get(&format!("/wallet/{own}/history")).await.json()[0]["trace_id"].clone();
        assert_eq!(event["data"]["trace_id"], trace);

        let reply = socket.ask(json!({ "action": "unsubscribe", "topic": topic })).await;
        assert_eq!(reply, json!({ "message": format!("Unsubscribed from {topic}") }));
        deposit(app, &own, "1.00").await;
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn a_hold_shows_both_parts_of_the_balance() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10").await;
        let mut socket = app.socket().await;
        socket.subscribe(&format!("wallet:{wallet}")).await;

        let hold = app.post("/wallet/hold", json!({ "id": wallet, "amount": "4" })).await;
        let event = socket.json().await;
        assert_eq!(event["type"], "transfer.hold");
        assert_eq!(event["data"]["available"], 6.0);
        assert_eq!(event["data"]["held"], 4.0);

        let id = hold.json()["id"].as_str().unwrap().to_owned();
        app.post(&format!("/wallet/hold/{id}/capture"), json!({})).await;
        let event = socket.json().await;
        assert_eq!(
            (&event["type"], &event["data"]["available"]),
            (&json!("transfer.capture"), &json!(null))
        );
        assert_eq!(event["data"]["held"], 0.0);
    })
    .await;
}

#[tokio::test]
async fn events_of_the_event_table_reach_their_topic() {
    run(async |app| {
        let mut socket = app.socket().await;
        socket.subscribe("game_updates").await;
        socket.subscribe("outcomes").await;

        append(app, "game_updates", &json!({ "type": "game.added", "data": { "gameId": 1 } }))
            .await;
        let event = socket.json().await;
        assert_eq!(
            (&event["topic"], &event["type"]),
            (&json!("game_updates"), &json!("game.added"))
        );
        assert_eq!(event["data"], json!({ "gameId": 1 }));

        append(app, "game-outcomes", &json!({ "type": "game-outcome", "data": {} })).await;
        assert_eq!(socket.json().await["topic"], "game-outcomes", "`outcomes` is an alias");
    })
    .await;
}

#[tokio::test]
async fn every_faulty_frame_is_answered_and_the_connection_stays() {
    run(async |app| {
        let mut socket = app.socket().await;
        let faulty = [
            ("{", "malformed-json"),
            ("[]", "invalid"),
            ("{}", "invalid"),
            (r#"{"action":"dance"}"#, "invalid"),
            (r#"{"action":"subscribe"}"#, "invalid"),
            (r#"{"action":"subscribe","topic":"nothing"}"#, "not-found"),
            (r#"{"action":"subscribe","topic":"internal:revoked"}"#, "not-found"),
            (r#"{"action":"subscribe","topic":"wallet:999999"}"#, "not-found"),
            (r#"{"action":"subscribe","topic":"game_updates","after":"x"}"#, "invalid"),
            (r#"{"action":"subscribe","topic":"game_updates","extra":1}"#, "invalid"),
            (r#"{"action":"unsubscribe","topic":"game_updates"}"#, "invalid"),
            (r#"{"action":"authenticate","token":"nonsense"}"#, "unauthenticated"),
            (r#"{"type":"change_game","payload":{"name":"x"}}"#, "invalid"),
        ];
        for (frame, slug) in faulty {
            socket.send_text(frame).await;
            let reply = socket.json().await;
            assert_eq!(reply["error"], slug, "{frame}: {reply}");
            assert!(
                reply["details"].is_string() && reply.as_object().unwrap().len() == 2,
                "{reply}"
            );
        }

        let large = format!(r#"{{"action":"{}"}}"#, "x".repeat(16 * 1024));
        socket.send_text(&large).await;
        assert_eq!(socket.json().await["error"], "frame-too-large");
        socket.send_bytes(vec![0, 1]).await;
        assert_eq!(socket.json().await["error"], "invalid");
        socket.subscribe("game_updates").await;
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_is_far_too_large_closes_the_connection() {
    run(async |app| {
        let mut socket = app.socket().await;

        socket.send_text(&"x".repeat(70_000)).await;

        assert_eq!(u16::from(socket.closed().await.code), 1009);
    })
    .await;
}

#[tokio::test]
async fn a_silent_client_is_subscribed_to_game_progress() {
    run(async |app| {
        let mut socket = app.socket().await;
        // The default begins 200 ms after the connection.
        tokio::time::sleep(Duration::from_millis(400)).await;

        let text = "User 2 added 1.00 amount to wallet. Current wallet balance is 1.00";
        let body = json!({ "type": "game-progress", "data": {}, "text": text });
        append(app, "gameprogress-event", &json!({ "type": "silent", "data": {} })).await;
        append(app, "gameprogress-event", &body).await;
        let frame = socket.json().await;

        assert_eq!(frame["type"], "new_message");
        assert_eq!(frame["payload"]["message"], text);
        assert_eq!(frame["payload"]["gameEvent"], "gameprogress-event");
        let sent = frame["payload"]["sent"].as_str().unwrap();
        assert!(sent.len() == 30 && sent.ends_with('Z'), "nanoseconds: {sent}");
        assert_eq!(frame.as_object().unwrap().len(), 2, "{frame}");
        assert_eq!(frame["payload"].as_object().unwrap().len(), 3, "{frame}");
    })
    .await;
}

#[tokio::test]
async fn a_client_of_the_types_dialect_changes_its_one_subscription() {
    run(async |app| {
        let message = |text: &str| json!({ "type": "t", "data": {}, "text": text });
        let mut socket = app.socket().await;
        let change =
            json!({ "type": "change_game", "payload": { "name": "leaderboard-game-event" } });
        socket.send(change).await;
        // Whatever else it says is met with silence.
        for frame in
            ["{", r#"{"type":"nonsense"}"#, r#"{"type":"change_game","payload":{"name":"x"}}"#]
        {
            socket.send_text(frame).await;
        }
        crate::harness::eventually("the subscription exists", async || {
            app.internal.get("/metrics").await.text.contains("wallet_ws_subscriptions 1")
        })
        .await;

        append(app, "gameprogress-event", &message("not this")).await;
        append(app, "leaderboard-game-event", &message("but this")).await;

        let frame = socket.json().await;
        assert_eq!(frame["payload"]["message"], "but this");
        assert_eq!(frame["payload"]["gameEvent"], "leaderboard-game-event");
    })
    .await;
}

#[tokio::test]
async fn only_a_game_server_can_send_messages() {
    run(async |app| {
        let mut listener = app.socket().await;
        listener.subscribe("leaderboard-game-event").await;
        let publisher = app.api_key(&[Scope::EventsWrite]).await;
        let change =
            json!({ "type": "change_game", "payload": { "name": "leaderboard-game-event" } });
        let send = |text: &str| json!({ "type": "send_message", "payload": { "message": text } });

        let mut stranger = app.socket().await;
        stranger.send(change.clone()).await;
        stranger.send(send("from a stranger")).await;
        let mut server = publisher.socket().await;
        server.send(change).await;
        server.send(send("from the server")).await;

        let event = listener.json().await;
        assert_eq!(event["data"]["message"], "from the server");
        assert_eq!(server.json().await["payload"]["message"], "from the server");
    })
    .await;
}

#[tokio::test]
async fn the_first_action_ends_the_default_subscription() {
    run(async |app| {
        let mut socket = app.socket().await;
        tokio::time::sleep(Duration::from_millis(400)).await;

        socket.subscribe("game_updates").await;
        append(app, "gameprogress-event", &json!({ "type": "t", "data": {}, "text": "x" })).await;
        append(app, "game_updates", &json!({ "type": "game.added", "data": {} })).await;

        assert_eq!(socket.json().await["topic"], "game_updates");
    })
    .await;
}

#[tokio::test]
async fn the_query_subscribes_at_once_and_filters_by_player() {
    run(async |app| {
        let mut socket = app.socket_at("/ws?event_type=outcomes&userID=2").await;
        crate::harness::eventually("the subscription exists", async || {
            app.internal.get("/metrics").await.text.contains("wallet_ws_subscriptions 1")
        })
        .await;
        for player in ["1", "2"] {
            let body = json!({ "type": "game-outcome", "data": {}, "player": player });
            append(app, "game-outcomes", &body).await;
        }
        append(app, "game-outcomes", &json!({ "type": "last", "data": {}, "player": "2" })).await;

        assert_eq!(socket.json().await["type"], "game-outcome");
        assert_eq!(socket.json().await["type"], "last");

        let refused = app.get("/ws?event_type=outcomes").await;
        refused.problem(426, "upgrade-required");
        for query in ["event_type=nothing", "userID=x", "other=1"] {
            let error = app.try_socket(&format!("/ws?{query}"), &[]).await.err().unwrap();
            assert!(error.to_string().contains("422"), "{query}: {error}");
        }
    })
    .await;
}

//! Replay: what was missed since a position, without gap or duplicate; and positions that cannot be continued.

use std::time::Duration;

use serde_json::json;

use super::{amount, append, cents, deposit, position_of};
use crate::harness::{TestApp, eventually, run, run_with};

#[tokio::test]
async fn a_subscription_after_a_read_misses_nothing() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let position = position_of(app, &wallet).await;
        for cents in 1..=5 {
            deposit(app, &wallet, &format!("0.0{cents}")).await;
        }
        let mut socket = app.socket().await;

        socket.subscribe_after(&format!("wallet:{wallet}"), &position).await;
        deposit(app, &wallet, "0.06").await;

        for cents in 1..=6 {
            assert_eq!(amount(&socket.json().await), format!("0.0{cents}"));
        }
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn a_subscription_after_an_event_goes_on_behind_it() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let topic = format!("wallet:{wallet}");
        let mut socket = app.socket().await;
        socket.subscribe(&topic).await;
        deposit(app, &wallet, "0.01").await;
        let seen = socket.json().await;
        drop(socket);
        for cents in 2..=4 {
            deposit(app, &wallet, &format!("0.0{cents}")).await;
        }
        append(app, "game_updates", &json!({ "type": "other", "data": {} })).await;

        let mut socket = app.socket().await;
        socket.subscribe_after(&topic, seen["position"].as_str().unwrap()).await;

        for cents in 2..=4 {
            assert_eq!(amount(&socket.json().await), format!("0.0{cents}"));
        }
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn missed_events_of_the_event_table_are_replayed_in_order() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let position = position_of(app, &wallet).await;
        for number in 0..2_500 {
            let body = json!({ "type": "game.updated", "data": number });
            if number % 500 == 0 {
                append(app, "game_updates", &body).await;
            } else {
                let mut db = app.app().db.acquire("test").await.unwrap();
                let body = serde_json::value::to_raw_value(&body).unwrap();
                revwallet::ledger::tail::append_event(&mut db, "game_updates", &body, None)
                    .await
                    .unwrap();
            }
        }
        let mut socket = app.socket().await;

        socket.subscribe_after("game_updates", &position).await;

        for number in 0..2_500 {
            assert_eq!(socket.json().await["data"], number);
        }
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn a_long_absence_is_replayed_page_by_page() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "10000").await;
        let other = app.open_wallet("EUR", "0").await;
        let position = position_of(app, &wallet).await;
        for _ in 0..4 {
            let transfer = json!({ "from": wallet, "to": other, "amount": "0.01" });
            let body = json!({ "atomic": true, "transfers": vec![transfer; 700] });
            assert_eq!(app.post("/wallet/batch", body).await.status, 201);
        }
        let mut socket = app.socket().await;

        socket.subscribe_after(&format!("wallet:{other}"), &position).await;

        for number in 1..=2_800 {
            let event = socket.json().await;
            assert_eq!(cents(&event["data"]["available"]), number);
        }
        socket.is_silent().await;
    })
    .await;
}

/// Subscribes after a position that cannot be continued, and checks that the answer says so.
async fn assert_unrecoverable(app: &TestApp, wallet: &str, position: &str) {
    let mut socket = app.socket().await;
    let topic = format!("wallet:{wallet}");
    let frame = json!({ "action": "subscribe", "topic": topic, "after": position });
    let reply = socket.ask(frame).await;

    assert_eq!(reply["error"], "unrecoverable", "{reply}");
    assert!(reply["details"].is_string(), "{reply}");
    let now = reply["position"].as_str().unwrap();
    socket.subscribe_after(&topic, now).await;
    deposit(app, wallet, "0.01").await;
    assert_eq!(amount(&socket.json().await), "0.01");
}

#[tokio::test]
async fn a_position_of_another_installation_is_unrecoverable() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let before = position_of(app, &wallet).await;

        revwallet::app::after_restore::prepare(&app.app().db, &app.app().metrics).await.unwrap();

        assert_unrecoverable(app, &wallet, &before).await;
    })
    .await;
}

#[tokio::test]
async fn a_position_ahead_of_the_book_is_unrecoverable() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let position = position_of(app, &wallet).await;
        let mut parts: Vec<&str> = position.split('.').collect();
        parts[2] = "999999";

        assert_unrecoverable(app, &wallet, &parts.join(".")).await;
    })
    .await;
}

#[tokio::test]
async fn a_position_whose_batch_was_lost_is_unrecoverable() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let position = position_of(app, &wallet).await;
        let mut parts: Vec<&str> = position.split('.').collect();
        parts[3] = "0123456789ab";

        assert_unrecoverable(app, &wallet, &parts.join(".")).await;
    })
    .await;
}

#[tokio::test]
async fn a_position_older_than_the_retention_is_unrecoverable() {
    run_with(&["--event-retention=1s"], async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let position = position_of(app, &wallet).await;
        deposit(app, &wallet, "1.00").await;
        tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;

        assert_unrecoverable(app, &wallet, &position).await;
    })
    .await;
}

#[tokio::test]
async fn a_position_before_deleted_events_is_unrecoverable() {
    run(async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let position = position_of(app, &wallet).await;
        append(app, "game_updates", &json!({ "type": "old", "data": {} })).await;
        let tail = &app.app().tail;
        let count = async || {
            let mut db = app.database.connect().await;
            let count = "select count(*) from ledger.event where topic = 'game_updates'";
            sqlx::query_scalar::<_, i64>(count).fetch_one(&mut db).await.unwrap()
        };

        // The newest event stays: it marks how far the table has come.
        append(app, "game_updates", &json!({ "type": "new", "data": {} })).await;
        // Transactions of other tests on the same server hold back what may be deleted.
        eventually("the old event is deleted", async || {
            revwallet::realtime::retention::prune(tail, Duration::ZERO).await.unwrap();
            count().await < 2
        })
        .await;
        assert_unrecoverable(app, &wallet, &position).await;
    })
    .await;
}

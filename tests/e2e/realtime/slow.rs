//! Slow clients: a pause is survived, a stall ends with code 4008, and neither costs more than the budget.

use std::time::Duration;

use serde_json::Value;

use super::{deposit, position_of};
use crate::harness::{TestApp, run_with};

/// Length of the data of each event.
const PAYLOAD: usize = 40_000;

/// Appends numbered events that are large enough to fill the buffers of the kernel quickly.
async fn flood(app: &TestApp, numbers: std::ops::Range<usize>) {
    let mut db = app.database.connect().await;
    let insert = "
        insert into ledger.event (book, topic, body)
        select 1, 'game_updates', json_build_object(
            'type', 'flood', 'data', json_build_object('number', n, 'text', repeat('x', $3)))
        from generate_series($1, $2 - 1) n";
    for start in numbers.clone().step_by(100) {
        sqlx::query(insert)
            .bind(i32::try_from(start).unwrap())
            .bind(i32::try_from(numbers.end.min(start + 100)).unwrap())
            .bind(i32::try_from(PAYLOAD).unwrap())
            .execute(&mut db)
            .await
            .unwrap();
    }
    sqlx::query("select pg_notify('event', '1')").execute(&mut db).await.unwrap();
}

#[tokio::test]
async fn a_client_that_pauses_gets_everything_afterwards() {
    run_with(&["--realtime-queue-bytes=100000", "--realtime-grace=1m"], async |app| {
        let mut socket = app.socket().await;
        socket.subscribe("game_updates").await;

        flood(app, 0..300).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        flood(app, 300..350).await;

        for number in 0..350 {
            assert_eq!(socket.json().await["data"]["number"], number);
        }
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_stalls_is_closed_with_its_last_position() {
    let settings = ["--realtime-queue-bytes=100000", "--realtime-grace=1s"];
    run_with(&settings, async |app| {
        let wallet = app.open_wallet("EUR", "1").await;
        let start = position_of(app, &wallet).await;
        let (mut stalled, mut quick) = (app.narrow_socket().await, app.socket().await);
        stalled.subscribe_after("game_updates", &start).await;
        quick.subscribe(&format!("wallet:{wallet}")).await;

        flood(app, 0..400).await;
        crate::harness::eventually("the stalled client is dropped", async || {
            let metrics = app.internal.get("/metrics").await.text;
            metrics.contains(r#"wallet_ws_dropped_total{reason="slow_consumer"} 1"#)
        })
        .await;
        deposit(app, &wallet, "0.01").await;
        assert_eq!(quick.json().await["topic"], format!("wallet:{wallet}"));

        // The client wakes up: it gets what was on its way, and then the reason.
        let mut seen = Vec::new();
        let close = loop {
            match stalled.message().await {
                tokio_tungstenite::tungstenite::Message::Text(text) => {
                    let event: Value = serde_json::from_str(&text).unwrap();
                    seen.push(event["data"]["number"].as_u64().unwrap());
                }
                tokio_tungstenite::tungstenite::Message::Close(frame) => break frame.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(u16::from(close.code), 4008);
        assert!(seen.len() < 400, "the client was too quick for this test");

        let mut again = app.socket().await;
        again.subscribe_after("game_updates", close.reason.as_str()).await;
        while seen.len() < 400 {
            seen.push(again.json().await["data"]["number"].as_u64().unwrap());
        }
        assert_eq!(seen, (0..400).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_stalled_client_costs_at_most_its_budget() {
    run_with(&["--realtime-queue-bytes=100000", "--realtime-grace=1m"], async |app| {
        let mut stalled = app.socket().await;
        stalled.subscribe("game_updates").await;
        let queued = async || {
            let metrics = app.internal.get("/metrics").await.text;
            let line = metrics.lines().find(|line| line.starts_with("wallet_ws_queue_bytes "));
            line.unwrap().split(' ').next_back().unwrap().parse::<usize>().unwrap()
        };

        for round in 0..6 {
            flood(app, round * 100..round * 100 + 100).await;
            tokio::time::sleep(Duration::from_millis(1_100)).await;
            let bytes = queued().await;
            assert!(bytes <= 100_000, "{bytes} bytes");
        }

        // A transaction of another test can hold the events back for a while.
        crate::harness::eventually("events wait for the client", async || {
            let bytes = queued().await;
            assert!(bytes <= 100_000, "{bytes} bytes");
            bytes > 0
        })
        .await;
        drop(stalled);
        crate::harness::eventually("its queue is gone", async || {
            app.internal.get("/metrics").await.text.contains("wallet_ws_queue_bytes 0")
        })
        .await;
    })
    .await;
}

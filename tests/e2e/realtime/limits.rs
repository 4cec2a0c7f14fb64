//! Limits: subscriptions of a connection, connections of an address and of the process; and reading nothing while idle.

use serde_json::json;

use super::{append, deposit};
use crate::harness::{eventually, run, run_with};

#[tokio::test]
async fn a_connection_has_a_limit_of_subscriptions() {
    run_with(&["--realtime-subscriptions-max=2"], async |app| {
        let mut socket = app.socket().await;
        socket.subscribe("game_updates").await;
        socket.subscribe("outcomes").await;

        let reply =
            socket.ask(json!({ "action": "subscribe", "topic": "leaderboard-changes" })).await;
        assert_eq!(reply["error"], "too-many-subscriptions");

        // The same topic again replaces its subscription.
        socket.subscribe("outcomes").await;
        append(app, "game-outcomes", &json!({ "type": "once", "data": {} })).await;
        assert_eq!(socket.json().await["type"], "once");
        socket.is_silent().await;
    })
    .await;
}

#[tokio::test]
async fn an_address_and_the_process_have_limits_of_connections() {
    let settings = [
        "--realtime-connections-per-address=2",
        "--realtime-connections-max=3",
        "--trusted-proxies=127.0.0.1",
    ];
    run_with(&settings, async |app| {
        let from =
            async |address: &str| app.try_socket("/ws", &[("x-forwarded-for", address)]).await;
        let first = from("1.1.1.1").await.unwrap();
        let _second = from("1.1.1.1").await.unwrap();

        let error = from("1.1.1.1").await.err().unwrap();
        assert!(error.to_string().contains("503"), "{error}");
        let _other = from("2.2.2.2").await.unwrap();
        assert!(from("3.3.3.3").await.is_err());

        drop(first);
        eventually("the connection is counted no more", async || from("1.1.1.1").await.is_ok())
            .await;
    })
    .await;
}

#[tokio::test]
async fn the_book_is_read_only_while_a_subscription_or_a_credential_needs_it() {
    run(async |app| {
        let reads = async || {
            let metrics = app.internal.get("/metrics").await.text;
            let line = metrics.lines().find(|line| line.contains(r#"live_reads_total{by="hub"}"#));
            line.unwrap().split(' ').next_back().unwrap().parse::<u64>().unwrap()
        };
        let wallet = app.open_wallet("EUR", "1").await;
        let mut socket = app.socket().await;
        // Any frame prevents the default subscription of a silent client.
        socket.ask(json!({ "action": "unsubscribe", "topic": "game_updates" })).await;
        deposit(app, &wallet, "1.00").await;
        assert_eq!(reads().await, 0);

        let topic = format!("wallet:{wallet}");
        socket.subscribe(&topic).await;
        deposit(app, &wallet, "1.00").await;
        socket.json().await;
        assert!(reads().await > 0);

        socket.ask(json!({ "action": "unsubscribe", "topic": topic })).await;
        deposit(app, &wallet, "1.00").await;
        let mut last = u64::MAX;
        eventually("the hub has stopped to read", async || {
            tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
            let now = reads().await;
            std::mem::replace(&mut last, now) == now
        })
        .await;
    })
    .await;
}

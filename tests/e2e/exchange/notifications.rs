//! Notifications: mail at a real SMTP server, webhooks, and WebSocket events.

use std::collections::BTreeSet;

use revwallet::auth::Scope;
use serde_json::json;

use super::{buy, fault, order_id, reaches, trader};
use crate::harness::receiver::{Delivery, Receiver};
use crate::harness::smtp::MailServer;
use crate::harness::{eventually, run, run_with};
use crate::webhook::subscribe;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_told_by_mail_once_the_server_takes_it() {
    let server = MailServer::reserve();
    let url = format!("--smtp-url=smtp://{}", server.address());
    run_with(&[&url, "--mail-from=exchange@example.com"], async |app| {
        let ada = trader(app, "ada", 100_000).await;
        let completed = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        reaches(&ada, completed, "completed").await;
        // Nothing listens yet: the first attempts fail.
        eventually("an attempt has failed", async || {
            let metrics = app.internal.get("/metrics").await.text;
            metrics.contains(r#"wallet_saga_notifications_total{outcome="failed"} "#)
                && !metrics.contains(r#"wallet_saga_notifications_total{outcome="failed"} 0"#)
        })
        .await;
        let _process = server.start().await;
        fault(app, "exchange-do", "refused", 1).await;
        let failed = order_id(&buy(&ada, json!({ "fiat_amount": 20 })).await);
        reaches(&ada, failed, "failed").await;
        let mut messages = Vec::new();
        eventually("both messages have arrived", async || {
            messages = server.messages();
            messages.len() >= 2
        })
        .await;
        let find = |text: &str| {
            let found = messages.iter().find(|message| message.contains(text));
            found.unwrap_or_else(|| panic!("no {text}: {messages:?}"))
        };
        let message = find(&format!("Subject: Your order {completed} is complete"));
        assert!(message.contains(&format!("Message-ID: <order-{completed}-")), "{message}");
        for text in [
            "To: ada@example.com",
            "From: exchange@example.com",
            "text/plain",
            "text/html",
            "3.00000000 BTC are in your wallet.",
        ] {
            assert!(message.contains(text), "{text}: {message}");
        }
        let message = find(&format!("Subject: Your order {failed} could not be carried out"));
        assert!(message.contains("20.00 EUR are back in your wallet."), "{message}");
        let mut db = app.database.connect().await;
        eventually("both are marked as sent", async || {
            let sent = "select count(*) from saga where notification = 'sent' and run_at is null";
            sqlx::query_scalar::<_, i64>(sent).fetch_one(&mut db).await.unwrap() == 2
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_has_its_mail_after_the_server_was_killed() {
    const ORDERS: usize = 40;
    let server = MailServer::reserve();
    let url = format!("--smtp-url=smtp://{}", server.address());
    run_with(&[&url, "--mail-from=exchange@example.com"], async |app| {
        let ada = trader(app, "ada", 100_000).await;
        let mut process = Some(server.start().await);
        let mut ids = BTreeSet::new();
        for n in 0..ORDERS {
            ids.insert(order_id(&buy(&ada, json!({ "fiat_amount": 5 })).await));
            if n % 10 == 5 {
                eventually("mail arrives", async || !server.messages().is_empty()).await;
                process = None;
            } else if n % 10 == 9 {
                process = Some(server.start().await);
            }
        }
        for &id in &ids {
            reaches(&ada, id, "completed").await;
        }
        let mut db = app.database.connect().await;
        eventually("every order is marked as notified", async || {
            let sent = "select count(*) from saga where notification = 'sent'";
            let sent = sqlx::query_scalar::<_, i64>(sent).fetch_one(&mut db).await.unwrap();
            sent == i64::try_from(ORDERS).unwrap()
        })
        .await;
        drop(process);
        // What was sent twice is recognized by its id.
        let message_ids: BTreeSet<String> = server
            .messages()
            .iter()
            .map(|message| {
                let id = message.lines().find_map(|line| line.strip_prefix("Message-ID: "));
                id.unwrap().to_owned()
            })
            .collect();
        let named: BTreeSet<i64> =
            message_ids.iter().map(|id| id.split('-').nth(1).unwrap().parse().unwrap()).collect();
        assert_eq!((message_ids.len(), named), (ORDERS, ids));
    })
    .await;
}

#[tokio::test]
async fn a_notification_that_waits_is_sent_when_it_is_asked_for() {
    let server = MailServer::reserve();
    let url = format!("--smtp-url=smtp://{}", server.address());
    run_with(&[&url, "--mail-from=exchange@example.com"], async |app| {
        let ada = trader(app, "ada", 100_000).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        reaches(&ada, id, "completed").await;
        // As after many failed attempts; the fence ends one that is under way.
        app.database
            .execute("update saga set run_at = now() + interval '1 hour', fence = fence + 1, notification_attempts = 12")
            .await;
        let _process = server.start().await;
        let key = app.api_key(&[Scope::Admin]).await;
        let admin = app.internal.with_credential(key.credential());
        let sent = admin.post(&format!("/internal/notification/send/{id}"), json!({})).await;
        assert_eq!(sent.status, 200, "{}", sent.text);
        eventually("the message has arrived", async || !server.messages().is_empty()).await;
    })
    .await;
}

#[tokio::test]
async fn an_order_is_followed_on_a_websocket_by_its_user() {
    run(async |app| {
        let (ada, bob) = (trader(app, "ada", 100_000).await, trader(app, "bob", 0).await);
        fault(app, "exchange-do", "lost", 1).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        let topic = format!("order:{id}");
        let mut stranger = bob.socket().await;
        let refused = stranger.ask(json!({ "action": "subscribe", "topic": topic })).await;
        assert_eq!(refused["error"], "not-found", "{refused}");
        let mut socket = ada.socket().await;
        socket.subscribe(&topic).await;
        let mut last = json!(null);
        while last["type"] != "order.completed" {
            last = socket.json().await;
        }
        assert_eq!(last["data"], json!({
            "order_id": id, "state": "completed", "step": "withdraw", "step_state": "done", "reason": null
        }));
    })
    .await;
}

#[tokio::test]
async fn webhooks_receive_the_states_of_an_order() {
    run_with(&["--webhook-allow-private"], async |app| {
        let ada = trader(app, "ada", 100_000).await;
        let receiver = Receiver::start().await;
        subscribe(&ada, &receiver, json!(["order.pending", "order.completed"])).await;
        let id = order_id(&buy(&ada, json!({ "fiat_amount": 30 })).await);
        let mut kinds = Vec::new();
        eventually("both events have arrived", async || {
            let deliveries = receiver.deliveries();
            let bodies = deliveries.iter().map(Delivery::json);
            kinds =
                bodies.map(|body| body["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
            kinds.len() >= 2
        })
        .await;
        assert_eq!(kinds, ["order.pending", "order.completed"]);
        assert_eq!(receiver.deliveries()[1].json()["data"]["order_id"], id);
    })
    .await;
}

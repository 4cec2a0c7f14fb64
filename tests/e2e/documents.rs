//! Documents for integrators: their commands run as they are written, and answer as the documents say.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::examples::{Transcript, assert_alike, blocks, read};
use crate::harness::receiver::Receiver;
use crate::harness::{TestApp, eventually, run, run_with};
use crate::webhook::subscribe;

/// Runs the commands of a document against a server with the options that it names.
async fn assert_answers_as_written(document: &str, steps_min: usize) {
    let transcript = Transcript::read(document);
    let options: Vec<&str> = transcript.server_options.iter().map(String::as_str).collect();
    assert!(options.contains(&"--access"), "{document} says how to start the server");
    run_with(&options, async |app| {
        let steps = app.run_transcript(&transcript, &[]).await;
        assert!(steps >= steps_min, "{document} has {steps} steps");
    })
    .await;
}

#[tokio::test]
async fn the_guide_for_games_answers_as_written() {
    assert_answers_as_written("docs/guides/game.md", 14).await;
}

#[tokio::test]
async fn the_guide_for_shops_answers_as_written() {
    assert_answers_as_written("docs/guides/shop.md", 14).await;
}

#[tokio::test]
async fn the_guide_for_payouts_answers_as_written() {
    assert_answers_as_written("docs/guides/payouts.md", 11).await;
}

#[tokio::test]
async fn the_api_page_answers_as_written() {
    assert_answers_as_written("docs/api.md", 20).await;
}

#[tokio::test]
async fn a_wrong_answer_or_a_failing_command_is_detected() {
    run(async |app| {
        let status = "```sh\ncurl -s localhost:8080/api/status | jq -r .status\n```\n";
        for (document, is_right) in [
            (format!("{status}```text\nOK\n```"), true),
            (format!("{status}```text\nERROR\n```"), false),
            (format!("{status}```text\nOK\nOK\n```"), false),
            ("```sh\ncurl -sf localhost:8080/nope\n```".to_owned(), false),
            ("```sh\nexit\n```\n```text\n```\n```sh\necho 1\n```\n".to_owned(), false),
            (
                "```sh\necho '{\"amount\":1.00}'\n```\n```json\n{\"amount\":1.0}\n```".to_owned(),
                false,
            ),
            ("```sh\ndate +%FT%TZ\n```\n```text\n2026-01-31T12:00:00Z\n```".to_owned(), true),
            ("```sh\ndate +%FT%TZ\n```\n```text\n2026-01-31\n```".to_owned(), false),
        ] {
            let result = app.try_transcript(&Transcript::parse(&document), &[]).await;
            assert_eq!(result.is_ok(), is_right, "{document}: {result:?}");
        }
    })
    .await;
}

/// Causes an event of each family that has a payload of its own.
async fn trade_and_play(app: &TestApp) {
    let (user, admin) = (app.user("ada").await, app.api_key(&[Scope::Admin]).await);
    let wallet = format!("/exchange/wallet/{}", user.id);
    let created = user.send(user.request(http::Method::POST, &wallet)).await;
    assert_eq!(created.status, 200, "{}", created.text);
    let deposit = json!({ "userId": user.id, "amount": 60_000 });
    assert_eq!(admin.post("/api/wallet/deposit", deposit).await.status, 200);
    let order =
        user.post(&format!("/exchange/buy/{}", user.id), json!({ "fiat_amount": 30 })).await;
    assert_eq!(order.status, 200, "{}", order.text);
    let game = json!({
        "title": "Alpha", "genre": "puzzle", "price": "19.99", "description": "The first game"
    });
    let game = admin.post("/api/games", game).await;
    assert_eq!(game.status, 201, "{}", game.text);
    let purchase = user.post("/api/games/1/purchase", json!({})).await;
    assert_eq!(purchase.status, 201, "{}", purchase.text);
}

#[tokio::test]
async fn the_payloads_of_the_api_page_are_those_of_the_server() {
    run_with(&["--webhook-allow-private"], async |app| {
        let document = read("docs/api.md");
        let blocks = blocks(&document).into_iter().filter(|block| block.language == "json");
        let values = blocks.filter_map(|block| serde_json::from_str::<Value>(&block.code).ok());
        let payloads: Vec<Value> = values.filter(|value| value["timestamp"].is_string()).collect();
        assert!(payloads.len() >= 3, "{payloads:?}");
        let receiver = Receiver::start().await;
        subscribe(&app.api_key(&[Scope::WalletRead]).await, &receiver, json!(["*"])).await;

        trade_and_play(app).await;

        for payload in payloads {
            let find = || {
                let mut bodies = receiver.deliveries().into_iter().map(|delivery| delivery.json());
                bodies.find(|body| body["type"] == payload["type"])
            };
            eventually(&format!("{} arrives", payload["type"]), async || find().is_some()).await;
            assert_alike(&find().unwrap(), &payload, "");
        }
    })
    .await;
}

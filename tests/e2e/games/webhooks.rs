//! Webhooks about the store: changes of the catalog for everyone, entitlements for those who may see them.

use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{add, buy, buyer, change, delete, refund};
use crate::harness::program::Program;
use crate::harness::receiver::Receiver;
use crate::harness::{eventually, run_with};
use crate::webhook::subscribe;

const LOCAL: &str = "--webhook-allow-private";

/// Type and game of each event of the store that arrived.
fn events(receiver: &Receiver) -> Vec<(String, i64)> {
    let event = |body: Value| {
        let data = &body["data"];
        let game = data["gameId"].as_i64().or_else(|| data["id"].as_i64())?;
        Some((body["type"].as_str()?.to_owned(), game))
    };
    receiver.deliveries().iter().filter_map(|delivery| event(delivery.json())).collect()
}

fn named(names: &[&str], game: i64) -> Vec<(String, i64)> {
    names.iter().map(|name| ((*name).to_owned(), game)).collect()
}

#[tokio::test]
async fn changes_and_entitlements_are_delivered_to_those_who_may_see_them() {
    run_with(&[LOCAL], async |app| {
        let buyer = buyer(app, "buyer", 2_000).await;
        let stranger = app.user("stranger").await;
        let admin = app.api_key(&[Scope::Admin]).await;
        let key = app.api_key(&[Scope::WalletRead]).await;
        let [own, other, all] =
            [Receiver::start().await, Receiver::start().await, Receiver::start().await];
        let entitlements = json!(["entitlement.granted", "entitlement.revoked"]);
        let webhook = subscribe(&buyer, &own, entitlements).await;
        let log = format!("/wallet/webhook/{}", webhook["id"].as_str().unwrap());
        subscribe(&stranger, &other, json!(["*"])).await;
        subscribe(&key, &all, json!(["*"])).await;

        let game = add(&admin, "Tetris", "9.99", json!({})).await;
        assert_eq!(buy(&buyer, game, json!({})).await.status, 201);
        assert_eq!(refund(&buyer, game, json!({})).await.status, 200);
        assert_eq!(change(&admin, game, json!({ "price": "5.00" })).await.status, 200);
        assert!(delete(&admin, game).await.status < 300);

        let catalog = named(&["game.added", "game.updated", "game.deleted"], game);
        let granted = named(&["entitlement.granted", "entitlement.revoked"], game);
        eventually("the user's own entitlements arrive", async || events(&own) == granted).await;
        eventually("a stranger hears of the catalog", async || events(&other) == catalog).await;
        eventually("the key hears of both", async || {
            let heard = events(&all);
            let of_store = |family: &str| {
                let mut of_family = heard.clone();
                of_family.retain(|(name, _)| name.starts_with(family));
                of_family
            };
            of_store("game.") == catalog && of_store("entitlement.") == granted
        })
        .await;
        let body = own.deliveries()[0].json();
        assert_eq!(body["data"], json!({ "gameId": game, "userId": buyer.id }));
        assert!(body["timestamp"].is_string());

        let deliveries = buyer.get(&format!("{log}/deliveries")).await.json();
        let first = &deliveries[1];
        assert_eq!(first["event"], "entitlement.granted");
        assert!(first["wallet"].is_null() && first["transfer"].is_null(), "{first}");
        let again = json!({ "delivery": first["id"] });
        assert_eq!(buyer.post(&format!("{log}/replay"), again).await.json()["deliveries"], 1);
        eventually("it is repeated", async || own.deliveries().len() == 3).await;
        assert_eq!(own.deliveries()[2].id, own.deliveries()[0].id, "a replay keeps the id");
    })
    .await;
}

#[tokio::test]
async fn two_processes_deliver_each_change_once_and_in_order() {
    run_with(&[LOCAL], async |app| {
        let url = format!("--database-url={}", app.database.url);
        let arguments = [url.as_str(), LOCAL, "--access=open", "--allow-unsafe-server"];
        let other = Program::start(&arguments).await;
        let receiver = Receiver::start().await;
        subscribe(app, &receiver, json!(["game.added"])).await;

        let mut added = Vec::new();
        for number in 0..30 {
            let client = if number % 2 == 0 { &other.public } else { &**app };
            let game = add(client, &format!("Game {number}"), "1.00", json!({})).await;
            added.push(("game.added".to_owned(), game));
        }

        eventually("all changes arrive", async || events(&receiver).len() >= added.len()).await;
        assert_eq!(events(&receiver), added);
        assert!(other.stop().await.success());
    })
    .await;
}

#[tokio::test]
async fn events_are_kept_until_they_are_on_their_way_to_webhooks() {
    run_with(&[LOCAL], async |app| {
        let receiver = Receiver::start().await;
        subscribe(app, &receiver, json!(["game.added"])).await;
        let mut db = app.database.connect().await;
        let hold =
            "update ledger.cursor set holder = gen_random_uuid(), at = now() + interval '1 hour'
            where name = 'webhook_events'";
        app.database.execute(hold).await;
        let game = add(app, "Tetris", "9.99", json!({})).await;
        let passed = "select max(xid) < ledger.event_horizon() from ledger.event";
        eventually("nothing older runs any more", async || {
            sqlx::query_scalar::<_, bool>(passed).fetch_one(&mut db).await.unwrap()
        })
        .await;
        let prune = "select ledger.prune_events(1, now() + interval '1 hour', 1000)";
        sqlx::query(prune).execute(&mut db).await.unwrap();
        let release = "update ledger.cursor set holder = null where name = 'webhook_events'";
        app.database.execute(release).await;

        let added = named(&["game.added"], game);
        eventually("the change arrives", async || events(&receiver) == added).await;
        add(app, "Pong", "9.99", json!({})).await;
        eventually("it is deleted once the reader has passed it", async || {
            sqlx::query(prune).execute(&mut db).await.unwrap();
            let left = "select count(*) from ledger.event where topic = 'game_updates'";
            sqlx::query_scalar::<_, i64>(left).fetch_one(&mut db).await.unwrap() == 1
        })
        .await;
    })
    .await;
}

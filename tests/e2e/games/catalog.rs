//! The catalog: rights, states, prices, lists and their cache.

use reqwest::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use super::{add, change, delete, game, publisher};
use crate::harness::program::{Folder, Program};
use crate::harness::{Client, run, run_with};

async fn listed(client: &Client, query: &str) -> Vec<String> {
    let list = client.get(&format!("/api/games{query}")).await;
    assert_eq!(list.status, 200, "{}", list.text);
    let list = list.json();
    let games = list["games"].as_array().unwrap().iter();
    games.map(|game| game["title"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_list_has_filters_a_search_and_pages() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "10").await;
        add(&store, "Half Life", "10", json!({ "genre": "Shooter" })).await;
        add(&store, "Half a Dozen", "5", json!({ "genre": "puzzle", "publisher": nova })).await;
        add(
            &store,
            "Portal",
            "7",
            json!({ "genre": "puzzle", "description": "By the makers of Half Life" }),
        )
        .await;
        add(&store, "Draft", "7", json!({ "state": "draft" })).await;

        assert_eq!(listed(app, "").await, ["Half Life", "Half a Dozen", "Portal"]);
        assert_eq!(listed(app, "?genre=PUZZLE").await, ["Half a Dozen", "Portal"]);
        assert_eq!(listed(app, "?q=half").await, ["Half Life", "Half a Dozen", "Portal"]);
        assert_eq!(listed(app, "?q=half+li").await, ["Half Life", "Portal"]);
        assert_eq!(listed(app, "?q=life&genre=puzzle").await, ["Portal"]);
        assert_eq!(listed(app, &format!("?publisher={nova}")).await, ["Half a Dozen"]);
        assert_eq!(listed(app, &format!("?q=half&publisher={nova}")).await, ["Half a Dozen"]);
        assert_eq!(listed(app, &format!("?genre=puzzle&publisher={nova}")).await, ["Half a Dozen"]);
        assert!(listed(app, "?q=nothing").await.is_empty());
        let mut path = "/api/games?q=half&limit=1".to_owned();
        let mut pages = Vec::new();
        loop {
            let page = app.get(&path).await;
            pages.extend(
                page.json()["games"].as_array().unwrap().iter().map(|game| game["title"].clone()),
            );
            let Some(next) = page.header("link").strip_prefix('<') else { break };
            path = next.split('>').next().unwrap().to_owned();
        }
        assert_eq!(pages, ["Half Life", "Half a Dozen", "Portal"]);
        add(&store, "Portal-2/Alpha", "7", json!({ "description": "Été 1.5" })).await;
        for words in ["portal-2", "alpha", "2/alpha", "1.5", "%C3%A9t%C3%A9"] {
            assert_eq!(listed(app, &format!("?q={words}")).await, ["Portal-2/Alpha"], "{words}");
        }
        app.get("/api/games?genre=").await.problem(422, "invalid");
        app.get("/api/games?q=%26").await.problem(422, "invalid");
        app.get("/api/games?limit=0").await.problem(422, "invalid");
        app.get("/api/games?sort=price").await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_list_that_the_client_has_is_not_sent_again() {
    run(async |app| {
        let id = add(app, "Alpha", "10", json!({})).await;
        let first = app.get("/api/games").await;
        let etag = first.header("etag").to_owned();
        assert_eq!(first.header("cache-control"), "public, no-cache");
        assert!(first.header("book-position").starts_with("p1."));
        let conditional = async |tag: &str| {
            app.send(app.request(Method::GET, "/api/games").header("if-none-match", tag)).await
        };

        let same = conditional(&etag).await;
        assert_eq!((same.status, same.text.as_str(), same.header("etag")), (304, "", &*etag));
        assert!(same.header("book-position").starts_with("p1."));
        assert_eq!(conditional("\"other\"").await.status, 200);
        assert_eq!(conditional(&format!("\"other\", {etag}")).await.status, 304);
        change(app, id, json!({ "title": "Alpha 2" })).await;
        let changed = conditional(&etag).await;
        assert_eq!(
            (changed.status, &changed.json()["games"][0]["title"]),
            (200, &json!("Alpha 2"))
        );
        let metrics = app.internal.get("/metrics").await.text;
        assert!(metrics.contains(r#"wallet_catalog_lists_total{outcome="hit"}"#));
        assert!(metrics.contains(r#"wallet_catalog_changes_total{operation="updated"} 1"#));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_listed_by_every_process_within_a_second() {
    let folder = Folder::new();
    let (one, two) =
        (Program::start(&[&folder.setting()]).await, Program::start(&[&folder.setting()]).await);
    for (n, title) in ["A", "B", "C", "D", "E"].into_iter().enumerate() {
        let (writer, reader) = if n % 2 == 0 { (&one, &two) } else { (&two, &one) };
        assert_eq!(listed(&reader.public, "").await.len(), n);
        add(&writer.public, title, "1", json!({})).await;
        assert_eq!(listed(&writer.public, "").await.len(), n + 1, "its own change at once");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert_eq!(listed(&reader.public, "").await.len(), n + 1);
    }
    for program in [one, two] {
        assert!(program.stop().await.success());
    }
}

#[tokio::test]
async fn a_game_has_prices_and_members_of_its_own() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (_, nova) = publisher(app, "nova", "12.5").await;
        let further = json!({
            "currency": "USD", "prices": [{ "currency": "EUR", "price": 18 }, { "currency": "JPY", "price": "2500" }],
            "publisher": nova, "copies": 5,
        });
        let base = add(&store, "Alpha", "21.99", further).await;
        let content = add(&store, "More", "1", json!({ "publisher": nova, "base": base })).await;

        let found = app.get(&format!("/api/games/{base}")).await;
        let prices = r#""prices":[{"currency":"USD","price":21.99},{"currency":"EUR","price":18.00},{"currency":"JPY","price":2500}]"#;
        assert!(found.text.contains(prices), "{}", found.text);
        let found = found.json();
        assert_eq!((&found["publisher"], &found["state"]), (&json!(nova), &json!("published")));
        assert_eq!((&found["copies"], &found["limited"], &found["base"]), (&json!(5), &json!(5), &Value::Null));
        assert_eq!(app.get(&format!("/api/games/{content}")).await.json()["base"], base);

        let moved = change(&store, base, json!({ "currency": "EUR", "price": "17.5" })).await;
        assert_eq!(moved.status, 200, "{}", moved.text);
        let found = app.get(&format!("/api/games/{base}")).await.text;
        assert!(found.contains(r#""prices":[{"currency":"EUR","price":17.50},{"currency":"JPY","#), "{found}");
        let pointer = async |body: Value| {
            let refused = change(&store, base, body).await.problem(400, "invalid-game");
            refused["errors"][0]["pointer"].as_str().unwrap().to_owned()
        };
        assert_eq!(pointer(json!({ "price": "1.999" })).await, "/price");
        assert_eq!(pointer(json!({ "currency": "USD" })).await, "/price");
        assert_eq!(pointer(json!({ "price": -1 })).await, "/price");
        assert_eq!(pointer(json!({ "prices": [{ "currency": "EUR", "price": 1 }] })).await, "/prices/0/currency");
        assert_eq!(pointer(json!({ "copies": -1 })).await, "/copies");
        assert_eq!(pointer(json!({ "state": "gone" })).await, "/state");
        change(&store, base, json!({ "publisher": "9" })).await.problem(409, "game-fixed");
        let unknown = change(&store, base, json!({ "colour": "red" })).await;
        assert_eq!(unknown.status, 422, "{}", unknown.text);
        let bad_base = store.post("/api/games", json!({ "title": "x", "genre": "x", "price": 1, "base": content, "publisher": nova }));
        bad_base.await.problem(400, "invalid-game");
    })
    .await;
}

#[tokio::test]
async fn a_publisher_manages_only_its_own_games() {
    run_with(&["--access=closed"], async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let (nova, nova_id) = publisher(app, "nova", "10").await;
        let (orbit, orbit_id) = publisher(app, "orbit", "10").await;
        let draft = json!({ "publisher": nova_id, "state": "draft" });
        let own = add(&nova, "Own", "1", draft).await;
        let house = add(&store, "House", "1", json!({})).await;

        let path = format!("/api/games/{own}");
        assert_eq!(nova.get(&path).await.status, 200);
        assert_eq!(store.get(&path).await.status, 200);
        for stranger in [&orbit.client, app] {
            stranger.get(&path).await.problem(404, "game-not-found");
        }
        // A draft does not exist for others.
        change(&orbit, own, json!({ "title": "x" })).await.problem(404, "game-not-found");
        delete(&orbit, own).await.problem(404, "game-not-found");
        change(&nova, house, json!({ "title": "x" })).await.problem(403, "forbidden");
        let of_other = json!({ "title": "x", "genre": "x", "price": 1, "publisher": orbit_id });
        nova.post("/api/games", of_other).await.problem(403, "forbidden");
        app.post("/api/games", game("x", "1")).await.problem(401, "unauthenticated");
        assert_eq!(change(&nova, own, json!({ "state": "published" })).await.status, 200);
        assert_eq!(app.get(&path).await.status, 200, "the catalog is public");
        assert_eq!(listed(app, "").await, ["Own", "House"]);
        assert_eq!(delete(&nova, own).await.status, 200);

        let publishers = format!("/api/publishers/{nova_id}");
        assert_eq!(nova.get(&publishers).await.json()["fee"], 10);
        orbit.get(&publishers).await.problem(403, "forbidden");
        let again = json!({ "user": nova.id, "name": "Again" });
        nova.post("/api/publishers", again.clone()).await.problem(403, "forbidden");
        let admin = app.api_key(&[Scope::Admin]).await;
        admin.post("/api/publishers", again).await.problem(409, "publisher-exists");
        let cheaper = admin.request(Method::PUT, &publishers).json(&json!({ "fee": "7.25" }));
        assert_eq!(admin.send(cheaper).await.json()["fee"], 7.25);
    })
    .await;
}

#[tokio::test]
async fn without_a_credential_only_plain_games_of_the_house_can_be_changed() {
    run(async |app| {
        let (_, nova) = publisher(app, "nova", "10").await;
        for further in
            [json!({ "copies": 1 }), json!({ "state": "draft" }), json!({ "publisher": nova })]
        {
            let mut body = game("x", "1");
            body.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
            app.post("/api/games", body).await.problem(401, "unauthenticated");
        }
        let id = add(app, "Alpha", "10", json!({})).await;
        assert_eq!(change(app, id, json!({ "price": 0 })).await.status, 200);
        change(app, id, json!({ "currency": "JPY", "price": 0 }))
            .await
            .problem(401, "unauthenticated");
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let draft = add(&store, "Draft", "1", json!({ "state": "draft" })).await;
        change(app, draft, json!({ "title": "x" })).await.problem(404, "game-not-found");
        delete(app, draft).await.problem(404, "game-not-found");
        change(app, id, json!({ "copies": 1 })).await.problem(401, "unauthenticated");
        let ada = app.user("ada").await;
        assert_eq!(super::buy(&ada, id, json!({})).await.status, 201);

        change(app, id, json!({ "price": 5 })).await.problem(401, "unauthenticated");
        delete(app, id).await.problem(401, "unauthenticated");
        change(&store, id, json!({ "state": "draft" })).await.problem(409, "game-fixed");
        assert_eq!(delete(&store, id).await.status, 200);
        assert_eq!(app.get(&format!("/api/games/{id}")).await.json()["state"], "retired");
        assert_eq!(super::titles(&ada).await, ["Alpha"]);
        assert!(listed(app, "").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_game_is_added_once_per_key() {
    run(async |app| {
        let adds = (0..10).map(|_| app.post_with_key("/api/games", "k", game("Alpha", "1")));
        let added = futures_util::future::join_all(adds).await;

        assert!(added.iter().all(|answer| answer.status == 201 && answer.text == added[0].text));
        let replays = added.iter().filter(|answer| answer.header("idempotent-replayed") == "true");
        assert_eq!(replays.count(), 9);
        assert_eq!(listed(app, "").await, ["Alpha"]);
        let other = app.post_with_key("/api/games", "k", game("Beta", "1")).await;
        other.problem(422, "idempotency-key-reused");
    })
    .await;
}

#[tokio::test]
async fn subscribers_hear_of_public_changes_once() {
    run(async |app| {
        let store = app.api_key(&[Scope::GamesWrite]).await;
        let mut socket = app.socket().await;
        socket.subscribe("game_updates").await;
        let id = add(&store, "Alpha", "1", json!({ "state": "draft" })).await;
        change(&store, id, json!({ "title": "Alpha 2" })).await;
        change(&store, id, json!({ "state": "published" })).await;
        change(&store, id, json!({ "price": 2 })).await;
        // The public does not hear of what the game becomes as a draft.
        change(&store, id, json!({ "state": "draft", "price": 3 })).await;
        delete(&store, id).await;

        let mut events = Vec::new();
        for _ in 0..3 {
            let event = socket.json().await;
            assert_eq!(event["data"]["gameId"], id);
            events.push(format!("{} {}", event["type"].as_str().unwrap(), event["data"]["price"]));
        }
        assert_eq!(events, ["game.added 1.0", "game.updated 2.0", "game.deleted 2.0"]);
        socket.is_silent().await;
    })
    .await;
}

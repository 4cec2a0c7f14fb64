//! Leaderboards: boards, submissions, pages and ranks through the API.

mod balances;
mod docs;
mod model;
mod prizes;
mod seasons;

use http::Method;
use revwallet::auth::Scope;
use serde_json::{Value, json};

use crate::harness::{Client, Response, TestApp, run};

/// Creates a board and returns the response.
async fn put(client: &Client, board: &str, settings: Value) -> Response {
    let path = format!("/api/leaderboards/{board}");
    client.send(client.request(Method::PUT, &path).json(&settings)).await
}

async fn delete(client: &Client, board: &str) -> Response {
    client.send(client.request(Method::DELETE, &format!("/api/leaderboards/{board}"))).await
}

/// Submits a score and returns the response.
async fn submit(client: &Client, board: &str, user: &str, score: Value) -> Response {
    let body = json!({ "user": user, "score": score });
    client.post(&format!("/api/leaderboards/{board}/scores"), body).await
}

/// Returns a client that may change boards and submit scores.
async fn game_server(app: &TestApp) -> Client {
    app.api_key(&[Scope::EventsWrite]).await
}

/// Returns the rank and the owner of each entry of a response.
fn ranks(response: &Response) -> Vec<(u64, String)> {
    let body = response.json();
    let entries = body["entries"].as_array().unwrap_or_else(|| panic!("{body}"));
    entries
        .iter()
        .map(|entry| (entry["rank"].as_u64().unwrap(), entry["owner"].as_str().unwrap().to_owned()))
        .collect()
}

fn owners(response: &Response) -> Vec<String> {
    ranks(response).into_iter().map(|(_, owner)| owner).collect()
}

/// Returns the path of a link with this relation.
fn link(response: &Response, relation: &str) -> Option<String> {
    let links = response.header("link").split(", ");
    let suffix = format!(">; rel=\"{relation}\"");
    let mut found = links.filter_map(|link| link.strip_prefix('<')?.strip_suffix(&suffix));
    found.next().map(str::to_owned)
}

#[tokio::test]
async fn a_board_is_created_changed_listed_and_deleted() {
    run(async |app| {
        let game = game_server(app).await;

        let created = put(&game, "weekly", json!({ "order": "asc", "operator": "set" })).await;
        let again = put(&game, "weekly", json!({ "order": "desc" })).await;

        assert_eq!((created.status, again.status), (201, 200), "{}", created.text);
        assert_eq!(created.header("location"), "/api/leaderboards/weekly");
        assert_eq!(created.json()["operator"], "set");
        assert_eq!(
            (&again.json()["order"], &again.json()["operator"]),
            (&json!("desc"), &json!("best"))
        );
        put(&game, "all-time", json!({})).await;
        put(&game, "zero", json!({})).await;
        let page = app.get("/api/leaderboards?limit=2").await;
        let names: Vec<Value> =
            page.json().as_array().unwrap().iter().map(|board| board["name"].clone()).collect();
        assert_eq!(names, ["all-time", "weekly"]);
        let rest = app.get(&link(&page, "next").unwrap()).await.json();
        assert_eq!(rest.as_array().unwrap().len(), 1);

        assert_eq!(delete(&game, "weekly").await.status, 204);
        delete(&game, "weekly").await.problem(404, "not-found");
        app.get("/api/leaderboards/weekly").await.problem(404, "not-found");
        assert_eq!(put(&game, "weekly", json!({})).await.status, 201, "the name is free again");
    })
    .await;
}

#[tokio::test]
async fn ties_go_to_who_reached_the_score_first() {
    run(async |app| {
        let game = game_server(app).await;
        put(&game, "b", json!({})).await;

        for (user, score) in
            [("ada", 5), ("bob", 7), ("cyd", 5), ("dan", 7), ("ada", 7), ("bob", 7)]
        {
            assert_eq!(submit(&game, "b", user, json!(score)).await.status, 200);
        }

        let page = app.get("/api/leaderboards/b").await;
        let expected = [(1, "bob"), (2, "dan"), (3, "ada"), (4, "cyd")];
        assert_eq!(ranks(&page), expected.map(|(rank, owner)| (rank, owner.to_owned())));
        assert_eq!(page.json()["entries"][0]["submissions"], 2);
        assert!(page.header("book-position").starts_with("p1."), "{:?}", page.headers);
    })
    .await;
}

#[tokio::test]
async fn each_operator_combines_scores_in_its_own_way() {
    run(async |app| {
        let game = game_server(app).await;
        let scores = [10, 30, -20];
        for (operator, order, expected) in [
            ("best", "desc", 30),
            ("best", "asc", -20),
            ("set", "desc", -20),
            ("incr", "desc", 20),
            ("decr", "desc", -20),
        ] {
            let board = format!("{operator}-{order}");
            put(&game, &board, json!({ "operator": operator, "order": order })).await;
            for score in scores {
                submit(&game, &board, "ada", json!(score)).await;
            }
            let entry = app.get(&format!("/api/leaderboards/{board}/users/ada")).await.json();
            assert_eq!(entry["entries"][0]["score"], expected, "{board}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_subscore_decides_between_equal_scores_and_metadata_is_kept() {
    run(async |app| {
        let game = game_server(app).await;
        put(&game, "b", json!({})).await;
        let path = "/api/leaderboards/b/scores";

        let first = json!({ "user": 7, "score": 5, "subscore": 1, "metadata": { "car": "red" } });
        let entry = game.post(path, first).await.json();
        game.post(path, json!({ "user": "8", "score": 5, "subscore": 2 })).await;
        let worse = json!({ "user": "7", "score": 5, "metadata": { "car": "blue" } });
        let after = game.post(path, worse).await.json();

        assert_eq!((&entry["rank"], &entry["owner"]), (&json!(1), &json!("7")));
        assert_eq!(owners(&app.get("/api/leaderboards/b").await), ["8", "7"]);
        assert_eq!(after["metadata"]["car"], "red", "a worse score changes nothing");
        assert_eq!((&after["rank"], &after["submissions"]), (&json!(2), &json!(2)));
    })
    .await;
}

#[tokio::test]
async fn pages_lead_forward_and_backward_and_around() {
    run(async |app| {
        let game = game_server(app).await;
        put(&game, "b", json!({})).await;
        for n in 1..=25 {
            submit(&game, "b", &format!("p{n}"), json!(1000 - n)).await;
        }

        let first = app.get("/api/leaderboards/b?limit=10").await;
        let second = app.get(&link(&first, "next").unwrap()).await;
        let third = app.get(&link(&second, "next").unwrap()).await;
        let back = app.get(&link(&third, "prev").unwrap()).await;
        let front = app.get(&link(&back, "prev").unwrap()).await;

        assert_eq!(link(&first, "prev"), None);
        assert_eq!(link(&third, "next"), None);
        assert_eq!(link(&front, "prev"), None);
        assert_eq!(ranks(&third).len(), 5);
        assert_eq!(ranks(&back), ranks(&second));
        assert_eq!(ranks(&front), ranks(&first));
        assert_eq!(ranks(&second)[0], (11, "p11".to_owned()));
        let around = app.get("/api/leaderboards/b/users/p2?around=3").await;
        assert_eq!(owners(&around), ["p1", "p2", "p3", "p4", "p5"]);
        assert_eq!(around.json()["index"], 1);
        let last = app.get("/api/leaderboards/b/users/p25?around=1").await;
        assert_eq!(ranks(&last), [(24, "p24".to_owned()), (25, "p25".to_owned())]);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_submission_with_the_same_key_counts_once() {
    run(async |app| {
        let game = game_server(app).await;
        put(&game, "b", json!({ "operator": "incr" })).await;
        let path = "/api/leaderboards/b/scores";
        let body = json!({ "user": "ada", "score": 5 });

        let first = game.post_with_key(path, "k", body.clone()).await;
        submit(&game, "b", "bob", json!(50)).await;
        let replay = game.post_with_key(path, "k", body).await;
        let other = game.post_with_key(path, "k", json!({ "user": "ada", "score": 6 })).await;

        assert_eq!(replay.header("idempotent-replayed"), "true");
        assert_eq!(first.header("idempotent-replayed"), "");
        assert_eq!(first.json(), replay.json(), "the rank is the one of the first answer");
        other.problem(422, "idempotency-key-reused");
        let entry = app.get("/api/leaderboards/b/users/ada?around=0").await.json();
        assert_eq!(entry["entries"][0]["score"], 5);
    })
    .await;
}

#[tokio::test]
async fn order_and_operator_are_fixed_once_there_are_entries() {
    run(async |app| {
        let game = game_server(app).await;
        put(&game, "b", json!({})).await;
        assert_eq!(put(&game, "b", json!({ "order": "asc" })).await.status, 200);
        submit(&game, "b", "ada", json!(1)).await;

        put(&game, "b", json!({ "order": "desc" })).await.problem(409, "leaderboard-fixed");
        put(&game, "b", json!({ "order": "asc", "operator": "incr" }))
            .await
            .problem(409, "leaderboard-fixed");
        let reset = json!({ "order": "asc", "reset": "@daily" });
        assert_eq!(put(&game, "b", reset).await.status, 200, "the schedule may change");
    })
    .await;
}

#[tokio::test]
async fn bad_input_gets_one_clear_answer() {
    run(async |app| {
        let game = game_server(app).await;
        put(&game, "b", json!({ "operator": "incr" })).await;
        put(&game, "other", json!({})).await;
        for user in ["ada", "bob", "cyd"] {
            submit(&game, "b", user, json!(1)).await;
            submit(&game, "other", user, json!(1)).await;
        }

        submit(&game, "nowhere", "ada", json!(1)).await.problem(404, "not-found");
        submit(&game, "no such name", "ada", json!(1)).await.problem(404, "not-found");
        app.get("/api/leaderboards/nowhere/users/ada").await.problem(404, "not-found");
        app.get("/api/leaderboards/b/users/unknown").await.problem(404, "not-found");
        app.get("/api/leaderboards/b?season=9").await.problem(404, "not-found");
        put(&game, "-b", json!({})).await.problem(422, "invalid");
        for score in [json!(1.5), json!("1"), json!(9_007_199_254_740_992_i64), json!(null)] {
            submit(&game, "b", "ada", score).await.problem(422, "invalid");
        }
        for user in ["", "a b", "é", &"a".repeat(65)] {
            submit(&game, "b", user, json!(1)).await.problem(422, "invalid");
        }
        let largest = json!(9_007_199_254_740_991_i64);
        let overflow = submit(&game, "b", "ada", largest.clone()).await.problem(422, "invalid");
        assert_eq!(overflow["errors"][0]["pointer"], "/score");
        assert_eq!(submit(&game, "b", "new", largest).await.status, 200);
        for settings in [
            json!({ "order": "up" }),
            json!({ "operator": "max" }),
            json!({ "reset": "sometimes" }),
            json!({ "reset": "@daily", "time_zone": "Mars/Olympus" }),
            json!({ "ends_at": "2001-01-01T00:00:00Z" }),
            json!({ "ends_at": "tomorrow" }),
            json!({ "extra": 1 }),
        ] {
            put(&game, "c", settings.clone()).await.problem(422, "invalid");
        }

        let foreign = link(&app.get("/api/leaderboards/other?limit=1").await, "next").unwrap();
        let cursor = foreign.split("after=").nth(1).unwrap();
        for query in [
            format!("after={cursor}"),
            format!("before={cursor}"),
            format!("after={cursor}&season=1"),
            "after=nonsense".to_owned(),
            format!("after={cursor}&before={cursor}"),
            "limit=0".to_owned(),
        ] {
            let refused = app.get(&format!("/api/leaderboards/b?{query}")).await;
            assert_eq!(refused.status, 422, "{query}: {}", refused.text);
        }
        app.get("/api/leaderboards/b/users/ada?around=101").await.problem(422, "invalid");
    })
    .await;
}

#[tokio::test]
async fn a_board_that_is_deleted_under_its_readers_is_gone_for_good() {
    run(async |app| {
        let game = game_server(app).await;
        put(&game, "b", json!({})).await;
        for n in 0..20 {
            submit(&game, "b", &format!("p{n}"), json!(n)).await;
        }
        let next = link(&app.get("/api/leaderboards/b?limit=5").await, "next").unwrap();

        assert_eq!(delete(&game, "b").await.status, 204);

        app.get(&next).await.problem(404, "not-found");
        submit(&game, "b", "p1", json!(1)).await.problem(404, "not-found");
        put(&game, "b", json!({})).await;
        app.get(&next).await.problem(422, "invalid");
        assert_eq!(ranks(&app.get("/api/leaderboards/b").await), []);
        assert_eq!(submit(&game, "b", "new", json!(1)).await.json()["rank"], 1);
        crate::harness::eventually("the entries are removed", async || {
            let mut db = app.database.connect().await;
            let left = sqlx::query_scalar::<_, i64>("select count(*) from leaderboard_entry");
            left.fetch_one(&mut db).await.unwrap() == 1
        })
        .await;
    })
    .await;
}

//! Seasons: ended once, by the clock of the database, across daylight saving and changes of the clock.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::harness::eventually;
use crate::harness::program::Program;

/// Sets the clock of seasons; it runs on from there.
async fn set_clock(app: &TestApp, moment: &str) {
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    app.database
        .execute(&format!(
            "create or replace function leaderboard_now() returns timestamptz language sql volatile
             as $$ select timestamptz '{moment}' + (clock_timestamp() - timestamptz '{now}') $$"
        ))
        .await;
}

/// Waits until a season has begun, and returns it.
async fn season(client: &Client, board: &str, number: i32) -> Value {
    let mut found = Value::Null;
    eventually("the season has begun", async || {
        let page = client.get(&format!("/api/leaderboards/{board}")).await.json();
        found = page["season"].clone();
        found["number"] == number
    })
    .await;
    found
}

#[tokio::test]
async fn each_day_has_one_reset_while_the_clock_moves_over_daylight_saving() {
    run(async |app| {
        let game = game_server(app).await;
        let second = second_process(app).await;
        set_clock(app, "2027-03-27T12:00:00Z").await;
        let daily = json!({ "reset": "30 2 * * *", "time_zone": "Europe/Berlin" });
        assert_eq!(put(&game, "daily", daily).await.status, 201);

        // 02:30 does not exist on that day.
        assert_eq!(season(app, "daily", 1).await["ends_at"], "2027-03-28T01:00:00Z");
        set_clock(app, "2027-03-28T01:00:01Z").await;
        assert_eq!(season(app, "daily", 2).await["ends_at"], "2027-03-29T00:30:00Z");
        // The clock of the server goes back.
        set_clock(app, "2027-03-27T23:00:00Z").await;
        assert_eq!(submit(&game, "daily", "ada", json!(1)).await.status, 200);
        assert_eq!(season(app, "daily", 2).await["ends_at"], "2027-03-29T00:30:00Z");
        // No process ran for months: one season ends, not two hundred.
        set_clock(app, "2027-10-30T12:00:00Z").await;
        let third = season(app, "daily", 3).await;
        assert_eq!(third["starts_at"], "2027-03-29T00:30:00Z");
        assert_eq!(third["ends_at"], "2027-10-31T00:30:00Z");
        set_clock(app, "2027-10-31T00:30:01Z").await;
        // 02:30 exists twice on that day.
        assert_eq!(season(app, "daily", 4).await["ends_at"], "2027-11-01T01:30:00Z");
        set_clock(app, "2027-10-31T01:30:01Z").await;
        assert_eq!(submit(&game, "daily", "bob", json!(1)).await.status, 200);
        assert_eq!(season(app, "daily", 4).await["number"], 4);

        let past = second.get("/api/leaderboards/daily?season=2").await;
        assert_eq!(owners(&past), ["ada"]);
        assert_eq!(owners(&second.get("/api/leaderboards/daily").await), ["bob"]);
        assert_eq!(owners(&second.get("/api/leaderboards/daily?season=1").await), [""; 0]);
        second.stop().await;
    })
    .await;
}

/// Another process on the same database.
struct Second(Program);

impl std::ops::Deref for Second {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0.public
    }
}

impl Second {
    async fn stop(self) {
        assert!(self.0.stop().await.success());
    }
}

async fn second_process(app: &TestApp) -> Second {
    let url = format!("--database-url={}", app.database.url);
    Second(Program::start(&[&url, "--allow-unsafe-server", "--access=open"]).await)
}

#[tokio::test]
async fn a_score_after_the_end_of_a_season_counts_for_the_next_one() {
    run(async |app| {
        let game = game_server(app).await;
        set_clock(app, "2027-01-31T11:00:00Z").await;
        // The last day of each month: seasons of different lengths.
        put(&game, "b", json!({ "reset": "0 12 L * *" })).await;
        submit(&game, "b", "ada", json!(1)).await;

        set_clock(app, "2027-01-31T12:00:00Z").await;
        let entry = submit(&game, "b", "bob", json!(2)).await;

        assert_eq!(entry.json()["rank"], 1);
        assert_eq!(owners(&app.get("/api/leaderboards/b?season=1").await), ["ada"]);
        let page = app.get("/api/leaderboards/b").await;
        assert_eq!(owners(&page), ["bob"]);
        assert_eq!(page.json()["season"]["ends_at"], "2027-02-28T12:00:00Z");
    })
    .await;
}

#[tokio::test]
async fn a_board_that_is_over_takes_no_score_until_it_goes_on() {
    run(async |app| {
        let game = game_server(app).await;
        set_clock(app, "2027-01-01T00:00:00Z").await;
        put(&game, "b", json!({ "ends_at": "2027-01-02T00:00:00Z" })).await;
        submit(&game, "b", "ada", json!(1)).await;
        set_clock(app, "2027-01-02T00:00:00Z").await;

        submit(&game, "b", "ada", json!(2)).await.problem(409, "season-over");
        let page = app.get("/api/leaderboards/b").await;
        assert_eq!(owners(&page), ["ada"], "the last season stays readable");
        assert!(page.json()["season"]["ended_at"].is_string());
        put(&game, "b", json!({ "ends_at": "2027-01-01T12:00:00Z" })).await.problem(422, "invalid");
        put(&game, "b", json!({ "ends_at": "2027-02-01T00:00:00Z" })).await;
        assert_eq!(submit(&game, "b", "bob", json!(2)).await.status, 200);
        assert_eq!(season(app, "b", 2).await["ends_at"], "2027-02-01T00:00:00Z");
    })
    .await;
}

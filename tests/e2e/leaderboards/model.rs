//! Random submissions against a model that is too simple to be wrong, and against a recomputation from the entries.

use std::cell::Cell;
use std::collections::HashMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use revwallet::auth::Caller;
use revwallet::idempotency_key::IdempotencyKey;
use revwallet::play::leaderboards::board::BoardName;
use revwallet::play::leaderboards::submission::Submission;
use sqlx::{PgConnection, Row};

use super::*;
use crate::harness::program::Program;
use crate::harness::{eventually, is_long};

const OPERATORS: [&str; 4] = ["best", "set", "incr", "decr"];

/// Owners of a board: enough for many buckets, few enough for repetitions.
const OWNERS: usize = 600;

#[derive(Debug, Clone)]
enum Step {
    /// Owner, score and subscore, from small ranges so that many are equal.
    Submit(usize, i64, i64),
    /// The season ends.
    Reset,
    /// Compare pages of this size.
    Compare(usize),
}

fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let submit = (0..OWNERS, -30..30_i64, 0..3_i64)
        .prop_map(|(owner, score, subscore)| Step::Submit(owner, score, subscore));
    let step = prop_oneof![
        400 => submit,
        1 => Just(Step::Reset),
        1 => (7..200_usize).prop_map(Step::Compare),
    ];
    proptest::collection::vec(step, count)
}

/// Score and subscore of an owner, and when they were reached.
type Entry = (i64, i64, usize);

struct Model {
    operator: &'static str,
    ascending: bool,
    /// The entries of each season.
    seasons: Vec<HashMap<usize, Entry>>,
    reached: usize,
}

impl Model {
    fn submit(&mut self, owner: usize, score: i64, subscore: i64) {
        self.reached += 1;
        let sign = if self.operator == "decr" { -1 } else { 1 };
        let given = (sign * score, sign * subscore);
        let entries = self.seasons.last_mut().unwrap();
        let Some((old_score, old_subscore, _)) = entries.get(&owner).copied() else {
            entries.insert(owner, (given.0, given.1, self.reached));
            return;
        };
        let old = (old_score, old_subscore);
        let new = match self.operator {
            "incr" | "decr" => (old.0 + given.0, old.1 + given.1),
            "best" if self.ascending => given.min(old),
            "best" => given.max(old),
            _ => given,
        };
        if new != old {
            entries.insert(owner, (new.0, new.1, self.reached));
        }
    }

    /// The owners of a season in the order of their ranks.
    fn ranking(&self, season: usize) -> Vec<String> {
        let sign = if self.ascending { 1 } else { -1 };
        let mut entries: Vec<_> = self.seasons[season]
            .iter()
            .map(|(owner, (score, subscore, reached))| {
                (sign * score, sign * subscore, *reached, *owner)
            })
            .collect();
        entries.sort_unstable();
        entries.into_iter().map(|(.., owner)| format!("p{owner}")).collect()
    }
}

/// Reads a season page by page in both directions, and the neighbors of some entries, and compares all of it.
async fn compare(client: &Client, board: &str, season: usize, ranking: &[String], size: usize) {
    let expected: Vec<(u64, String)> = (1..).zip(ranking.iter().cloned()).collect();
    let mut path = Some(format!("/api/leaderboards/{board}?season={season}&limit={size}"));
    let (mut forward, mut last) = (Vec::new(), None);
    while let Some(next) = path {
        let page = client.get(&next).await;
        assert_eq!(page.status, 200, "{}", page.text);
        forward.extend(ranks(&page));
        path = link(&page, "next");
        last = Some(page);
    }
    assert_eq!(forward, expected, "forward, {board}, season {season}, pages of {size}");
    let last = last.unwrap();
    let (mut backward, mut path) = (ranks(&last), link(&last, "prev"));
    while let Some(previous) = path {
        let page = client.get(&previous).await;
        backward.splice(0..0, ranks(&page));
        path = link(&page, "prev");
    }
    assert_eq!(backward, expected, "backward, {board}, season {season}, pages of {size}");
    for index in (0..ranking.len()).step_by(ranking.len() / 5 + 1) {
        let around = size.min(100);
        let path = format!(
            "/api/leaderboards/{board}/users/{}?around={around}&season={season}",
            ranking[index]
        );
        let expected =
            &expected[index.saturating_sub(around)..(index + around + 1).min(expected.len())];
        assert_eq!(ranks(&client.get(&path).await), expected, "around {index} of {board}");
    }
}

/// Makes the season of a board end now.
async fn end_season(app: &TestApp, board: &str) {
    let name: BoardName = board.parse().unwrap();
    app.database
        .execute(&format!(
            "update leaderboard_season s set starts_at = starts_at - interval '1 day', ends_at = leaderboard_now()
             from leaderboard b where b.id = s.board and b.name = '{name}' and s.ended_at is null"
        ))
        .await;
    let mut db = app.database.connect().await;
    eventually("the next season has begun", async || {
        sqlx::query_scalar::<_, bool>(
            "select not exists (select from leaderboard_season
             where ended_at is null and ends_at <= leaderboard_now())",
        )
        .fetch_one(&mut db)
        .await
        .unwrap()
    })
    .await;
}

async fn run_board(
    app: &TestApp,
    game: &Client,
    operator: &'static str,
    order: &str,
    steps: Vec<Step>,
) {
    let board = format!("{operator}-{order}");
    let settings = json!({ "operator": operator, "order": order, "reset": "@yearly" });
    assert_eq!(put(game, &board, settings).await.status, 201);
    let name: BoardName = board.parse().unwrap();
    let ascending = order == "asc";
    let mut model = Model { operator, ascending, seasons: vec![HashMap::new()], reached: 0 };
    for step in steps {
        match step {
            Step::Submit(owner, score, subscore) => {
                model.submit(owner, score, subscore);
                let submission = Submission {
                    owner: format!("p{owner}").parse().unwrap(),
                    score,
                    subscore,
                    metadata: None,
                };
                let key = IdempotencyKey::absent();
                let caller = Caller::operator();
                let taken = app.app().leaderboards.submit(&name, submission, &caller, &key).await;
                assert!(taken.is_ok(), "{taken:?}");
            }
            Step::Reset => {
                end_season(app, &board).await;
                model.seasons.push(HashMap::new());
            }
            Step::Compare(size) => {
                let season = model.seasons.len();
                compare(app, &board, season, &model.ranking(season - 1), size).await;
            }
        }
    }
    for season in 0..model.seasons.len() {
        compare(app, &board, season + 1, &model.ranking(season), 150).await;
    }
}

/// Asserts that each bucket counts the entries of its range, and that the levels fit together.
async fn assert_counts_are_exact(db: &mut PgConnection) {
    let wrong = sqlx::query_scalar::<_, i64>(
        "with bucket as (
            select *, lead(place, 1, '\\xff') over (partition by season, level order by place) as until
            from leaderboard_bucket
        )
        select count(*) from bucket b
        where entries <> (
            select count(*) from leaderboard_entry e
            where e.season = b.season and e.place >= b.place and e.place < b.until
        ) or level = 2 and not exists (
            select from leaderboard_bucket l where l.season = b.season and l.level = 1 and l.place = b.place
        )",
    );
    assert_eq!(wrong.fetch_one(db).await.unwrap(), 0, "buckets with a wrong count");
}

#[tokio::test]
async fn every_page_equals_a_recomputation_for_each_operator_and_order() {
    run(async |app| {
        let game = game_server(app).await;
        let count = if is_long() { 125_000 } else { 1_250 };
        let mut runner = TestRunner::default();
        let mut boards = Vec::new();
        for operator in OPERATORS {
            for order in ["desc", "asc"] {
                let steps = steps(count).new_tree(&mut runner).unwrap().current();
                boards.push(run_board(app, &game, operator, order, steps));
            }
        }
        futures_util::future::join_all(boards).await;

        assert_counts_are_exact(&mut app.database.connect().await).await;
    })
    .await;
}

/// Creates an API key on the command line.
pub(super) fn api_key(url: &str, scope: &str) -> String {
    let scope = format!("--scope={scope}");
    let arguments = [url, "--allow-unsafe-server", "api-key", "create", "--name=game", &scope];
    let output = crate::harness::program::command(&arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let key = text.lines().find(|line| line.starts_with("rwk_"));
    key.unwrap_or_else(|| panic!("no key: {text}")).to_owned()
}

/// Submits scores straight to the database, in batches.
pub(super) async fn submit_batch(
    db: &mut PgConnection,
    board: i64,
    owners: &[String],
    scores: &[i64],
) {
    sqlx::query("select count(*) from leaderboard_submit($1, $2, $3, $4, $5, $6, $6)")
        .bind(board)
        .bind(owners)
        .bind(scores)
        .bind(vec![0_i64; owners.len()])
        .bind(vec![None::<String>; owners.len()])
        .bind(vec![None::<uuid::Uuid>; owners.len()])
        .fetch_one(db)
        .await
        .unwrap();
}

/// Asserts that the ranks of a board equal those that a sort computes.
async fn assert_ranks_equal_a_sort(db: &mut PgConnection, board: i64) {
    let rows = sqlx::query(
        "select e.owner, row_number() over (order by e.score desc, e.subscore desc, substr(e.place, 17)) as sorted,
            1 + leaderboard_before(e.season, e.place) as counted
        from leaderboard_entry e join leaderboard_season s on s.id = e.season
        where s.board = $1
        order by random() limit 500",
    )
    .bind(board)
    .fetch_all(db)
    .await
    .unwrap();
    for row in rows {
        let (sorted, counted): (i64, i64) = (row.get("sorted"), row.get("counted"));
        assert_eq!(sorted, counted, "rank of {}", row.get::<String, _>("owner"));
    }
}

#[tokio::test]
async fn counts_stay_exact_when_buckets_and_groups_split_and_join() {
    run(async |app| {
        let game = game_server(app).await;
        let (entries, moves) = if is_long() { (300_000, 300_000) } else { (20_000, 12_000) };
        for pattern in ["random", "equal", "rising"] {
            put(&game, pattern, json!({ "operator": "set" })).await;
            let mut db = app.database.connect().await;
            let board = sqlx::query_scalar::<_, i64>("select id from leaderboard where name = $1")
                .bind(pattern)
                .fetch_one(&mut db)
                .await
                .unwrap();
            let score = |n: i64| match pattern {
                "random" => fastrand::i64(0..1_000_000),
                "equal" => 7,
                _ => n,
            };
            for batch in 0..entries / 1_000 {
                let numbers = (batch * 1_000)..(batch + 1) * 1_000;
                let owners: Vec<String> = numbers.clone().map(|n| format!("p{n}")).collect();
                let scores: Vec<i64> = numbers.map(score).collect();
                submit_batch(&mut db, board, &owners, &scores).await;
            }
            assert_ranks_equal_a_sort(&mut db, board).await;
            // Most entries move to one end, so that the buckets they leave join.
            for batch in 0..moves / 1_000 {
                let numbers = (batch * 1_000)..(batch + 1) * 1_000;
                let owners: Vec<String> = numbers.clone().map(|n| format!("p{n}")).collect();
                let scores: Vec<i64> = numbers.map(|n| 2_000_000 + n).collect();
                submit_batch(&mut db, board, &owners, &scores).await;
            }
            assert_ranks_equal_a_sort(&mut db, board).await;
            assert_counts_are_exact(&mut db).await;
            let buckets = sqlx::query_scalar::<_, i64>(
                "select count(*) from leaderboard_bucket b join leaderboard_season s on s.id = b.season
                 where s.board = $1 and b.level = 1",
            )
            .bind(board)
            .fetch_one(&mut db)
            .await
            .unwrap();
            assert!(buckets <= entries / 24, "{buckets} buckets for {entries} entries");
        }
    })
    .await;
}

/// Submits until the submission is acknowledged, through any of the processes.
async fn submit_once(clients: &[Client], board: &str, owner: &str, score: i64, key: &str) {
    let body = json!({ "user": owner, "score": score });
    let path = format!("/api/leaderboards/{board}/scores");
    eventually("the submission is acknowledged", async || {
        let client = &clients[fastrand::usize(..clients.len())];
        let request = client.request(Method::POST, &path).json(&body);
        let request = request.header("idempotency-key", key);
        match Client::try_send(request).await {
            Ok(response) if response.status == 503 => false,
            Ok(response) => {
                assert_eq!(response.status, 200, "{}", response.text);
                true
            }
            Err(_) => false,
        }
    })
    .await;
}

#[tokio::test]
async fn three_processes_agree_after_kills_and_each_submission_counts_once() {
    let database = crate::harness::postgres::Database::create().await;
    let url = format!("--database-url={}", database.url);
    let arguments =
        [&url as &str, "--allow-unsafe-server", "--access=open", "--listen=127.0.0.1:0"];
    let first = Program::start(&arguments).await;
    let key = api_key(&url, "events:write");
    let mut programs =
        vec![first, Program::start(&arguments).await, Program::start(&arguments).await];
    let clients = |programs: &[Program]| -> Vec<Client> {
        programs.iter().map(|program| program.public.with_credential(&key)).collect()
    };
    let created = put(&clients(&programs)[0], "b", json!({ "operator": "incr" })).await;
    assert_eq!(created.status, 201, "{}", created.text);

    let (workers, each) = (8_i64, if is_long() { 2_000 } else { 120 });
    for round in 0..3 {
        let all = clients(&programs);
        let acknowledged = Cell::new(0);
        let load = (0..workers).map(async |worker| {
            for n in 0..each {
                let owner = format!("p{}", (worker * each + n) % 300);
                // A process that was killed does not answer; the others do.
                submit_once(&all, "b", &owner, 1, &format!("{round}-{worker}-{n}")).await;
                acknowledged.set(acknowledged.get() + 1);
            }
        });
        let kill = async {
            eventually("submissions are acknowledged", async || acknowledged.get() > 100).await;
            programs.remove(fastrand::usize(..3)).kill();
        };
        tokio::join!(futures_util::future::join_all(load), kill);
        programs.push(Program::start(&arguments).await);
    }

    let mut db = database.connect().await;
    assert_counts_are_exact(&mut db).await;
    let rows = sqlx::query(
        "select owner, score from leaderboard_entry order by score desc, substr(place, 17)",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    let ranking: Vec<String> = rows.iter().map(|row| row.get("owner")).collect();
    let total: i64 = rows.iter().map(|row| row.get::<i64, _>("score")).sum();
    assert_eq!(total, 3 * workers * each, "each submission counts once");
    for client in clients(&programs) {
        compare(&client, "b", 1, &ranking, 37).await;
    }
    for program in programs {
        assert!(program.stop().await.success());
    }
    database.drop().await;
}

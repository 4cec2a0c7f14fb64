//! `revwallet game import`: every good line goes in once, and every bad one is named.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::harness::program::{self, Folder};
use crate::harness::{eventually, run};

/// An import of a file, without its log, which would stand between the refused lines.
fn import(app: &TestApp, file: &Path, flags: &[&str]) -> Command {
    let database = format!("--database-url={}", app.database.url);
    let file = file.to_str().unwrap();
    let mut command = program::command(&[
        &database,
        "--allow-unsafe-server",
        "--log-filter=off",
        "game",
        "import",
        file,
    ]);
    command.args(flags);
    command
}

/// An import of standard input, which stays open.
fn import_from_pipe(app: &TestApp, text: &[u8]) -> (Child, ChildStdin) {
    let mut command = import(app, Path::new("-"), &["--format=jsonl"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text).unwrap();
    (child, stdin)
}

/// Exit code and output of an import, without the log.
fn printed(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let summary = text(&output.stdout);
    let summary = summary.lines().find(|line| line.starts_with("games: ")).unwrap_or_default();
    (output.status.code(), summary.to_owned(), text(&output.stderr))
}

/// Runs an import that finds nothing to refuse.
fn import_all(app: &TestApp, file: &Path) -> String {
    let (code, summary, stderr) = printed(&import(app, file, &[]).output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    summary
}

fn write(folder: &Folder, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.0.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// A file of JSON lines with many games.
fn many(folder: &Folder, count: usize) -> PathBuf {
    let lines = (0..count).map(|n| {
        json!({ "reference": format!("r{n}"), "title": format!("Game {n}"), "genre": "puzzle", "price": "9.99" })
            .to_string()
    });
    write(folder, "many.jsonl", lines.collect::<Vec<_>>().join("\n"))
}

async fn count(app: &TestApp) -> i64 {
    let mut db = app.database.connect().await;
    sqlx::query_scalar("select count(*) from game").fetch_one(&mut db).await.unwrap()
}

/// All games in the order of their ids, in detail.
async fn catalog(app: &TestApp) -> Vec<Value> {
    let list = app.get("/api/games?limit=1000").await.json();
    let mut games = Vec::new();
    for game in list["games"].as_array().unwrap() {
        games.push(app.get(&format!("/api/games/{}", game["gameId"])).await.json());
    }
    games
}

#[tokio::test]
async fn both_formats_add_the_same_games_and_a_second_import_adds_none() {
    run(async |app| {
        let folder = Folder::new();
        let (_, publisher) = publisher(app, "nova", "10").await;
        // A byte order mark, carriage returns, a quoted line end, and a price in another currency.
        let csv = "\u{feff}reference,title,genre,price,price:USD,description,publisher,copies,state,base_reference\r\n\
            a,Alpha,puzzle,19.99,21.99,\"The \"\"first\"\"\r\ngame, of two\",nova Games,1000,,\r\n\
            b,Béta,puzzle,0,,,,,draft,\r\n\
            \r\n\
            c,Alpha: Map,puzzle,4.50,,,1,unlimited,published,a\r\n";
        let jsonl = "\u{feff}{\"reference\":\"a\",\"title\":\"Alpha\",\"genre\":\"puzzle\",\"price\":19.99,\
            \"prices\":[{\"currency\":\"USD\",\"price\":\"21.99\"}],\"copies\":1000,\"publisher\":1,\
            \"description\":\"The \\\"first\\\"\\r\\ngame, of two\"}\r\n\
            {\"reference\":\"b\",\"title\":\"B\\u00e9ta\",\"genre\":\"puzzle\",\"price\":\"0.00\",\"state\":\"draft\"}\r\n\
            {\"reference\":\"c\",\"title\":\"Alpha: Map\",\"genre\":\"puzzle\",\"price\":\"4.5\",\
            \"publisher\":\"nova Games\",\"base_reference\":\"a\"}";
        assert_eq!(publisher, "1");
        let csv = write(&folder, "games.CSV", csv);
        let jsonl = write(&folder, "games.jsonl", jsonl);

        let first = import_all(app, &csv);
        let added = catalog(app).await;
        let again = [import_all(app, &csv), import_all(app, &jsonl)];

        assert_eq!(first, "games: 3 added, 0 already there, 0 refused");
        assert_eq!(again, ["games: 0 added, 3 already there, 0 refused"; 2]);
        assert_eq!(catalog(app).await, added);
        assert_eq!(count(app).await, 3);
        // The draft is not public.
        let [alpha, map] = &added[..] else { panic!("{added:?}") };
        assert_eq!(alpha["title"], "Alpha");
        assert_eq!(alpha["description"], "The \"first\"\r\ngame, of two");
        let prices = json!([{ "currency": "EUR", "price": 19.99 }, { "currency": "USD", "price": 21.99 }]);
        assert_eq!(alpha["prices"], prices);
        assert_eq!((&alpha["publisher"], &alpha["limited"]), (&json!("1"), &json!(1000)));
        assert_eq!((&map["base"], &map["publisher"]), (&alpha["gameId"], &json!("1")));
        assert_eq!(map["limited"], Value::Null);
    })
    .await;
}

/// Report of an import about the bad lines of the next test.
const REFUSALS: &str = "\
line 3: title: is required
line 3: price: has more than 2 decimals
line 3: copies: must be a whole number up to 1000000000, or unlimited
line 3: price:USD: must be a decimal number
line 4: title: is not valid UTF-8
line 5: price: has more than 0 decimals
line 6: has text after the closing quote of a field
line 8: has 3 fields, the header has 10
line 9: publisher: is not a publisher
line 10: publisher: is the name of several publishers: give the id
line 11: publisher: is not a publisher
line 12: base: is not a game of this publisher that can be a base
line 13: base_reference: is not a game of this publisher that can be a base
line 14: base_reference: cannot be given with a base
line 15: reference: is that of an earlier line with other content
line 16: price:USD: has a price already
line 17: price: is required
line 19: is too long
revwallet: 15 lines were refused: correct them, and import the file again
";

#[tokio::test]
async fn each_bad_line_is_named_and_the_good_ones_go_in() {
    run(async |app| {
        let folder = Folder::new();
        for name in ["one", "two"] {
            let user = app.user(name).await;
            let admin = app.api_key(&[Scope::Admin]).await;
            let body = json!({ "user": user.id, "name": "Twins" });
            assert_eq!(admin.post("/api/publishers", body).await.status, 201);
        }
        let mut lines = vec![
            b"title,genre,price,currency,price:USD,publisher,copies,reference,base,base_reference"
                .to_vec(),
            b"Alpha,puzzle,19.99,,,,,a,,".to_vec(),
            b",puzzle,19.999,,x,,-1,,,".to_vec(),
            b"Broken \xff,puzzle,1,,,,,,,".to_vec(),
            b"Yen,puzzle,1.5,JPY,,,,,,".to_vec(),
            b"\"Quote,puzzle,1,,,,,,,".to_vec(),
            b"\"Beta\",puzzle,1,,,,,,,".to_vec(),
            b"Short,puzzle,1".to_vec(),
            b"Unknown,puzzle,1,,,Unknown,,,,".to_vec(),
            b"Twins,puzzle,1,,,Twins,,,,".to_vec(),
            b"Ninth,puzzle,1,,,9,,,,".to_vec(),
            b"Base,puzzle,1,,,,,,77,".to_vec(),
            b"Base,puzzle,1,,,,,,,z".to_vec(),
            b"Base,puzzle,1,,,,,,1,a".to_vec(),
            b"Other,puzzle,1,,,,,a,,".to_vec(),
            b"Twice,puzzle,1,USD,2,,,,,".to_vec(),
            b"\"Two\nlines\",puzzle,,,,,,,,".to_vec(),
            [b"Long,puzzle,1,", "x".repeat(70_000).as_bytes()].concat(),
            b"Gamma,puzzle,1,,,,,,,".to_vec(),
        ];
        let file = write(&folder, "games.csv", lines.join(&b'\n'));

        let (code, summary, stderr) = printed(&import(app, &file, &[]).output().unwrap());

        assert_eq!(stderr, REFUSALS);
        assert_eq!(code, Some(1));
        assert_eq!(summary, "games: 3 added, 0 already there, 15 refused");
        let titles = catalog(app).await;
        let titles: Vec<_> = titles.iter().map(|game| game["title"].as_str().unwrap()).collect();
        assert_eq!(titles, ["Alpha", "Beta", "Gamma"]);

        // The corrected file adds what is missing, and `--refused` takes what is refused.
        lines[4] = b"Yen,puzzle,15,JPY,,,,,,".to_vec();
        lines.truncate(6);
        let file = write(&folder, "games.csv", lines.join(&b'\n'));
        let refused = folder.0.join("refused");
        let flag = format!("--refused={}", refused.display());
        let (code, summary, stderr) = printed(&import(app, &file, &[&flag]).output().unwrap());

        assert_eq!(code, Some(1));
        assert_eq!(
            stderr,
            "revwallet: 3 lines were refused: correct them, and import the file again\n"
        );
        assert_eq!(summary, "games: 1 added, 1 already there, 3 refused");
        let refused = std::fs::read_to_string(refused).unwrap();
        assert_eq!(refused.lines().last(), Some("line 6: has a quoted field without an end"));
        assert_eq!(refused.lines().count(), 6);
    })
    .await;
}

#[tokio::test]
async fn bad_lines_of_json_are_named() {
    run(async |app| {
        let folder = Folder::new();
        let lines: [&[u8]; 8] = [
            b"{\"title\":\"Alpha\",\"genre\":\"puzzle\",\"price\":1}",
            b"{\"title\":\"Cut",
            b"[1]",
            b"{\"title\":\"T\",\"genre\":\"g\",\"price\":1,\"colour\":\"red\"}",
            b"{\"title\":\"T\",\"genre\":\"g\",\"price\":1,\"price\":2}",
            b"{\"title\":\"\xff\",\"genre\":\"g\",\"price\":1}",
            b"{\"title\":\"T\",\"genre\":7,\"price\":-1,\"prices\":[{\"currency\":\"XXX\",\"price\":1}],\"reference\":\"\"}",
            b"{\"title\":\"Alpha\",\"genre\":\"puzzle\",\"price\":\"1.00\"}",
        ];
        let file = write(&folder, "games", lines.join(&b'\n'));

        let unknown = printed(&import(app, &file, &[]).output().unwrap());
        // Standard input, and the same content twice.
        let (child, stdin) = import_from_pipe(app, &std::fs::read(&file).unwrap());
        drop(stdin);
        let (code, summary, stderr) = printed(&child.wait_with_output().unwrap());

        assert_eq!(unknown.0, Some(1));
        assert!(unknown.2.contains("give --format"), "{}", unknown.2);
        let expected = "\
line 2: is not valid JSON: EOF while parsing a string at column 13
line 3: must be an object (column 0)
line 4: colour: is not a known member
line 5: price: is given twice (column 42)
line 6: is not valid UTF-8
line 7: reference: must have 1 to 255 characters
line 7: genre: must be a string
line 7: price: must not be negative
line 7: prices/0/currency: is not a supported currency
revwallet: 6 lines were refused: correct them, and import the file again
";
        assert_eq!(stderr, expected);
        assert_eq!(code, Some(1));
        assert_eq!(summary, "games: 1 added, 1 already there, 6 refused");
    })
    .await;
}

#[tokio::test]
async fn a_header_that_fits_no_game_is_refused_before_anything_is_added() {
    run(async |app| {
        let folder = Folder::new();
        for (header, why) in [
            ("title,genre", "line 1: the header has no column price"),
            ("title,genre,price,size", "line 1: the header has the unknown column `size`"),
            ("title,genre,price,title", "line 1: the header has the column title twice"),
            (
                "title,genre,price,price:XXX",
                "line 1: the header price:XXX is not a supported currency",
            ),
            ("\"title,genre,price", "line 1: the header has a quoted field without an end"),
        ] {
            let file = write(&folder, "games.csv", format!("{header}\nAlpha,puzzle,1"));

            let (code, _, stderr) = printed(&import(app, &file, &[]).output().unwrap());

            assert_eq!(code, Some(1), "{header}");
            assert!(stderr.contains(why), "{header}: {stderr}");
        }
        let missing = printed(&import(app, &folder.0.join("no.csv"), &[]).output().unwrap());
        assert!(missing.2.contains("cannot read"), "{}", missing.2);
        assert_eq!(count(app).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_killed_import_goes_on_where_it_was() {
    run(async |app| {
        let folder = Folder::new();
        let file = many(&folder, 5_000);
        let text = std::fs::read(&file).unwrap();
        // It gets half of the file and waits for more.
        let (mut killed, stdin) = import_from_pipe(app, &text[..text.len() / 2]);
        eventually("two batches are in", async || count(app).await == 2_000).await;
        killed.kill().unwrap();
        killed.wait().unwrap();
        drop(stdin);

        let summary = import_all(app, &file);

        assert_eq!(summary, "games: 3000 added, 2000 already there, 0 refused");
        assert_eq!(count(app).await, 5_000);
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_import_says_how_to_continue() {
    run(async |app| {
        let folder = Folder::new();
        let file = many(&folder, 1_500);
        let (child, stdin) = import_from_pipe(app, &std::fs::read(&file).unwrap());
        eventually("the first batch is in", async || count(app).await == 1_000).await;

        program::signal(child.id(), "TERM");
        let (code, _, stderr) = printed(&child.wait_with_output().unwrap());

        assert_eq!(code, Some(1));
        let expected = "revwallet: interrupted by SIGTERM; import the file again to continue\n";
        assert_eq!(stderr, expected);
        drop(stdin);
    })
    .await;
}

#[tokio::test]
async fn two_imports_of_one_file_add_each_game_once() {
    run(async |app| {
        let folder = Folder::new();
        let file = many(&folder, 3_000);

        let [first, second] = [(); 2].map(|()| {
            import(app, &file, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        let outputs = [first, second].map(|child| printed(&child.wait_with_output().unwrap()));

        let number = |summary: &str, place: usize| -> i64 {
            summary.split(' ').nth(place).unwrap().parse().unwrap()
        };
        let mut added = 0;
        for (code, summary, stderr) in outputs {
            assert_eq!(code, Some(0), "{stderr}");
            assert_eq!(number(&summary, 1) + number(&summary, 3), 3_000, "{summary}");
            added += number(&summary, 1);
        }
        assert_eq!((added, count(app).await), (3_000, 3_000));
    })
    .await;
}

#[tokio::test]
async fn a_running_process_shows_and_announces_what_was_imported() {
    run(async |app| {
        let folder = Folder::new();
        let path = "/api/games?q=imported";
        assert_eq!(app.get(path).await.json()["games"], json!([]));
        let mut socket = app.socket().await;
        socket.subscribe("game_updates").await;
        let file = write(
            &folder,
            "games.csv",
            "title,genre,price,state\nImported 1,puzzle,1,\nHidden,puzzle,1,draft\nImported 2,puzzle,2,\n",
        );

        import_all(app, &file);

        for title in ["Imported 1", "Imported 2"] {
            let event = socket.json().await;
            assert_eq!(event["type"], "game.added");
            let shown = app.get(&format!("/api/games/{}", event["data"]["gameId"])).await.json();
            assert_eq!(event["data"], shown);
            assert_eq!(shown["title"], title);
        }
        crate::harness::eventually_within(Duration::from_secs(10), "the list is fresh", async || {
            app.get(path).await.json()["games"].as_array().unwrap().len() == 2
        })
        .await;
    })
    .await;
}

//! What the program says when it cannot start: one sentence, and what to do.

use std::net::TcpListener;

use crate::harness::free_address;
use crate::harness::postgres::Database;
use crate::harness::program::{self, Ended, Folder, Program};

/// Asserts on the form of every such failure.
fn assert_refused(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "one sentence: {}", ended.stderr);
    assert!(ended.stderr.starts_with("revwallet: "), "{}", ended.stderr);
    for unwanted in ["panicked", "backtrace", "src/", "hush"] {
        assert!(!ended.stderr.contains(unwanted), "{}", ended.stderr);
    }
    for part in says {
        assert!(ended.stderr.contains(part), "{part:?} is not in: {}", ended.stderr);
    }
}

#[test]
fn an_unknown_flag_is_refused() {
    assert_refused(&program::run(&["--nope"]), 2, &["--nope", "--help"]);
}

#[test]
fn an_unusable_value_is_refused() {
    assert_refused(&program::run(&["--listen=here"]), 2, &["--listen", "here"]);
    assert_refused(
        &program::run(&["--http-timeout=5"]),
        2,
        &["--http-timeout", "ms, s, m, h or d"],
    );
    assert_refused(&program::run(&["--log-success-ratio=2"]), 2, &["0 to 1"]);
}

#[test]
fn a_secret_that_cannot_be_used_is_not_shown() {
    let folder = Folder::new();
    let empty = folder.0.join("empty");
    std::fs::write(&empty, "\n").unwrap();
    for (setting, says) in [
        ("--database-url-file=postgres://hush", "--database-url-file"),
        ("--jwt-secret=@hush", "--jwt-secret"),
        (&format!("--database-url=@{}", empty.display()), "it is empty"),
        ("--probe-interval=0s", "--probe-interval"),
    ] {
        assert_refused(&program::run(&[setting]), 2, &[says]);
    }
}

#[test]
fn an_unusable_log_filter_is_refused() {
    assert_refused(&program::run(&["--log-filter=a=b=c"]), 1, &["--log-filter"]);
}

#[test]
fn a_receiver_of_telemetry_that_cannot_be_one_is_refused() {
    for (setting, says) in [
        ("--otlp-endpoint=https://alloy:4317", "give `http://host:port`"),
        ("--otlp-endpoint=alloy:4317", "give `http://host:port`"),
        ("--loki-url=mailto:alloy", "--loki-url is not the address of a server"),
    ] {
        assert_refused(&program::run(&[setting]), 1, &[says]);
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();

    let ended = program::run(&[&format!("--listen={address}"), "--internal-listen=127.0.0.1:0"]);

    assert_refused(&ended, 1, &[&address.to_string(), "--listen"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_refused() {
    let ended = program::run(&["migrate", "--data-dir=/dev/null/data"]);

    assert_refused(&ended, 1, &["/dev/null/data", "--data-dir"]);
}

#[test]
fn a_database_that_is_down_is_refused() {
    let url = format!("--database-url=postgres://me:hush@{}/wallet", free_address());

    assert_refused(&program::run(&["migrate", &url]), 1, &["cannot reach", "DATABASE_URL"]);
}

#[test]
fn a_database_url_that_is_none_is_refused() {
    for url in ["nonsense", "mysql://me:hush@localhost/x", "postgres://me:hush@host:port/x"] {
        let ended = program::run(&["migrate", &format!("--database-url={url}")]);

        assert_refused(&ended, 1, &["DATABASE_URL"]);
    }
}

#[tokio::test]
async fn a_database_url_may_stand_in_a_file() {
    let folder = Folder::new();
    let file = folder.0.join("url");
    let setting = format!("--database-url-file={}", file.display());
    assert_refused(&program::run(&[&setting]), 2, &["--database-url-file", "cannot be read"]);
    std::fs::write(&file, "mysql://root:hush@localhost/x\n").unwrap();
    assert_refused(&program::run(&[&setting]), 1, &["no PostgreSQL URL"]);

    let database = Database::create().await;
    std::fs::write(&file, format!("{}\n", database.url)).unwrap();
    let program = Program::start(&[&setting, "--database-url=", "--allow-unsafe-server"]).await;

    assert_eq!(program.internal.get("/readyz").await.status, 200);
    assert!(program.stop().await.success());
    database.drop().await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_refused() {
    let database = Database::create().await;
    let url = database.url.replace("/test_", "/no_test_");

    let ended = program::run(&["migrate", &format!("--database-url={url}")]);

    assert_refused(&ended, 1, &["has no database `no_test_", "createdb"]);
    database.drop().await;
}

#[tokio::test]
async fn a_database_from_the_future_is_refused() {
    let database = Database::create().await;
    database
        .execute("insert into _sqlx_migrations values (99999999, 'later', now(), true, '', 0)")
        .await;

    for words in [
        &["migrate"][..],
        &["serve", "--no-migrate", "--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"],
    ] {
        let url = format!("--database-url={}", database.url);
        let ended = program::run(&[words, &[&url]].concat());

        assert_refused(&ended, 1, &["newer revwallet", "99999999"]);
    }
    database.drop().await;
}

#[tokio::test]
async fn a_database_that_lags_is_migrated_or_refused() {
    let database = Database::create_empty().await;
    let url = format!("--database-url={}", database.url);
    let serve =
        ["serve", "--no-migrate", "--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0", &url];

    assert_refused(&program::run(&serve), 1, &["lacks", "revwallet migrate"]);
    assert_eq!(program::run(&["migrate", &url]).code, Some(0));
    assert_eq!(program::run(&["migrate", &url]).code, Some(0), "a second time changes nothing");
    database.drop().await;
}

#[tokio::test]
async fn processes_that_start_at_once_wait_for_the_one_that_migrates() {
    let database = Database::create_empty().await;
    let url = format!("--database-url={}", database.url);

    for turn in ["a new database", "one that needs nothing"] {
        let ended: Vec<Ended> = std::thread::scope(|scope| {
            let each = || scope.spawn(|| program::run(&["migrate", &url]));
            let all: Vec<_> = std::iter::repeat_with(each).take(6).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });

        for one in ended {
            assert_eq!(one.code, Some(0), "{turn}: {one:?}");
        }
    }
    database.drop().await;
}

#[tokio::test]
async fn a_migration_that_was_changed_is_refused() {
    let database = Database::create().await;
    database.execute("update _sqlx_migrations set checksum = '\\x00' where version = 1").await;

    let ended = program::run(&["migrate", &format!("--database-url={}", database.url)]);

    assert_refused(&ended, 1, &["migration 1", "differs"]);
    database.drop().await;
}

#[test]
fn a_machine_without_postgres_is_told_what_to_install() {
    let folder = Folder::new();
    let empty = Folder::new();

    let output = program::command(&["migrate", &folder.setting()])
        .arg(format!("--postgres-bin={}", empty.0.display()))
        .output()
        .unwrap();

    let ended =
        Ended { code: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() };
    assert_refused(&ended, 1, &["REVWALLET_POSTGRES_BIN"]);
}

#[test]
fn help_and_version_are_no_failures() {
    for (words, says) in
        [(["--help"], "Usage: revwallet"), (["--version"], env!("CARGO_PKG_VERSION"))]
    {
        let output = program::command(&words).output().unwrap();

        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(says));
    }
}

#[test]
fn the_document_can_be_printed_without_a_database() {
    let output = program::command(&["openapi"]).output().unwrap();

    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["info"]["title"], "revwallet");
}

//! Startup failures: the program prints one sentence that says what to do.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;

use crate::harness::free_address;
use crate::harness::postgres::Database;
use crate::harness::program::{self, Exit, Folder, Program};

/// Asserts that the program failed with one sentence (an invalid command line: with the message of clap) that contains the
/// given parts and no secret.
fn assert_refused(exit: &Exit, code: i32, parts: &[&str]) {
    assert_eq!(exit.code, Some(code), "{exit:?}");
    if code != 2 {
        assert_eq!(exit.stderr.lines().count(), 1, "more than one sentence: {}", exit.stderr);
    }
    assert!(exit.stderr.starts_with("revwallet: "), "{}", exit.stderr);
    for unwanted in ["panicked", "backtrace", "src/", "hush"] {
        assert!(!exit.stderr.contains(unwanted), "{}", exit.stderr);
    }
    for part in parts {
        assert!(exit.stderr.contains(part), "{part:?} is not in: {}", exit.stderr);
    }
}

#[test]
fn an_unknown_flag_is_refused() {
    assert_refused(&program::run(&["--nope"]), 2, &["--nope", "--help"]);
}

#[test]
fn an_invalid_value_is_refused() {
    assert_refused(&program::run(&["--listen=here"]), 2, &["--listen", "here"]);
    assert_refused(
        &program::run(&["--http-timeout=5"]),
        2,
        &["--http-timeout", "time unit needed, for example 5sec or 5ms"],
    );
    assert_refused(&program::run(&["--log-success-ratio=2"]), 2, &["0 to 1"]);
    assert_refused(
        &program::run(&["--cors-origins=https://a.example/path"]),
        2,
        &["--cors-origins", "https://a.example/path", "give origins"],
    );
    for limit in ["--http-connections-max", "--http-connections-per-address", "--http-requests-max"]
    {
        for value in ["0", "18446744073709551615"] {
            assert_refused(&program::run(&[&format!("{limit}={value}")]), 2, &[limit, "1..="]);
        }
    }
}

#[test]
fn a_setting_that_cannot_work_is_refused() {
    for (setting, values) in [
        ("http-connections-max", &["0", "-1", "18446744073709551615"][..]),
        ("http-requests-max", &["0", "18446744073709551615"]),
        ("http-timeout", &["0s", "1ns", "500000000000y"]),
        ("http-header-timeout", &["0s", "500000000000y"]),
        ("ledger-queue-max", &["0", "18446744073709551615"]),
        ("ledger-batch-max", &["0", "18446744073709551615"]),
        ("ledger-cache-max", &["-1", "18446744073709551615"]),
        ("max-amount", &["0", "-1", "9007199254740992"]),
        ("database-connections-max", &["0", "1", "4294967295"]),
        ("database-acquire-timeout", &["0s", "500000000000y"]),
        ("token-lifetime", &["0s", "500000000000y"]),
        ("age-min", &["-1", "151"]),
        ("registrations-max", &["0", "-1"]),
        ("password-memory", &["0", "7", "4294967295"]),
        ("password-passes", &["0", "4294967295"]),
        ("password-hashes-max", &["0", "18446744073709551615"]),
        ("password-waiting-max", &["0"]),
        ("webhook-log-lifetime", &["0s", "500000000000y"]),
        ("probe-interval", &["0s", "500000000000y"]),
        ("export-buffer-bytes", &["0", "18446744073709551615"]),
        ("shutdown-timeout", &["500000000000y"]),
        ("shutdown-delay", &["500000000000y"]),
    ] {
        for value in values {
            let exit = program::run(&[&format!("--{setting}={value}")]);
            assert_refused(&exit, 2, &[setting]);
        }
    }
    assert_refused(&program::run(&["audit", "--lines=0"]), 2, &["--lines"]);
}

#[test]
fn an_invalid_secret_is_not_printed() {
    let folder = Folder::new();
    let empty = folder.0.join("empty");
    std::fs::write(&empty, "\n").unwrap();
    for (setting, message) in [
        ("--database-url-file=postgres://hush", "--database-url-file"),
        ("--jwt-secret=@hush", "--jwt-secret"),
        (&format!("--database-url=@{}", empty.display()), "the file is empty"),
        ("--probe-interval=0s", "--probe-interval"),
        ("--grafana-url=javascript:alert(1)", "give `https://host/path`"),
        ("--grafana-url=//host/grafana", "give `https://host/path`"),
    ] {
        assert_refused(&program::run(&[setting]), 2, &[message]);
    }
}

#[test]
fn an_invalid_log_filter_is_refused() {
    assert_refused(&program::run(&["--log-filter=a=b=c"]), 1, &["--log-filter"]);
}

#[test]
fn an_invalid_telemetry_address_is_refused() {
    for (setting, message) in [
        ("--otlp-endpoint=https://alloy:4317", "give `http://host:port`"),
        ("--otlp-endpoint=alloy:4317", "give `http://host:port`"),
        ("--loki-url=mailto:alloy", "--loki-url is not the address of a server"),
    ] {
        assert_refused(&program::run(&[setting]), 1, &[message]);
    }
}

#[test]
fn a_port_in_use_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();

    let exit = program::run(&[&format!("--listen={address}"), "--internal-listen=127.0.0.1:0"]);

    assert_refused(&exit, 1, &[&address.to_string(), "--listen"]);
}

#[test]
fn a_data_directory_that_is_not_writable_is_refused() {
    let exit = program::run(&["migrate", "--data-dir=/dev/null/data"]);

    assert_refused(&exit, 1, &["/dev/null/data", "--data-dir"]);
}

#[test]
fn an_unreachable_database_is_refused() {
    let url = format!("--database-url=postgres://me:hush@{}/wallet", free_address());

    assert_refused(&program::run(&["migrate", &url]), 1, &["cannot reach", "DATABASE_URL"]);
}

#[test]
fn an_invalid_database_url_is_refused() {
    for url in ["nonsense", "mysql://me:hush@localhost/x", "postgres://me:hush@host:port/x"] {
        let exit = program::run(&["migrate", &format!("--database-url={url}")]);

        assert_refused(&exit, 1, &["DATABASE_URL"]);
    }
}

#[tokio::test]
async fn a_database_url_can_be_read_from_a_file() {
    let folder = Folder::new();
    let file = folder.0.join("url");
    let setting = format!("--database-url-file={}", file.display());
    let any_ports = ["--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"];
    assert_refused(
        &program::run(&[&[setting.as_str()], &any_ports[..]].concat()),
        2,
        &["--database-url-file", "cannot be read"],
    );
    std::fs::write(&file, "mysql://root:hush@localhost/x\n").unwrap();
    let exit = program::run(&[&[setting.as_str()], &any_ports[..]].concat());
    assert_refused(&exit, 1, &["is not a PostgreSQL URL"]);

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

    let exit = program::run(&["migrate", &format!("--database-url={url}")]);

    assert_refused(&exit, 1, &["has no database `no_test_", "createdb"]);
    database.drop().await;
}

#[tokio::test]
async fn a_database_with_newer_migrations_is_refused() {
    let database = Database::create().await;
    database
        .execute("insert into _sqlx_migrations values (99999999, 'later', now(), true, '', 0)")
        .await;

    for arguments in [
        &["migrate"][..],
        &["serve", "--no-migrate", "--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"],
    ] {
        let url = format!("--database-url={}", database.url);
        let exit = program::run(&[arguments, &[&url]].concat());

        assert_refused(&exit, 1, &["newer revwallet", "99999999"]);
    }
    database.drop().await;
}

#[tokio::test]
async fn a_database_with_missing_migrations_is_migrated_or_refused() {
    let database = Database::create_empty().await;
    let url = format!("--database-url={}", database.url);
    let serve =
        ["serve", "--no-migrate", "--listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0", &url];

    assert_refused(&program::run(&serve), 1, &["lacks", "revwallet migrate"]);
    assert_eq!(program::run(&["migrate", &url]).code, Some(0));
    assert_eq!(program::run(&["migrate", &url]).code, Some(0), "a second run changes nothing");
    database.drop().await;
}

#[tokio::test]
async fn processes_that_start_concurrently_wait_for_the_one_that_migrates() {
    let database = Database::create_empty().await;
    let url = format!("--database-url={}", database.url);

    for state in ["an empty database", "a migrated database"] {
        let exits: Vec<Exit> = std::thread::scope(|scope| {
            let migrate = || scope.spawn(|| program::run(&["migrate", &url]));
            let threads: Vec<_> = std::iter::repeat_with(migrate).take(6).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });

        for exit in exits {
            assert_eq!(exit.code, Some(0), "{state}: {exit:?}");
        }
    }
    database.drop().await;
}

#[tokio::test]
async fn a_modified_migration_is_refused() {
    let database = Database::create().await;
    database.execute("update _sqlx_migrations set checksum = '\\x00' where version = 1").await;

    let exit = program::run(&["migrate", &format!("--database-url={}", database.url)]);

    assert_refused(&exit, 1, &["migration 1", "differs"]);
    database.drop().await;
}

#[test]
fn without_postgres_the_error_says_how_to_provide_it() {
    let folder = Folder::new();
    let empty = Folder::new();

    let output = program::command(&["migrate", &folder.setting()])
        .arg(format!("--postgres-bin={}", empty.0.display()))
        .output()
        .unwrap();

    let exit =
        Exit { code: output.status.code(), stderr: String::from_utf8(output.stderr).unwrap() };
    assert_refused(&exit, 1, &["REVWALLET_POSTGRES_BIN"]);
}

#[test]
fn help_and_version_exit_successfully() {
    for (arguments, expected) in
        [(["--help"], "Usage: revwallet"), (["--version"], env!("CARGO_PKG_VERSION"))]
    {
        let output = program::command(&arguments).output().unwrap();

        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains(expected));
    }
}

#[test]
fn the_openapi_document_is_printed_without_a_database() {
    let output = program::command(&["openapi"]).output().unwrap();

    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["info"]["title"], "revwallet");
}

#[tokio::test]
async fn a_currency_stays_known_without_its_setting() {
    let database = Database::create().await;
    let url = format!("--database-url={}", database.url);
    let settings = [url.as_str(), "--access=open", "--allow-unsafe-server"];
    let with_gold = [settings.as_slice(), &["--currency=GOLD:0"]].concat();
    let first = Program::start(&with_gold).await;
    let body = serde_json::json!({ "owner": "ada", "currency": "GOLD", "initial_balance": 7 });
    assert_eq!(first.public.post("/wallet", body).await.status, 201);
    assert!(first.stop().await.success());

    let second = Program::start(&settings).await;

    let wallets = second.public.get("/wallet").await;
    assert_eq!(wallets.status, 200, "{}", wallets.text);
    assert_eq!(wallets.json()[0]["balance"], 7);
    let deposit = serde_json::json!({ "id": "1", "amount": 3 });
    assert_eq!(second.public.post("/wallet/deposit", deposit).await.status, 200);
    assert!(second.stop().await.success());
    let other_decimals = [settings.as_slice(), &["--currency=GOLD:2"]].concat();
    assert_refused(&program::run(&other_decimals), 1, &["--currency GOLD:2", "write GOLD:0"]);
    let other_euro = [settings.as_slice(), &["--currency=EUR:3"]].concat();
    assert_refused(&program::run(&other_euro), 1, &["--currency is invalid"]);
    database.drop().await;
}

#[test]
fn a_first_start_says_in_three_short_lines_what_happened_and_where_to_go() {
    let folder = Folder::new();
    let setting = folder.setting();
    let mut child = program::command(&[
        "--listen=127.0.0.1:0",
        "--internal-listen=127.0.0.1:0",
        "--log-format=pretty",
        &setting,
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());

    let lines: Vec<String> = output.lines().map_while(Result::ok).take(3).collect();

    program::signal(child.id(), "TERM");
    assert!(child.wait().unwrap().success());
    for (line, part) in
        lines.iter().zip(["creating a private Postgres", "listening on", "open http"])
    {
        let message = line.split_once("Z INFO  ").map(|(_, message)| message);
        assert!(message.is_some_and(|message| message.starts_with(part)), "{lines:#?}");
        assert!(line.len() < 120, "{line}");
    }
}

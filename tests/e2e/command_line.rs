//! The command line: results and logs, JSON, help, the messages of clap, and commands that never create a database.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::postgres::Database;
use crate::harness::program::{Folder, Program, command, run};
use crate::harness::{TestApp, run_with};

/// Runs a command, with JSON and all logs.
fn run_json(arguments: &[&str]) -> (Value, Output) {
    let all = [arguments, &["--json", "--log-format=json", "--log-filter=info"]].concat();
    let output = command(&all).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let document = serde_json::from_str(&stdout);
    let document = document.unwrap_or_else(|cause| panic!("{arguments:?}: {cause}: {output:?}"));
    (document, output)
}

/// Runs a command on the database of the app, and returns the document that it prints.
fn document(app: &TestApp, arguments: &[&str]) -> Value {
    let url = format!("--database-url={}", app.database.url);
    let (document, output) = run_json(&[arguments, &[&url, "--allow-unsafe-server"]].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    document
}

fn help(arguments: &[&str]) -> String {
    let output = command(&[arguments, &["--help"]].concat()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn the_result_is_on_standard_output_and_the_log_on_standard_error() {
    let database = Database::create().await;
    let url = format!("--database-url={}", database.url);
    let filter = "--log-filter=revwallet=debug";
    let create = ["api-key", "create", "--name=a", "--scope=wallet:write", "--json", filter, &url];
    let output = command(&create).output().unwrap();

    let key: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(key["key"].as_str().unwrap().starts_with("rwk_"), "{key}");
    let log = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "database ready"), "{log}");

    let migrated = command(&["migrate", &url]).output().unwrap();
    assert!(migrated.status.success() && migrated.stdout.is_empty(), "{migrated:?}");
    database.drop().await;
}

#[tokio::test]
async fn keys_are_printed_like_the_api_does() {
    run_with(&["--access=closed"], async |app| {
        let create = ["api-key", "create", "--name=shop", "--scope=admin", "--scope=wallet:write"];
        let created = document(app, &create);
        let id = created["id"].as_str().unwrap();
        let shop = app.with_credential(created["key"].as_str().unwrap());
        assert_eq!(shop.get("/wallet").await.status, 200);

        let listed = document(app, &["api-key", "list"]);
        let from_api = shop.get("/api/keys").await.json();
        assert_eq!(listed, from_api);
        assert_eq!(listed[0]["scopes"], json!(["admin", "wallet:write"]));
        assert_eq!(listed[0].get("key"), None);

        let rotated = document(app, &["api-key", "rotate", id]);
        assert_eq!(rotated["id"], created["id"]);
        assert_ne!(rotated["key"], created["key"]);
        let revoked = document(app, &["api-key", "revoke", id]);
        assert_eq!(revoked["id"], created["id"]);
        assert!(revoked["revoked_at"].is_string(), "{revoked}");

        let audit = document(app, &["audit", "--lines=2"]);
        let actions: Vec<_> = audit.as_array().unwrap().iter().map(|e| &e["action"]).collect();
        assert_eq!(actions, ["key.revoked", "key.rotated"]);
        assert_eq!(document(app, &["audit", "--subject=user:99"]), json!([]));
    })
    .await;
}

#[tokio::test]
async fn users_and_signing_keys_are_printed_as_json() {
    run_with(&[], async |app| {
        app.user("ada").await;

        let user = document(app, &["user", "role", "ada", "admin"]);

        assert_eq!((&user["username"], &user["role"]), (&json!("ada"), &json!("admin")));
        assert_eq!(user["email"], "ada@example.com");
        assert!(document(app, &["jwt", "rotate"])["kid"].is_string());
    })
    .await;
}

#[tokio::test]
async fn the_book_and_the_money_of_operators_are_printed_as_json() {
    run_with(&[], async |app| {
        app.open_wallet("EUR", "5.00").await;
        let report = document(app, &["verify"]);
        assert_eq!(report["faults"], json!([]));
        assert!(report["transfers"].as_i64().unwrap() > 0, "{report}");
        let anchor = format!("--anchor={}", report["head"].as_str().unwrap());
        document(app, &["verify", &anchor]);

        let deposit = ["prize-account", "deposit", "--in=EUR", "--amount=12.50"];
        let funded = document(app, &deposit);
        assert_eq!((&funded["currency"], &funded["balance"]), (&json!("EUR"), &json!(12.5)));
        assert!(funded["transfer"].is_string(), "{funded}");
        let accounts = document(app, &["prize-account", "list"]);
        assert_eq!(accounts, json!([{ "currency": "EUR", "balance": 12.5 }]));

        let before = document(app, &["exchange", "hot-wallets"]);
        assert_eq!(before["currency"], "EUR");
        let fund = ["exchange", "fund", "--in=EUR", "--amount=7.25", "--reason=test"];
        let after = document(app, &fund);
        let added =
            after["fiat_amount"].as_f64().unwrap() - before["fiat_amount"].as_f64().unwrap();
        assert!((added - 7.25).abs() < 1e-9, "{before} {after}");
        assert_eq!(document(app, &["order", "list"]), json!([]));
    })
    .await;
}

#[tokio::test]
async fn an_import_is_reported_as_json() {
    run_with(&[], async |app| {
        let folder = Folder::new();
        let file = folder.0.join("games.jsonl");
        std::fs::write(&file, "{}\n").unwrap();
        let url = format!("--database-url={}", app.database.url);
        let file = file.to_str().unwrap();
        let (report, output) = run_json(&["game", "import", file, &url, "--allow-unsafe-server"]);

        assert_eq!(report, json!({ "added": 0, "known": 0, "refused": 1 }));
        assert_eq!(output.status.code(), Some(1), "a refused line is a failure");
    })
    .await;
}

#[tokio::test]
async fn health_is_printed_as_json() {
    let database = Database::create().await;
    let url = format!("--database-url={}", database.url);
    let program = Program::start(&[&url, "--allow-unsafe-server"]).await;
    let internal = format!("--internal-listen={}", program.internal.address);

    let (health, output) = run_json(&["health", &internal]);

    assert_eq!(health, json!({ "status": "ready" }));
    assert!(output.status.success());
    assert!(program.stop().await.success());
    database.drop().await;
}

#[test]
fn the_help_of_a_command_shows_its_own_options() {
    for arguments in [&["api-key", "create"][..], &["verify"], &["order", "list"], &["health"]] {
        let text = help(arguments);

        assert!(text.contains("--json"), "{text}");
        assert!(text.contains("`revwallet --help` lists them"), "{text}");
        for setting in ["--listen", "--ledger-queue-max", "REVWALLET_", "DATABASE_URL"] {
            assert!(!text.contains(setting), "{arguments:?} shows {setting}: {text}");
        }
        assert!(text.lines().count() < 40, "{text}");
    }
    assert!(help(&["api-key", "create"]).contains("--scope <SCOPES>"));
    assert!(!help(&["serve"]).contains("--json"));
    let settings = help(&[]);
    assert!(settings.contains("--ledger-queue-max") && settings.contains("--json"));
}

#[test]
fn an_invalid_command_line_is_explained() {
    for (arguments, parts) in [
        (&["api-key", "create"][..], &["--name <NAME>", "--scope <SCOPES>", "Usage: "][..]),
        (
            &["api-key", "create", "--name=a", "--scope=money"],
            &["'money'", "wallet:read", "users:read", "admin"],
        ),
        (&["user", "role", "ada", "king"], &["'king'", "user, admin"]),
        (&["api-key", "remove"], &["remove"]),
        (&["order", "retry", "--reason=x"], &["<ORDER>"]),
    ] {
        let exit = run(arguments);

        assert_eq!(exit.code, Some(2), "{exit:?}");
        assert!(exit.stderr.starts_with("revwallet: "), "{}", exit.stderr);
        for part in parts {
            assert!(exit.stderr.contains(part), "{part:?} is not in: {}", exit.stderr);
        }
    }
}

#[test]
fn no_command_creates_a_database() {
    let folder = Folder::new();
    let data_dir = folder.0.join("data");
    let setting = format!("--data-dir={}", data_dir.display());
    for arguments in [
        &["api-key", "list"][..],
        &["api-key", "create", "--name=a", "--scope=admin"],
        &["user", "role", "ada", "admin"],
        &["jwt", "rotate"],
        &["order", "list"],
        &["exchange", "hot-wallets"],
        &["prize-account", "list"],
        &["game", "import", "games.csv"],
        &["audit"],
        &["verify"],
        &["restored"],
    ] {
        let exit = run(&[arguments, &[&setting]].concat());

        assert_eq!(exit.code, Some(1), "{arguments:?}: {exit:?}");
        assert_eq!(exit.stderr.lines().count(), 1, "{arguments:?}: {}", exit.stderr);
        for part in [data_dir.to_str().unwrap(), "revwallet migrate", "start the server"] {
            assert!(exit.stderr.contains(part), "{part:?} is not in: {}", exit.stderr);
        }
        assert!(!data_dir.exists(), "{arguments:?} created the data directory");
    }
}

#[test]
fn a_command_uses_the_database_that_migrate_created() {
    let folder = Folder::new();
    assert_eq!(run(&["migrate", &folder.setting()]).code, Some(0));

    let create = ["api-key", "create", "--name=a", "--scope=admin", &folder.setting()];
    let (created, output) = run_json(&create);

    assert!(output.status.success(), "{output:?}");
    assert_eq!(created["id"], "1");
}

#[tokio::test]
async fn a_command_neither_migrates_a_database_nor_uses_an_older_or_newer_one() {
    let empty = Database::create_empty().await;
    let newer = Database::create().await;
    newer
        .execute("insert into _sqlx_migrations values (99999999, 'later', now(), true, '', 0)")
        .await;
    for (database, part) in [(&empty, "run `revwallet migrate` first"), (&newer, "newer revwallet")]
    {
        let url = format!("--database-url={}", database.url);
        for arguments in [&["api-key", "list"][..], &["audit"], &["verify"], &["order", "list"]] {
            let exit = run(&[arguments, &[&url]].concat());

            assert_eq!(exit.code, Some(1), "{exit:?}");
            assert_eq!(exit.stderr.lines().count(), 1, "{}", exit.stderr);
            assert!(exit.stderr.contains(part), "{part:?} is not in: {}", exit.stderr);
        }
    }
    let url = format!("--database-url={}", empty.url);
    // The setting is for servers: the command that migrates always does.
    let migrate = command(&["migrate", &url]).env("REVWALLET_NO_MIGRATE", "true").output().unwrap();
    assert!(migrate.status.success(), "{migrate:?}");
    assert_eq!(run(&["api-key", "list", &url]).code, Some(0));
    empty.drop().await;
    newer.drop().await;
}

#[tokio::test]
async fn an_exponent_in_an_amount_is_refused() {
    let database = Database::create().await;
    let url = format!("--database-url={}", database.url);
    for arguments in [
        &["prize-account", "deposit", "--in=EUR", "--amount=1e3"][..],
        &["exchange", "fund", "--in=EUR", "--amount=1e2", "--reason=test"],
    ] {
        let output = command(&[arguments, &[url.as_str(), "--allow-unsafe-server"]].concat())
            .output()
            .unwrap();

        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        let message = "revwallet: --amount must be a decimal number without an exponent\n";
        assert!(error.ends_with(message), "{error}");
    }
    database.drop().await;
}

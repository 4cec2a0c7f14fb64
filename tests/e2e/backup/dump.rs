//! Logical backups: a `pg_dump`, as `kind/` makes every night, restored into another server.

use std::path::Path;

use super::{Site, deposit, wallet};
use crate::harness::postgres::run_client;
use crate::harness::program::{command, run};

/// Returns the URL of a database of the embedded server of a data directory.
fn url(data: &Path, database: &str) -> String {
    let text = std::fs::read_to_string(data.join("postgres/postmaster.pid")).unwrap();
    format!("postgres://revwallet@localhost/{database}?host={}", text.lines().nth(4).unwrap())
}

#[tokio::test]
async fn a_dump_is_restored_completely() {
    let (site, other) = (Site::new(), Site::new());
    let program = site.start(&site.data()).await;
    let id = wallet(&program.public).await;
    deposit(&program.public, &id, "a").await;
    let file = site.folder.0.join("revwallet.dump");
    let from = url(&site.data(), "revwallet");
    let data = format!("--data-dir={}", site.data().display());
    let report = command(&["verify", "--log-filter=warn", &data]).output().unwrap();
    let report = String::from_utf8(report.stdout).unwrap();
    let anchor = report.lines().find_map(|line| line.strip_prefix("head ")).unwrap().to_owned();

    run_client(&format!("pg_dump --dbname='{from}' --format=custom --file={}", file.display()));
    deposit(&program.public, &id, "b").await;
    assert!(program.stop().await.success());
    // Another server has other transaction ids; its roles come from the migrations.
    let server = other.start(&other.data()).await;
    let (default, new) = (url(&other.data(), "revwallet"), url(&other.data(), "back"));
    run_client(&format!("psql --quiet --dbname='{default}' --command='create database back'"));
    run_client(&format!("pg_restore --exit-on-error --dbname='{new}' {}", file.display()));

    let into = format!("--database-url={new}");
    let ready = run(&["restored", "--log-filter=warn", &into]);
    assert_eq!(ready.code, Some(0), "{}", ready.stderr);
    let anchor = format!("--anchor={anchor}");
    let verified = run(&["verify", "--log-filter=warn", &into, &anchor]);
    assert_eq!(verified.code, Some(0), "{}", verified.stderr);
    let arguments = [&into as &str, "--access=open", "--password-memory=512"];
    let program = crate::harness::Program::start(&arguments).await;
    assert!(deposit(&program.public, &id, "a").await, "the deposit before the dump is missing");
    assert!(!deposit(&program.public, &id, "b").await, "the deposit after the dump was restored");
    assert!(program.stop().await.success());
    assert!(server.stop().await.success());
}

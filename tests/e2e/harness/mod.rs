//! Harness: starts the real app for one test, and checks the invariants at its end.

pub mod alerts;
pub mod browser;
pub mod check;
pub mod client;
mod contract;
pub mod examples;
pub mod grpc;
pub mod logs;
pub mod newman;
#[path = "../../../src/bin/revwallet-bench/otlp_collector.rs"]
pub mod otlp_collector;
pub mod postgres;
pub mod program;
pub mod receiver;
pub mod server;
pub mod small_socket;
pub mod smtp;
pub mod socket;
pub mod users;

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::{Duration, Instant};

use clap::Parser;
use revwallet::app::config::Config;
use revwallet::app::{App, Running};
use revwallet::cli::Cli;
use revwallet::telemetry::Telemetry;
use serde_json::json;

pub use client::{Client, Response};
pub use logs::Logs;
pub use program::Program;
pub use socket::Socket;

/// The app under test, with a database of its own.
pub struct TestApp {
    running: Running,
    client: Client,
    pub internal: Client,
    pub logs: Logs,
    pub database: postgres::Database,
}

impl Deref for TestApp {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl TestApp {
    /// Returns the app itself, for operations that have no route.
    pub fn app(&self) -> &App {
        self.running.app()
    }

    /// Opens a wallet with an initial balance and returns its id.
    pub async fn open_wallet(&self, currency: &str, balance: &str) -> String {
        let body = json!({ "owner": "ada", "initial_balance": balance, "currency": currency });
        let response = self.post("/wallet", body).await;
        assert_eq!(response.status, 201, "{}", response.text);
        response.json()["id"].as_str().unwrap().to_owned()
    }
}

/// Number of log lines that are printed if a test fails.
const LINES_PRINTED: usize = 100;

/// Runs a test against an app of its own, with default settings.
pub async fn run(test: impl AsyncFnOnce(&TestApp)) {
    run_with(&[], test).await;
}

/// Runs a test against an app of its own, with additional command line flags.
pub async fn run_with(settings: &[&str], test: impl AsyncFnOnce(&TestApp)) {
    let database = postgres::Database::create().await;
    let config =
        config(&[&[&format!("--database-url={}", database.url) as &str], settings].concat());
    let logs = Logs::default();
    // Each test has a single-threaded runtime, so the log of this thread is the log of this app.
    let (telemetry, guard) = Telemetry::install_here(&config.telemetry, logs.clone());
    let _printed_on_failure = PrintedOnFailure(logs.clone());
    let running = App::start(&config, &telemetry.metrics).await.unwrap();
    let app = TestApp {
        client: Client::new(running.address.expect("the app listens on a public address")),
        internal: Client::new(running.internal_address),
        logs: logs.clone(),
        database,
        running,
    };

    test(&app).await;

    check::while_running(&app).await;
    let TestApp { running, database, .. } = app;
    assert!(running.stop().await, "the app did not shut down in time");
    drop(guard);
    drop(telemetry);
    check::logs(&logs);
    check::book(&database).await;
    database.drop().await;
}

/// The log of an app. Its last lines are printed if the test fails.
struct PrintedOnFailure(Logs);

impl Drop for PrintedOnFailure {
    #[expect(clippy::print_stdout, reason = "the test fails, and its output is shown")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.0.text();
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_PRINTED)..];
            println!("last lines of the log:\n{}", last.join("\n"));
        }
    }
}

/// Parses command line flags into a configuration, with free ports and cheap password hashing by default.
pub fn config(settings: &[&str]) -> Config {
    let fixed = [
        "revwallet",
        "--internal-listen=127.0.0.1:0",
        "--log-filter=debug,hyper=warn,sqlx=warn,reqwest=warn,tokio_postgres=warn",
        // The Postgres server of a test run has `fsync` off.
        "--allow-unsafe-server",
    ];
    // Few tests depend on these; each can be overridden by a test.
    let overridable =
        ["--listen=127.0.0.1:0", "--access=open", "--password-memory=512", "--password-passes=1"];
    let overridable = overridable.into_iter().filter(|default| {
        let name = default.split('=').next().unwrap_or_default();
        !settings.iter().any(|setting| setting.starts_with(name))
    });
    let arguments = fixed.into_iter().chain(overridable).chain(settings.iter().copied());
    Cli::try_parse_from(arguments).unwrap().config
}

/// Returns whether long-running tests are enabled, by `scripts/test --long`.
pub fn is_long() -> bool {
    std::env::var_os("REVWALLET_TEST_LONG").is_some()
}

/// Polls until a condition holds, for at most 30 seconds: a busy machine is slow.
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(Duration::from_secs(30), what, condition).await;
}

/// Polls until a condition holds, for at most `limit`.
pub async fn eventually_within(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> bool,
) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns a loopback address that no process listens on at present.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

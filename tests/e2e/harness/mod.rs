//! Starts the real app for one test, and checks afterwards what must always hold.

pub mod browser;
pub mod check;
pub mod client;
pub mod logs;
pub mod people;
pub mod postgres;
pub mod program;
pub mod receiver;
pub mod server;

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::{Duration, Instant};

use clap::Parser;
use revwallet::app::config::Config;
use revwallet::app::{App, Running};
use revwallet::cli::Cli;
use revwallet::telemetry::Telemetry;
use serde_json::json;

pub use client::{Answer, Client};
pub use logs::Logs;
pub use program::Program;

/// The app of one test.
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
    /// The app itself, for what has no route.
    pub fn app(&self) -> &App {
        self.running.app()
    }

    /// A wallet with this balance; its id.
    pub async fn open_wallet(&self, currency: &str, balance: &str) -> String {
        let body = json!({ "owner": "somebody", "initial_balance": balance, "currency": currency });
        let answer = self.post("/wallet", body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

/// Runs `test` against an app of its own, with the settings that tests share.
pub async fn run(test: impl AsyncFnOnce(&TestApp)) {
    run_with(&[], test).await;
}

/// The same with some settings of its own, as on the command line.
pub async fn run_with(settings: &[&str], test: impl AsyncFnOnce(&TestApp)) {
    let database = postgres::Database::create().await;
    let config =
        config(&[&[&format!("--database-url={}", database.url) as &str], settings].concat());
    let logs = Logs::default();
    // Each test has a runtime of one thread, so what this thread logs is what this app logs.
    let (telemetry, guard) = Telemetry::install_here(&config.telemetry, logs.clone());
    let running = App::start(&config, &telemetry.metrics).await.unwrap();
    let app = TestApp {
        client: Client::new(running.address.expect("tests serve")),
        internal: Client::new(running.internal_address),
        logs: logs.clone(),
        database,
        running,
    };

    test(&app).await;

    check::while_running(&app).await;
    let TestApp { running, database, .. } = app;
    assert!(running.stop().await, "the app did not stop in time");
    drop(guard);
    drop(telemetry);
    check::logs(&logs);
    check::book(&database).await;
    database.drop().await;
}

/// Settings as the command line would give them, with free ports and without patience.
pub fn config(settings: &[&str]) -> Config {
    let usual = [
        "revwallet",
        "--internal-listen=127.0.0.1:0",
        "--log-filter=debug,hyper=warn,sqlx=warn,reqwest=warn,h2=warn,tokio_postgres=warn",
        // The server of a test run has `fsync` off.
        "--allow-unsafe-server",
    ];
    // What a hash costs matters in few tests.
    let others =
        ["--listen=127.0.0.1:0", "--access=open", "--password-memory=512", "--password-passes=1"];
    let others = others.into_iter().filter(|other| {
        let name = other.split('=').next().unwrap_or_default();
        !settings.iter().any(|setting| setting.starts_with(name))
    });
    let words = usual.into_iter().chain(others).chain(settings.iter().copied());
    Cli::try_parse_from(words).unwrap().config
}

/// Whether the longer sweeps are asked for: `scripts/test --long`.
pub fn is_long() -> bool {
    std::env::var_os("REVWALLET_TEST_LONG").is_some()
}

/// Waits until `holds` does, at most half a minute: a busy machine is slow.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually_within(Duration::from_secs(30), what, holds).await;
}

/// The same with more patience.
pub async fn eventually_within(limit: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An address that nobody listens on now.
pub fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

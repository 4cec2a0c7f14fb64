//! Scenario `leaderboard`: reads of pages, ranks and neighbors on a leaderboard with a million entries, during 500
//! submissions per second, for three score patterns.
//!
//! Requests are due at fixed times, and their latencies are measured from these times, so the latencies show whether
//! the server falls behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::book::BenchBook;
use crate::context::BenchContext;
use crate::load::latency::LatencyHistogram;
use crate::report::{Measurement, ReportSection, TargetBound};
use crate::samples::{LoadResult, LoadSample};
use crate::sql;

/// Number of score submissions per second.
const SUBMISSIONS: u32 = 500;

/// Number of reads per second, for each kind of read.
const READS: u32 = 50;

/// Number of connections that submit scores.
const SUBMITTERS: u32 = 32;

/// Number of connections for each kind of read.
const READERS: u32 = 4;

/// Duration of the warm-up before each measurement. The first statements of a database connection are slow, because
/// Postgres has to plan them.
const WARM_UP: Duration = Duration::from_secs(2);

/// Target for the 99th percentile of read latencies, in milliseconds.
const P99_MAX_MS: f64 = 10.0;

const PATTERNS: [&str; 3] = ["random", "equal", "rising"];

/// Kind of request that a connection repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Submit,
    Page,
    Rank,
    Around,
}

impl Operation {
    const fn label(self) -> &'static str {
        match self {
            Self::Submit => "submissions",
            Self::Page => "pages of 100",
            Self::Rank => "ranks",
            Self::Around => "entries with 10 neighbors",
        }
    }

    const fn rate_and_connections(self) -> (u32, u32) {
        match self {
            Self::Submit => (SUBMISSIONS, SUBMITTERS),
            _ => (READS, READERS),
        }
    }
}

/// A leaderboard on a server.
#[derive(Debug, Clone)]
struct Board {
    http: reqwest::Client,
    url: String,
    key: Arc<str>,
    pattern: &'static str,
    entries: i64,
    /// Page cursors spread over the whole board. Each page read begins after a random cursor.
    cursors: Arc<[String]>,
}

pub(super) async fn measure(context: &BenchContext) -> anyhow::Result<ReportSection> {
    let book = BenchBook::create(&context.postgres, "leaderboard").await?;
    let server = context.start_server(&book).await?;
    let key: Arc<str> = create_key(context, &book).await?.into();
    let monitor = context.monitor(&[server.id()]);
    let entries = context.args.leaderboard_entries;
    let mut section = ReportSection::default();
    // The HTTP client needs a TLS provider, although it does not use TLS.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    for pattern in PATTERNS {
        tracing::info!("measuring a leaderboard of {entries} entries with {pattern} scores");
        let board = Board {
            http: reqwest::Client::new(),
            url: format!("http://{}/api/leaderboards/{pattern}", server.address),
            key: Arc::clone(&key),
            pattern,
            entries,
            cursors: Arc::new([]),
        };
        let put = with_json(board.http.put(&board.url), &json!({ "operator": "set" }));
        put.bearer_auth(&board.key).send().await?.error_for_status()?;
        let places = sql::fill_board(&mut book.connect().await?, pattern, entries).await?;
        let cursors = places.iter().map(|place| BASE64_URL_SAFE_NO_PAD.encode(place)).collect();
        let board = Board { cursors, ..board };
        board.run_all(WARM_UP).await?;
        let (results, usage) = monitor.measure(board.run_all(context.args.duration)).await?;
        for (operation, result) in results {
            let sample = LoadSample { result, usage };
            let label = format!("{}, {pattern} scores", operation.label());
            if operation != Operation::Submit {
                let label = format!("p99 of {label}, in milliseconds");
                section.add_target(label, sample.p99_ms(), TargetBound::AtMost(P99_MAX_MS));
            }
            let (_, connections) = operation.rate_and_connections();
            section.measurements.push(Measurement::new(label, connections as usize, sample));
        }
    }
    server.kill().await?;
    section.add_note(format!(
        "Leaderboards: {entries} entries; reads and submissions are sent at fixed times, {SUBMISSIONS} submissions and {READS} reads of each kind a second."
    ));
    Ok(section)
}

fn with_json(
    request: reqwest::RequestBuilder,
    body: &serde_json::Value,
) -> reqwest::RequestBuilder {
    request.header("content-type", "application/json").body(body.to_string())
}

/// Creates an API key by running the command `api-key create` of the server binary.
async fn create_key(context: &BenchContext, book: &BenchBook) -> anyhow::Result<String> {
    let arguments = ["api-key", "create", "--name=bench", "--scope=events:write"];
    let output = Command::new(&context.server_binary)
        .args(arguments)
        .args(["--database-url", &book.url])
        .output()
        .await?;
    let text = String::from_utf8(output.stdout)?;
    let key = text.lines().find(|line| line.starts_with("rwk_"));
    Ok(key.context("no API key was created")?.to_owned())
}

impl Board {
    /// Runs all operations at the same time, each at its own rate.
    async fn run_all(&self, duration: Duration) -> anyhow::Result<Vec<(Operation, LoadResult)>> {
        let operations = [Operation::Submit, Operation::Page, Operation::Rank, Operation::Around];
        let loads = operations.map(|operation| self.run(operation, duration));
        let results = futures_util::future::try_join_all(loads).await?;
        Ok(operations.into_iter().zip(results).collect())
    }

    async fn run(&self, operation: Operation, duration: Duration) -> anyhow::Result<LoadResult> {
        let (rate, connections) = operation.rate_and_connections();
        let (began, end) = (Instant::now(), Instant::now() + duration);
        let interval = Duration::from_secs(1) * connections / rate;
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let (board, first) = (self.clone(), began + interval * connection / connections);
            tasks.spawn(async move {
                let mut latencies = LatencyHistogram::default();
                let mut due = first;
                while due < end {
                    tokio::time::sleep_until(due.into()).await;
                    board.request(operation).await?;
                    latencies.record(due.elapsed());
                    due += interval;
                }
                Ok(latencies)
            });
        }
        LoadResult::join(tasks, began, 1.0).await
    }

    async fn request(&self, operation: Operation) -> anyhow::Result<()> {
        let player = fastrand::i64(1..=self.entries);
        let request = match operation {
            Operation::Submit => {
                let (user, score) = self.submission();
                let body = json!({ "user": user, "score": score });
                with_json(self.http.post(format!("{}/scores", self.url)), &body)
            }
            Operation::Page => {
                let at = fastrand::usize(..self.cursors.len());
                self.http.get(format!("{}?limit=100&after={}", self.url, self.cursors[at]))
            }
            Operation::Rank => {
                self.http.get(format!("{}/users/player-{player}?around=0", self.url))
            }
            Operation::Around => {
                self.http.get(format!("{}/users/player-{player}?around=5", self.url))
            }
        };
        let response = request.bearer_auth(&self.key).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(status.is_success(), "{operation:?} returned {status}: {body:?}");
        Ok(())
    }

    fn submission(&self) -> (String, i64) {
        let player = fastrand::i64(1..=self.entries);
        match self.pattern {
            "random" => (format!("player-{player}"), fastrand::i64(0..1_000_000_000)),
            // Each new player gets the score that all entries have.
            "equal" => (format!("new-{}", fastrand::u64(..)), sql::EQUAL_SCORE),
            // Each submission is the best score so far, because the current time in milliseconds is above all scores of
            // the board.
            _ => (format!("player-{player}"), milliseconds()),
        }
    }
}

fn milliseconds() -> i64 {
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000;
    i64::try_from(now).unwrap_or(i64::MAX)
}

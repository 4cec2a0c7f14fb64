//! Log lines pushed to Loki: each arrives once and complete, outages are survived, and lost lines are counted.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use serde_json::Value;

use crate::harness::logs::parse_line;
use crate::harness::otlp_collector::start_collector;
use crate::harness::program::Folder;
use crate::harness::{Program, eventually, eventually_within};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A failure of the stub.
#[derive(Clone, Copy)]
enum Failure {
    Status(u16),
    Hang,
}

/// A stub of Loki that fails a number of requests, then accepts everything.
#[derive(Clone, Default)]
struct LokiStub(Arc<Mutex<StubState>>);

#[derive(Default)]
struct StubState {
    failures: Vec<Failure>,
    accepted: Vec<Value>,
}

impl LokiStub {
    fn failing(failures: impl IntoIterator<Item = Failure>) -> Self {
        let stub = Self::default();
        stub.0.lock().unwrap().failures = failures.into_iter().collect();
        stub
    }

    /// Starts the stub and returns the flag with its address.
    async fn start(&self) -> String {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("--loki-url=http://{}", socket.local_addr().unwrap());
        let router = Router::new().route("/loki/api/v1/push", post(push)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        url
    }

    fn recover(&self) {
        self.0.lock().unwrap().failures.clear();
    }

    fn failures_left(&self) -> usize {
        self.0.lock().unwrap().failures.len()
    }

    /// Returns each entry with its labels; an entry is a timestamp, a line and structured metadata.
    fn entries(&self) -> Vec<(Value, Value)> {
        let accepted = &self.0.lock().unwrap().accepted;
        let streams = accepted.iter().flat_map(|body| body["streams"].as_array().unwrap());
        streams
            .flat_map(|stream| {
                let entries = stream["values"].as_array().unwrap();
                entries.iter().map(|entry| (stream["stream"].clone(), entry.clone()))
            })
            .collect()
    }

    /// Returns the number of lines that arrived per request id.
    fn requests(&self) -> BTreeMap<String, u32> {
        let mut requests = BTreeMap::new();
        for (_, entry) in self.entries() {
            if let Some(id) = entry[2]["request_id"].as_str() {
                *requests.entry(id.to_owned()).or_default() += 1;
            }
        }
        requests
    }
}

async fn push(State(stub): State<LokiStub>, body: axum::Json<Value>) -> StatusCode {
    let failure = stub.0.lock().unwrap().failures.pop();
    match failure {
        Some(Failure::Status(status)) => StatusCode::from_u16(status).unwrap(),
        Some(Failure::Hang) => pending().await,
        None => {
            stub.0.lock().unwrap().accepted.push(body.0);
            StatusCode::NO_CONTENT
        }
    }
}

async fn request(program: &Program, id: &str) {
    let request = program.public.request(reqwest::Method::GET, "/problems/nope");
    assert_eq!(program.public.send(request.header("x-request-id", id)).await.status, 404);
}

/// Returns the sum of the metric samples whose series starts with `prefix`.
async fn metric(program: &Program, prefix: &str) -> f64 {
    let metrics = program.internal.get("/metrics").await.text;
    let samples = metrics.lines().filter(|line| line.starts_with(prefix));
    samples.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

/// Returns the names of the fields in the access line of a request to a program with these flags.
async fn fields_of_a_request(flags: &[&str]) -> Vec<String> {
    let (loki, folder) = (LokiStub::default(), Folder::new());
    let arguments = [&[&folder.setting() as &str, &loki.start().await, "--access=open"], flags];
    let program = Program::start(&arguments.concat()).await;
    let line = || {
        let entries = loki.entries().into_iter().map(|(_, entry)| entry);
        let lines = entries.filter_map(|entry| entry[1].as_str().map(parse_line));
        lines
            .into_iter()
            .find(|line| line["event"] == "http.request" && line["http.route"] == "/wallet")
    };

    assert_eq!(program.public.get("/wallet").await.status, 200);

    eventually("the line arrives", async || line().is_some()).await;
    // A span that still waits is exported at the end.
    assert!(program.stop().await.success());
    let line = line().unwrap();
    assert_eq!(
        (&line["caller"], &line["http.response.status_code"]),
        (&"anybody".into(), &200.into())
    );
    let mut fields: Vec<String> = line.as_object().unwrap().keys().cloned().collect();
    fields.sort_unstable();
    fields
}

#[tokio::test]
async fn a_request_logs_the_same_fields_whether_its_trace_is_exported_or_not() {
    let is_traced = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_traced);
    let collector = start_collector(0, move |_| seen.store(true, Ordering::Relaxed)).await.unwrap();
    let collector = format!("--otlp-endpoint=http://{collector}");

    let untraced = fields_of_a_request(&[]).await;
    let traced = fields_of_a_request(&[&collector]).await;
    eventually("a span arrives", async || is_traced.load(Ordering::Relaxed)).await;
    let disabled =
        fields_of_a_request(&[&collector, "--log-filter=info,revwallet::http::context=off"]).await;

    assert_eq!(traced, untraced);
    assert_eq!(disabled, untraced);
}

const LOST: &str = r#"wallet_loki_lines_total{outcome="lost"}"#;

#[tokio::test]
async fn lines_arrive_once_even_if_the_first_attempts_fail() {
    let folder = Folder::new();
    let loki = LokiStub::failing([Failure::Status(503), Failure::Status(500)]);
    let url = loki.start().await;
    let program = Program::start(&[&folder.setting() as &str, &url, "--environment=test"]).await;
    let request = program.public.request(reqwest::Method::GET, "/problems/nope");
    let traced = request.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
    program.public.send(traced).await;

    assert!(program.stop().await.success());

    let entries = loki.entries();
    let matching: Vec<_> =
        entries.iter().filter(|(_, entry)| entry[2]["trace_id"] == TRACE).collect();
    let [(labels, entry)] = matching[..] else { panic!("expected one entry, not {matching:?}") };
    assert_eq!(labels["service"], "revwallet");
    assert_eq!((&labels["env"], &labels["level"]), (&Value::from("test"), &Value::from("INFO")));
    let line: Value = serde_json::from_str(entry[1].as_str().unwrap()).unwrap();
    assert_eq!(line["http.route"], "/problems/{slug}");
    let has_last_line =
        entries.iter().any(|(_, entry)| entry[1].as_str().unwrap().contains("serve.stopped"));
    assert!(has_last_line, "the last line of the log did not arrive");
}

#[tokio::test]
async fn rejected_lines_are_counted_and_delay_no_request() {
    let folder = Folder::new();
    let loki = LokiStub::failing([Failure::Status(400); 1_000]);
    let url = loki.start().await;
    let program = Program::start(&[&folder.setting() as &str, &url]).await;

    eventually("the loss is counted", async || metric(&program, LOST).await > 0.0).await;
    assert_eq!(program.public.get("/openapi.json").await.status, 200);
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn an_outage_loses_no_line_that_fits_into_the_buffer() {
    const ATTEMPTS: usize = 9;
    let folder = Folder::new();
    // With the pauses between attempts, an outage of 13 seconds.
    let loki = LokiStub::failing([Failure::Status(503); ATTEMPTS]);
    let url = loki.start().await;
    let program = Program::start(&[&folder.setting() as &str, &url]).await;

    let mut expected = BTreeMap::new();
    for failures_left in (0..ATTEMPTS).rev() {
        eventually("the next attempt fails", async || loki.failures_left() <= failures_left).await;
        for number in 0..20 {
            let id = format!("{failures_left}-{number}");
            request(&program, &id).await;
            expected.insert(id, 1);
        }
    }

    eventually("every line has arrived", async || loki.requests().len() == expected.len()).await;
    assert_eq!(loki.requests(), expected, "a line was lost or duplicated");
    assert!(metric(&program, LOST).await < f64::EPSILON);
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn while_loki_hangs_the_oldest_lines_are_dropped_and_counted() {
    let folder = Folder::new();
    let loki = LokiStub::failing([Failure::Hang; 1_000]);
    let url = loki.start().await;
    let arguments = [&folder.setting() as &str, &url, "--export-buffer-bytes=20000"];
    let program = Program::start(&arguments).await;

    for number in 0..200 {
        request(&program, &number.to_string()).await;
    }

    eventually("the loss is counted", async || metric(&program, LOST).await > 0.0).await;
    loki.recover();
    let limit = std::time::Duration::from_mins(1);
    eventually_within(limit, "the newest line has arrived", async || {
        loki.requests().get("199") == Some(&1)
    })
    .await;
    assert_eq!(loki.requests().get("0"), None, "the oldest line must be dropped first");
    eventually("every line is either pushed or lost", async || {
        let outcomes = metric(&program, "wallet_loki_lines_total").await;
        (outcomes - metric(&program, "wallet_log_events_total").await).abs() < f64::EPSILON
    })
    .await;
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn a_hanging_loki_does_not_delay_the_shutdown() {
    let folder = Folder::new();
    let loki = LokiStub::failing([Failure::Hang; 1_000]);
    let url = loki.start().await;
    let program = Program::start(&[&folder.setting() as &str, &url]).await;
    request(&program, "1").await;

    assert!(program.stop().await.success());
    assert!(loki.entries().is_empty());
}

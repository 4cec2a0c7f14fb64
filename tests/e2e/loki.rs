//! Lines that are pushed: they arrive once and whole, and what is lost is counted.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use serde_json::Value;

use crate::harness::program::Folder;
use crate::harness::{Program, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// What it answers first, and what it took after that.
#[derive(Clone, Default)]
struct Loki(Arc<Mutex<(Vec<u16>, Vec<Value>)>>);

impl Loki {
    async fn start(&self) -> String {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("--loki-url=http://{}", socket.local_addr().unwrap());
        let router = Router::new().route("/loki/api/v1/push", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(socket, router).await });
        url
    }

    /// Each entry with its labels: when, the line, and what finds it.
    fn entries(&self) -> Vec<(Value, Value)> {
        let taken = &self.0.lock().unwrap().1;
        let streams = taken.iter().flat_map(|body| body["streams"].as_array().unwrap());
        streams
            .flat_map(|stream| {
                let entries = stream["values"].as_array().unwrap();
                entries.iter().map(|entry| (stream["stream"].clone(), entry.clone()))
            })
            .collect()
    }
}

async fn take(State(loki): State<Loki>, body: axum::Json<Value>) -> StatusCode {
    let mut loki = loki.0.lock().unwrap();
    if let Some(status) = loki.0.pop() {
        return StatusCode::from_u16(status).unwrap();
    }
    loki.1.push(body.0);
    StatusCode::NO_CONTENT
}

#[tokio::test]
async fn lines_arrive_once_also_when_the_first_attempts_fail() {
    let (loki, folder) = (Loki::default(), Folder::new());
    loki.0.lock().unwrap().0 = vec![503, 500];
    let url = loki.start().await;
    let program = Program::start(&[&folder.setting() as &str, &url, "--environment=test"]).await;
    let request = program.public.request(reqwest::Method::GET, "/problems/nope");
    let traced = request.header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
    program.public.send(traced).await;

    assert!(program.stop().await.success());

    let entries = loki.entries();
    let of_request: Vec<_> =
        entries.iter().filter(|(_, entry)| entry[2]["trace_id"] == TRACE).collect();
    let [(labels, entry)] = of_request[..] else { panic!("once, not {of_request:?}") };
    assert_eq!(labels["service"], "revwallet");
    assert_eq!((&labels["env"], &labels["level"]), (&Value::from("test"), &Value::from("INFO")));
    let line: Value = serde_json::from_str(entry[1].as_str().unwrap()).unwrap();
    assert_eq!(line["http_route"], "/problems/{slug}");
    let last =
        entries.iter().any(|(_, entry)| entry[1].as_str().unwrap().contains("serve.stopped"));
    assert!(last, "the last line arrives too");
}

#[tokio::test]
async fn lines_that_are_not_taken_are_counted_and_hold_nobody_up() {
    let (loki, folder) = (Loki::default(), Folder::new());
    loki.0.lock().unwrap().0 = vec![400; 1_000];
    let url = loki.start().await;
    let program = Program::start(&[&folder.setting() as &str, &url]).await;

    eventually("the loss is counted", async || {
        let metrics = program.internal.get("/metrics").await.text;
        let lost = r#"wallet_loki_lines_total{outcome="lost"} "#;
        let lost = metrics.lines().find_map(|line| line.strip_prefix(lost));
        lost.is_some_and(|lost| lost.parse::<f64>().unwrap() > 0.0)
    })
    .await;
    assert_eq!(program.public.get("/openapi.json").await.status, 200);
    assert!(program.stop().await.success());
}

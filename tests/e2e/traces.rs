//! Spans as a collector gets them: one trace from the caller to the webhook, and the batch that it shares.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::Method;
use revwallet::bench::collector::collect;
use serde_json::json;

use crate::harness::receiver::Receiver;
use crate::harness::{Program, eventually, free_address, program::Folder};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Span>>>);

impl Collected {
    /// Starts a collector; where it is, as a setting.
    async fn start(&self) -> String {
        self.start_at(0).await
    }

    async fn start_at(&self, port: u16) -> String {
        let spans = Arc::clone(&self.0);
        let address = collect(port, move |message| {
            let request = ExportTraceServiceRequest::decode(message).unwrap();
            let scopes = request.resource_spans.into_iter().flat_map(|spans| spans.scope_spans);
            spans.lock().unwrap().extend(scopes.flat_map(|scope| scope.spans));
        });
        format!("--otlp-endpoint=http://{}", address.await.unwrap())
    }

    fn of_trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| hex(&span.trace_id) == trace).cloned().collect()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap();
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn leads_to(from: &Span, to: &Span) -> bool {
    from.links.iter().any(|link| link.span_id == to.span_id && link.trace_id == to.trace_id)
}

async fn deposit(program: &Program, wallet: &str, headers: &[(&str, String)]) {
    let mut request = program.public.request(Method::POST, "/wallet/deposit");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = program.public.send(request.json(&json!({ "id": wallet, "amount": 1 }))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

async fn wallet(program: &Program) -> String {
    let body = json!({ "owner": "a", "initial_balance": 5, "currency": "EUR" });
    program.public.post("/wallet", body).await.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_trace_leads_from_the_caller_to_the_webhook() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let words = [&folder.setting() as &str, &endpoint, "--webhook-allow-private"];
    let program = Program::start(&words).await;
    let receiver = Receiver::start().await;
    let wallet = wallet(&program).await;
    let hook = json!({ "url": receiver.url(), "events": ["*"] });
    assert_eq!(program.public.post("/wallet/webhook", hook).await.status, 201);

    deposit(&program, &wallet, &[("traceparent", format!("00-{TRACE}-{CALLER}-01"))]).await;

    let all = ["POST /wallet/deposit", "ledger.post", "webhook.deliver"];
    eventually("the spans have arrived", async || {
        let spans = collected.of_trace(TRACE);
        all.iter().all(|name| spans.iter().any(|span| span.name == *name))
            && collected
                .named("ledger.batch")
                .iter()
                .any(|batch| spans.iter().any(|span| leads_to(batch, span)))
    })
    .await;
    let spans = collected.of_trace(TRACE);
    let [request, posting, told] =
        all.map(|name| spans.iter().find(|span| span.name == name).unwrap());
    assert_eq!(hex(&request.parent_span_id), CALLER);
    let attributes = format!("{:?}", request.attributes);
    assert!(
        attributes.contains("http.response.status_code") && attributes.contains("IntValue(200)")
    );
    assert_eq!(posting.parent_span_id, request.span_id);
    assert_eq!(hex(&told.parent_span_id), TRACE[..16], "what the edge calls its own span");
    let batches = collected.named("ledger.batch");
    let batch = batches.iter().find(|batch| leads_to(batch, posting)).unwrap();
    assert!(leads_to(posting, batch), "and back");
    assert_ne!(batch.trace_id, posting.trace_id, "it is everybody's");
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn reads_show_what_they_ask_of_the_database() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let program = Program::start(&[&folder.setting() as &str, &endpoint]).await;
    let wallet = wallet(&program).await;

    program.public.get(&format!("/wallet/{wallet}/history")).await;

    eventually("the spans have arrived", async || {
        let requests = collected.named("GET /wallet/{id}/history");
        collected.0.lock().unwrap().iter().any(|span| {
            span.name.starts_with("wallet.")
                && requests.iter().any(|request| request.span_id == span.parent_span_id)
        })
    })
    .await;
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn of_the_traces_that_are_kept_every_batch_is() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let words = [&folder.setting() as &str, &endpoint, "--trace-ratio=0.3"];
    let program = Program::start(&words).await;
    let wallet = wallet(&program).await;

    for _ in 0..60 {
        deposit(&program, &wallet, &[]).await;
        let against = format!("00-{}-{CALLER}-00", uuid::Uuid::new_v4().simple());
        deposit(&program, &wallet, &[("traceparent", against)]).await;
    }

    assert!(program.stop().await.success());
    let (postings, batches) = (collected.named("ledger.post"), collected.named("ledger.batch"));
    assert!((1..60).contains(&postings.len()), "{} of 60 are kept", postings.len());
    for posting in &postings {
        assert!(batches.iter().any(|batch| leads_to(posting, batch) && leads_to(batch, posting)));
    }
}

#[tokio::test]
async fn a_collector_that_comes_late_gets_what_was_before() {
    let (collected, folder, port) = (Collected::default(), Folder::new(), free_address().port());
    let endpoint = format!("--otlp-endpoint=http://127.0.0.1:{port}");
    let program = Program::start(&[&folder.setting() as &str, &endpoint]).await;
    wallet(&program).await;
    // Until then it was asked at least once in vain.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;

    collected.start_at(port).await;

    eventually("the spans have arrived", async || !collected.named("POST /wallet").is_empty())
        .await;
    assert_eq!(collected.named("POST /wallet").len(), 1);
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn spans_that_nobody_takes_are_counted() {
    let folder = Folder::new();
    let program = Program::start(&[&folder.setting(), "--otlp-endpoint=http://127.0.0.1:1"]).await;

    wallet(&program).await;

    eventually("the loss is counted", async || {
        let metrics = program.internal.get("/metrics").await.text;
        let lost =
            metrics.lines().find_map(|line| line.strip_prefix("wallet_otlp_dropped_spans_total "));
        lost.unwrap().parse::<f64>().unwrap() > 0.0
    })
    .await;
    assert!(program.stop().await.success());
}

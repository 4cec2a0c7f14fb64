//! Exported spans: one trace from the client to the webhook, linked to the batch of its posting.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use reqwest::Method;
use serde_json::json;

use crate::harness::otlp_collector::start_collector;
use crate::harness::receiver::Receiver;
use crate::harness::{Program, eventually, free_address, program::Folder};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Span>>>);

impl Collected {
    /// Starts a collector on a free port and returns the flag with its address.
    async fn start(&self) -> String {
        self.start_at(0).await
    }

    async fn start_at(&self, port: u16) -> String {
        let spans = Arc::clone(&self.0);
        let address = start_collector(port, move |message| {
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

    fn with_name(&self, name: &str) -> Vec<Span> {
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

fn is_linked(from: &Span, to: &Span) -> bool {
    from.links.iter().any(|link| link.span_id == to.span_id && link.trace_id == to.trace_id)
}

async fn deposit(program: &Program, wallet: &str, headers: &[(&str, String)]) {
    let mut request = program.public.request(Method::POST, "/wallet/deposit");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let response = program.public.send(request.json(&json!({ "id": wallet, "amount": 1 }))).await;
    assert_eq!(response.status, 200, "{}", response.text);
}

async fn wallet(program: &Program) -> String {
    let body = json!({ "owner": "a", "initial_balance": 5, "currency": "EUR" });
    program.public.post("/wallet", body).await.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_trace_leads_from_the_client_to_the_webhook() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let arguments = [&folder.setting() as &str, &endpoint, "--webhook-allow-private"];
    let program = Program::start(&arguments).await;
    let receiver = Receiver::start().await;
    let wallet = wallet(&program).await;
    let webhook = json!({ "url": receiver.url(), "events": ["*"] });
    assert_eq!(program.public.post("/wallet/webhook", webhook).await.status, 201);

    deposit(&program, &wallet, &[("traceparent", format!("00-{TRACE}-{CLIENT_SPAN}-01"))]).await;

    let names = ["POST /wallet/deposit", "ledger.post", "webhook.deliver"];
    eventually("the spans have arrived", async || {
        let spans = collected.of_trace(TRACE);
        names.iter().all(|name| spans.iter().any(|span| span.name == *name))
            && collected
                .with_name("ledger.batch")
                .iter()
                .any(|batch| spans.iter().any(|span| is_linked(batch, span)))
    })
    .await;
    let spans = collected.of_trace(TRACE);
    let [request, posting, delivery] =
        names.map(|name| spans.iter().find(|span| span.name == name).unwrap());
    assert_eq!(hex(&request.parent_span_id), CLIENT_SPAN);
    let attributes = format!("{:?}", request.attributes);
    assert!(
        attributes.contains("http.response.status_code") && attributes.contains("IntValue(200)")
    );
    assert_eq!(posting.parent_span_id, request.span_id);
    assert!(delivery.parent_span_id.is_empty(), "only the id of the client's trace is known");
    let attributes = format!("{:?}", delivery.attributes);
    assert!(
        attributes.contains("server.address") && attributes.contains("http.response.status_code"),
        "{attributes}"
    );
    let batches = collected.with_name("ledger.batch");
    let batch = batches.iter().find(|batch| is_linked(batch, posting)).unwrap();
    assert!(is_linked(posting, batch), "the links are not mutual");
    assert_ne!(batch.trace_id, posting.trace_id, "the batch must have a trace of its own");
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn a_delivery_that_fails_is_an_error_below_the_root_of_its_trace() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let arguments = [&folder.setting() as &str, &endpoint, "--webhook-allow-private"];
    let program = Program::start(&arguments).await;
    let wallet = wallet(&program).await;
    let webhook = json!({ "url": format!("http://{}", free_address()), "events": ["*"] });
    assert_eq!(program.public.post("/wallet/webhook", webhook).await.status, 201);

    deposit(&program, &wallet, &[]).await;

    eventually("the spans have arrived", async || {
        !collected.with_name("webhook.deliver").is_empty()
            && !collected.with_name("POST /wallet/deposit").is_empty()
    })
    .await;
    let delivery = &collected.with_name("webhook.deliver")[0];
    let request = &collected.with_name("POST /wallet/deposit")[0];
    assert_eq!(delivery.trace_id, request.trace_id);
    assert_eq!(delivery.parent_span_id, request.span_id);
    let status = delivery.status.as_ref().expect("a status");
    assert!(status.message.starts_with("no connection to the receiver"), "{}", status.message);
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn above_a_rate_of_spans_fewer_traces_are_exported() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let arguments = [&folder.setting() as &str, &endpoint, "--trace-spans-max=1"];
    let program = Program::start(&arguments).await;
    let wallet = wallet(&program).await;
    let share = async || {
        let metrics = program.internal.get("/metrics").await.text;
        let share =
            metrics.lines().find_map(|line| line.strip_prefix("wallet_trace_sampled_ratio "));
        share.unwrap().parse::<f64>().unwrap()
    };

    let deposits = || collected.with_name("POST /wallet/deposit").len();

    let mut count = 0;
    eventually("the share falls, and a deposit has arrived", async || {
        deposit(&program, &wallet, &[]).await;
        count += 1;
        share().await < 0.1 && deposits() > 0
    })
    .await;
    for _ in 0..100 {
        deposit(&program, &wallet, &[]).await;
    }
    eventually("it rises without load", async || share().await > 0.99).await;

    assert!(program.stop().await.success());
    let exported = deposits();
    assert!((1..count + 100).contains(&exported), "{exported} of {}", count + 100);
}

#[tokio::test]
async fn a_read_has_spans_of_its_database_operations() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let program = Program::start(&[&folder.setting() as &str, &endpoint]).await;
    let wallet = wallet(&program).await;

    program.public.get(&format!("/wallet/{wallet}/history")).await;

    eventually("the spans have arrived", async || {
        let requests = collected.with_name("GET /wallet/{id}/history");
        collected.0.lock().unwrap().iter().any(|span| {
            span.name.starts_with("wallet.")
                && requests.iter().any(|request| request.span_id == span.parent_span_id)
        })
    })
    .await;
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn every_batch_of_a_sampled_trace_is_exported() {
    let (collected, folder) = (Collected::default(), Folder::new());
    let endpoint = collected.start().await;
    let arguments = [&folder.setting() as &str, &endpoint, "--trace-ratio=0.3"];
    let program = Program::start(&arguments).await;
    let wallet = wallet(&program).await;

    for _ in 0..60 {
        deposit(&program, &wallet, &[]).await;
        let unsampled = format!("00-{}-{CLIENT_SPAN}-00", uuid::Uuid::new_v4().simple());
        deposit(&program, &wallet, &[("traceparent", unsampled)]).await;
    }

    assert!(program.stop().await.success());
    let (postings, batches) =
        (collected.with_name("ledger.post"), collected.with_name("ledger.batch"));
    assert!((1..60).contains(&postings.len()), "{} of 60 are sampled", postings.len());
    for posting in &postings {
        assert!(batches.iter().any(|batch| is_linked(posting, batch) && is_linked(batch, posting)));
    }
}

#[tokio::test]
async fn a_collector_that_starts_late_receives_earlier_spans() {
    let (collected, folder, port) = (Collected::default(), Folder::new(), free_address().port());
    let endpoint = format!("--otlp-endpoint=http://127.0.0.1:{port}");
    let program = Program::start(&[&folder.setting() as &str, &endpoint]).await;
    wallet(&program).await;
    // At least one attempt fails before the collector starts.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;

    collected.start_at(port).await;

    eventually("the spans have arrived", async || !collected.with_name("POST /wallet").is_empty())
        .await;
    assert_eq!(collected.with_name("POST /wallet").len(), 1);
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn dropped_spans_are_counted() {
    let folder = Folder::new();
    let arguments = [
        &folder.setting() as &str,
        "--otlp-endpoint=http://127.0.0.1:1",
        "--export-buffer-bytes=2000",
    ];
    let program = Program::start(&arguments).await;

    for _ in 0..5 {
        wallet(&program).await;
    }

    eventually("the loss is counted", async || {
        let metrics = program.internal.get("/metrics").await.text;
        let lost =
            metrics.lines().find_map(|line| line.strip_prefix("wallet_otlp_dropped_spans_total "));
        lost.unwrap().parse::<f64>().unwrap() > 0.0
    })
    .await;
    assert!(program.stop().await.success());
}

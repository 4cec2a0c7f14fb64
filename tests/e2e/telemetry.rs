//! Access logs, metrics and traces of the app.

use revwallet::auth::Scope;
use revwallet::telemetry::Metrics;

use crate::harness::{Program, eventually, program, run, run_with};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

#[tokio::test]
async fn a_request_is_logged_in_one_line_with_its_ids() {
    run(async |app| {
        let request = app.request(reqwest::Method::GET, "/problems/nope");
        let request = request
            .header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"))
            .header("x-request-id", "mine-1");

        let response = app.send(request).await;

        assert_eq!(response.header("x-request-id"), "mine-1");
        eventually("the line is logged", async || app.logs.find("trace_id", TRACE).is_some()).await;
        let lines = app.logs.lines();
        let matching: Vec<_> = lines.iter().filter(|line| line["request_id"] == "mine-1").collect();
        let [line] = matching[..] else { panic!("expected one line, not {matching:?}") };
        assert_eq!(line["event"], "http.request");
        assert_eq!(line["http.route"], "/problems/{slug}");
        assert_eq!(line["http.response.status_code"], 404);
        assert_eq!(line["error.type"], "not-found");
        assert_eq!(line["outcome"], "refused");
    })
    .await;
}

#[tokio::test]
async fn successes_may_be_sampled_but_failures_never() {
    run_with(&["--log-success-ratio=0"], async |app| {
        app.get("/openapi.json").await;
        app.get("/nope").await;

        eventually("the failure is logged", async || app.logs.find("outcome", "refused").is_some())
            .await;
        assert_eq!(app.logs.find("outcome", "ok"), None);
    })
    .await;
}

#[tokio::test]
async fn a_request_is_measured_under_its_route() {
    run(async |app| {
        app.get("/problems/nope?x=1").await;
        app.get("/some/path").await;

        let metrics = app.internal.get("/metrics").await;

        assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
        let count = "http_server_request_duration_seconds_count";
        for series in [
            r#"{http_request_method="GET",http_route="/problems/{slug}",http_response_status_code="404"} 1"#,
            r#"{http_request_method="GET",http_route="unmatched",http_response_status_code="404"} 1"#,
        ] {
            assert!(metrics.text.contains(&format!("{count}{series}")), "{}", metrics.text);
        }
    })
    .await;
}

#[tokio::test]
async fn every_metric_is_described_and_declared() {
    run(async |app| {
        let metrics = app.internal.get("/metrics").await.text;

        for line in metrics.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            let declared = Metrics::DECLARED.iter().any(|metric| metric.name == name);
            assert!(declared || name.starts_with("process_"), "{name} is not declared");
            assert!(metrics.contains(&format!("# HELP {name} ")), "{name} has no help text");
        }
        for name in ["wallet_build_info", "process_resident_memory_bytes", "tokio_workers_count"] {
            assert!(metrics.contains(&format!("\n{name}")), "{name} is missing");
        }
    })
    .await;
}

#[tokio::test]
async fn the_running_program_exposes_its_build_information() {
    let folder = program::Folder::new();
    let program = Program::start(&[&folder.setting()]).await;

    let metrics = program.internal.get("/metrics").await.text;

    let version = env!("CARGO_PKG_VERSION");
    assert!(metrics.contains(&format!("wallet_build_info{{version=\"{version}\",revision=\"")));
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn an_unreachable_trace_collector_delays_neither_requests_nor_shutdown() {
    let folder = program::Folder::new();
    let program = Program::start(&[&folder.setting(), "--otlp-endpoint=http://127.0.0.1:1"]).await;

    assert_eq!(program.public.get("/openapi.json").await.status, 200);
    assert!(program.stop().await.success());
}

#[tokio::test]
async fn the_line_of_a_request_names_its_caller() {
    run_with(&["--access=open"], async |app| {
        let program = app.api_key(&[Scope::WalletRead]).await;
        assert_eq!(program.get("/wallet").await.status, 200);
        assert_eq!(app.get("/wallet").await.status, 200);
        assert_eq!(app.with_credential("rwk_wrong").get("/wallet").await.status, 401);

        let callers = || {
            let lines = app.logs.lines().into_iter().filter(|line| line["http.route"] == "/wallet");
            lines.map(|line| line["caller"].as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        eventually("three lines are logged", async || callers().len() == 3).await;
        let expected = ["key:1", "anybody"].map(|name| Some(name.to_owned()));
        assert_eq!(callers(), [&expected[..], &[None]].concat());
    })
    .await;
}

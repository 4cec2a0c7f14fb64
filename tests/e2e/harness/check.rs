//! What must hold after every test, whatever it was about.

use serde_json::Value;

use super::{Logs, TestApp};

/// While the app still runs.
pub async fn while_running(app: &TestApp) {
    let metrics = app.internal.get("/metrics").await.text;
    // The scrape itself is being answered.
    assert!(metrics.contains("http_server_active_requests 1\n"), "a request was not counted down");
}

/// Every line keeps to the schema, and none is an error.
pub fn logs(logs: &Logs) {
    for line in logs.lines() {
        schema(&line);
        assert_ne!(line["level"], "ERROR", "{line}");
    }
}

/// The schema of one log line.
pub fn schema(line: &Value) {
    let text =
        |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}")).to_owned();
    let ts = text("ts");
    assert!(ts.len() == 30 && ts.ends_with('Z'), "nanoseconds in UTC: {line}");
    assert!(
        ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&text("level").as_str()),
        "{line}"
    );
    assert!(!text("message").is_empty(), "{line}");
    assert_eq!(text("service"), "revwallet");
    for key in ["version", "env", "_target"] {
        assert!(!text(key).is_empty(), "{line}");
    }
    if line["event"] == "http.request" {
        assert_eq!(text("trace_id").len(), 32, "{line}");
        assert_eq!(text("span_id").len(), 16, "{line}");
        for key in ["request_id", "http_request_method", "outcome"] {
            assert!(!text(key).is_empty(), "{line}");
        }
        assert!(
            line["http_response_status_code"].is_u64() && line["duration_ms"].is_f64(),
            "{line}"
        );
        let failed = !["ok", "client_gone"].contains(&text("outcome").as_str());
        assert_eq!(line["error.kind"].is_string(), failed, "{line}");
    }
}

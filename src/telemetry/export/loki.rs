//! Export of log lines to Loki, or to Alloy, which accepts the same requests.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ExportDestination, ExportOutcome, ExportRecord};

/// Longest time that an attempt to send lines may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Time for which lines are collected before they are sent together. A separate request for each line would cost more
/// than the work that the line reports.
pub(in crate::telemetry) const LINGER: Duration = Duration::from_millis(500);

/// A log line, as it is written to standard output.
pub(in crate::telemetry) struct LogLine {
    pub(in crate::telemetry) timestamp_nanos: i128,
    pub(in crate::telemetry) level: &'static str,
    /// A JSON object, without a newline at its end.
    pub(in crate::telemetry) text: Box<str>,
}

impl ExportRecord for LogLine {
    fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.text.len()
    }
}

/// Sends log lines to Loki's push API.
pub(in crate::telemetry) struct LokiClient {
    client: reqwest::Client,
    url: Url,
    environment: String,
}

/// Body of a request to Loki's push API.
#[derive(Serialize)]
struct PushRequest<'a> {
    streams: Vec<Stream<'a>>,
}

#[derive(Serialize)]
struct Stream<'a> {
    stream: Labels<'a>,
    values: Vec<(String, &'a str, StructuredMetadata<'a>)>,
}

/// Labels of a stream of lines. Each label has few distinct values, because Loki stores a separate stream for each
/// combination of label values.
#[derive(Serialize)]
struct Labels<'a> {
    service: &'static str,
    env: &'a str,
    level: &'a str,
}

/// Fields by which Loki finds a line without parsing it. Unlike labels, they may have any number of distinct values.
#[derive(Default, Serialize, Deserialize)]
struct StructuredMetadata<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl LokiClient {
    pub(in crate::telemetry) fn new(base: &Url, environment: &str) -> anyhow::Result<Self> {
        let url =
            base.join("/loki/api/v1/push").context("--loki-url is not the address of a server")?;
        // This fails if a cryptography provider is already installed; that provider works just as well.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { client, url, environment: environment.to_owned() })
    }

    fn request<'a>(&'a self, lines: &'a [LogLine]) -> PushRequest<'a> {
        let mut levels: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for LogLine { timestamp_nanos, level, text } in lines {
            // The ids are borrowed from the line. That fails for an id with an escaped character, but ids do not
            // contain any.
            let metadata = serde_json::from_str(text).unwrap_or_default();
            levels.entry(level).or_default().push((timestamp_nanos.to_string(), &**text, metadata));
        }
        let streams = levels.into_iter().map(|(level, values)| {
            let labels = Labels { service: env!("CARGO_PKG_NAME"), env: &self.environment, level };
            Stream { stream: labels, values }
        });
        PushRequest { streams: streams.collect() }
    }
}

impl ExportDestination for LokiClient {
    type Record = LogLine;

    async fn send(&mut self, lines: &mut Vec<LogLine>) -> ExportOutcome {
        let Ok(body) = serde_json::to_vec(&self.request(lines)) else {
            return ExportOutcome::Rejected;
        };
        let request = self.client.post(self.url.clone()).header("content-type", "application/json");
        match request.body(body).send().await {
            Ok(response) if response.status().is_success() => {
                ExportOutcome::Accepted { rejected: 0 }
            }
            Ok(response) if response.status().is_client_error() && response.status() != 429 => {
                ExportOutcome::Rejected
            }
            Ok(_) | Err(_) => ExportOutcome::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(level: &'static str) -> LogLine {
        let text = format!(
            r#"{{"ts":"2026-11-21T12:00:00.000000001Z","level":"{level}","message":"hello","trace_id":"abc"}}"#
        );
        LogLine { timestamp_nanos: 1_795_262_400_000_000_001, level, text: text.into() }
    }

    #[test]
    fn lines_become_streams_by_level_with_structured_metadata() {
        let url = "http://127.0.0.1:1".parse().expect("the URL is valid");
        let client = LokiClient::new(&url, "test").expect("the client can be built");
        let unstructured = LogLine { timestamp_nanos: 7, level: "WARN", text: "no json".into() };
        let lines = [line("INFO"), line("WARN"), unstructured];

        let body = serde_json::to_value(client.request(&lines)).expect("the body is JSON");

        let labels = json!({ "service": "revwallet", "env": "test", "level": "INFO" });
        assert_eq!(body["streams"][0]["stream"], labels);
        let expected = json!([["1795262400000000001", &*lines[0].text, { "trace_id": "abc" }]]);
        assert_eq!(body["streams"][0]["values"], expected);
        assert_eq!(body["streams"][1]["stream"]["level"], "WARN");
        assert_eq!(body["streams"][1]["values"][1], json!(["7", "no json", {}]));
    }
}

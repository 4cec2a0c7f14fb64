//! Log lines straight to Loki (or to Alloy, which speaks the same), where nobody collects standard output.
//!
//! The same lines, each with what finds it again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::push::{Answer, REQUEST_BYTES_MAX, Receiver};

/// Longest that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Lines gather for so long: a request for each would cost more than what it tells of.
pub(super) const GATHER: Duration = Duration::from_millis(500);

/// Takes whole lines.
pub(super) struct Loki {
    client: reqwest::Client,
    url: Url,
    environment: String,
}

/// What is looked at in a line.
#[derive(Deserialize)]
struct Line<'a> {
    ts: &'a str,
    level: &'a str,
    trace_id: Option<&'a str>,
    request_id: Option<&'a str>,
}

impl Loki {
    pub(super) fn new(base: &Url, environment: &str) -> anyhow::Result<Self> {
        let url =
            base.join("/loki/api/v1/push").context("--loki-url is not the address of a server")?;
        // A second call finds it installed, which is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { client, url, environment: environment.to_owned() })
    }

    /// Lines as streams by level, each with when it was said and what finds it again.
    fn body(&self, text: &str) -> Value {
        let mut levels: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        for line in text.lines() {
            let Ok(Line { ts, level, trace_id, request_id }) = serde_json::from_str(line) else {
                continue;
            };
            let Ok(at) = OffsetDateTime::parse(ts, &Rfc3339) else { continue };
            let found_by: BTreeMap<_, _> = [("trace_id", trace_id), ("request_id", request_id)]
                .into_iter()
                .filter_map(|(name, value)| value.map(|value| (name, value)))
                .collect();
            let entry = json!([at.unix_timestamp_nanos().to_string(), line, found_by]);
            levels.entry(level).or_default().push(entry);
        }
        let streams: Vec<Value> = levels
            .into_iter()
            .map(|(level, values)| {
                let labels = json!({
                    "service": env!("CARGO_PKG_NAME"),
                    "env": self.environment,
                    "level": level,
                });
                json!({ "stream": labels, "values": values })
            })
            .collect();
        json!({ "streams": streams })
    }
}

impl Receiver for Loki {
    fn part(&self, lines: &[u8]) -> (usize, u64) {
        let is_end = |byte: &u8| *byte == b'\n';
        let fits = &lines[..lines.len().min(REQUEST_BYTES_MAX)];
        // The first line always does.
        let last = fits.iter().rposition(is_end).or_else(|| lines.iter().position(is_end));
        let end = last.map_or(lines.len(), |last| last + 1);
        (end, lines[..end].iter().filter(|byte| is_end(byte)).count() as u64)
    }

    async fn send(&mut self, lines: &[u8]) -> Answer {
        let body = self.body(&String::from_utf8_lossy(lines)).to_string();
        let request = self.client.post(self.url.clone()).header("content-type", "application/json");
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Answer::Taken,
            Ok(answer) if answer.status().is_client_error() && answer.status() != 429 => {
                Answer::Refused
            }
            Ok(_) | Err(_) => Answer::Away,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"ts":"2026-11-21T12:00:00.000000001Z","level":"INFO","message":"hello","trace_id":"abc"}"#;

    #[test]
    fn lines_become_streams_by_level_with_what_finds_them() {
        let url = "http://127.0.0.1:1".parse().expect("it is one");
        let loki = Loki::new(&url, "test").expect("it can be made");
        let text = format!("{LINE}\n{}\nno json\n", LINE.replace("INFO", "WARN"));

        let body = loki.body(&text);

        assert_eq!(body["streams"][0]["stream"]["level"], "INFO");
        assert_eq!(body["streams"][0]["stream"]["env"], "test");
        let entry = &body["streams"][0]["values"][0];
        assert_eq!(entry[0], "1795262400000000001");
        assert_eq!(entry[1], LINE);
        assert_eq!(entry[2], json!({ "trace_id": "abc" }));
    }

    #[test]
    fn a_request_ends_with_a_line() {
        let url = "http://127.0.0.1:1".parse().expect("it is one");
        let loki = Loki::new(&url, "test").expect("it can be made");
        let text = "a line\n".repeat(REQUEST_BYTES_MAX);

        let (end, count) = loki.part(text.as_bytes());

        assert!(end <= REQUEST_BYTES_MAX && text[..end].ends_with('\n'));
        assert_eq!(count, end as u64 / 7);
        assert_eq!(loki.part(b"no end"), (6, 0));
    }
}

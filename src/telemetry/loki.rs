//! Log lines straight to Loki (or to Alloy, which speaks the same), where nobody collects standard output.
//!
//! The same lines, sent by a thread of its own from a bounded buffer: a receiver that is slow or away costs lines,
//! which are counted, and nothing else.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use metrics::Counter;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Runtime;
use url::Url;

use super::metrics::Metrics;

/// Longest that one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Attempts before lines are given up: with the pauses between them, half a minute.
const ATTEMPTS: u32 = 6;

/// Pause after the first attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// Lines gather for so long: a request for each would cost more than what it tells of.
pub(super) const GATHER: Duration = Duration::from_millis(500);

/// Most bytes of lines in one request: receivers have limits.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// Takes what the sink writes out, whole lines at a time.
pub(super) struct Loki {
    runtime: Runtime,
    client: reqwest::Client,
    url: Url,
    environment: String,
    pushed: Counter,
    lost: Counter,
    /// Whether the program ends: then one attempt has to do.
    closing: Arc<AtomicBool>,
    /// Whether the last lines were given up: then the end of the program does not wait for more of the same.
    is_away: bool,
}

/// Set when the program begins to end.
pub(super) type Closing = Arc<AtomicBool>;

/// What is looked at in a line.
#[derive(Deserialize)]
struct Line<'a> {
    ts: &'a str,
    level: &'a str,
    trace_id: Option<&'a str>,
    request_id: Option<&'a str>,
}

impl Loki {
    pub(super) fn new(
        base: &Url,
        environment: &str,
        metrics: &Metrics,
    ) -> anyhow::Result<(Self, Closing)> {
        let url =
            base.join("/loki/api/v1/push").context("--loki-url is not the address of a server")?;
        // A second call finds it installed, which is as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        // The thread of the sink has to wait for answers, so it brings its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let closing = Closing::default();
        let lines = &metrics.wallet_loki_lines_total;
        let loki = Self {
            runtime,
            client,
            url,
            environment: environment.to_owned(),
            pushed: lines.with(["pushed"]),
            lost: lines.with(["lost"]),
            closing: Arc::clone(&closing),
            is_away: false,
        };
        Ok((loki, closing))
    }

    async fn push(&self, body: &Value) -> bool {
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            let answer =
                self.client.post(self.url.clone()).header("content-type", "application/json");
            match answer.body(body.to_string()).send().await {
                Ok(answer) if answer.status().is_success() => return true,
                // What it does not understand it will not understand later.
                Ok(answer) if answer.status().is_client_error() && answer.status() != 429 => {
                    return false;
                }
                Ok(_) | Err(_) => {}
            }
            if self.closing.load(Ordering::Relaxed) || attempt == ATTEMPTS {
                break;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        false
    }

    /// Lines as streams by level, each with when it was said and what finds it again.
    fn body(&self, text: &str) -> (Value, u64) {
        let mut levels: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
        let mut count = 0;
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
            count += 1;
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
        (json!({ "streams": streams }), count)
    }
}

/// Where the last line ends that fits into one request; the first one always does.
fn end_of_lines(text: &str) -> usize {
    let fits = text.floor_char_boundary(REQUEST_BYTES_MAX);
    let end = text[..fits].rfind('\n').or_else(|| text.find('\n'));
    end.map_or(text.len(), |end| end + 1)
}

impl Write for Loki {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        // What this thread does must not become lines that it has to send.
        let silent = tracing::subscriber::NoSubscriber::default();
        tracing::subscriber::with_default(silent, || {
            let text = String::from_utf8_lossy(lines);
            let mut rest: &str = &text;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(end_of_lines(rest));
                let (body, count) = self.body(now);
                let closing = self.closing.load(Ordering::Relaxed);
                let arrived = !(closing && self.is_away) && self.runtime.block_on(self.push(&body));
                self.is_away = !arrived;
                let counter = if arrived { &self.pushed } else { &self.lost };
                counter.increment(count);
                rest = later;
            }
        });
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"ts":"2026-11-21T12:00:00.000000001Z","level":"INFO","message":"hello","trace_id":"abc"}"#;

    #[test]
    fn lines_become_streams_by_level_with_what_finds_them() {
        let url = "http://127.0.0.1:1".parse().expect("it is one");
        let (loki, _) = Loki::new(&url, "test", &Metrics::new()).expect("it can be made");
        let text = format!("{LINE}\n{}\nno json\n", LINE.replace("INFO", "WARN"));

        let (body, count) = loki.body(&text);

        assert_eq!(count, 2);
        assert_eq!(body["streams"][0]["stream"]["level"], "INFO");
        assert_eq!(body["streams"][0]["stream"]["env"], "test");
        let entry = &body["streams"][0]["values"][0];
        assert_eq!(entry[0], "1795262400000000001");
        assert_eq!(entry[1], LINE);
        assert_eq!(entry[2], json!({ "trace_id": "abc" }));
    }

    #[test]
    fn a_request_ends_with_a_line() {
        let text = "a line\n".repeat(REQUEST_BYTES_MAX);

        let end = end_of_lines(&text);

        assert!(end <= REQUEST_BYTES_MAX && text[..end].ends_with('\n'));
        assert_eq!(end_of_lines("no end"), 6);
    }
}

//! From a bar of a histogram to the trace of a request in it: exemplars, as `OpenMetrics` has them.
//!
//! Only requests whose trace is kept are noted, so without an exporter of traces this costs nothing.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::metrics::LATENCY;

/// Most buckets that have one; what comes after has none.
const KEPT_MAX: usize = 5_000;

/// The histogram that promises are kept by.
const HISTOGRAM: &str = "http_server_request_duration_seconds";

/// A request in a bucket.
struct Exemplar {
    trace: String,
    value: f64,
    at: SystemTime,
}

/// The last request of each bucket, by the beginning of the bucket's line.
#[derive(Default)]
pub struct Exemplars(Mutex<HashMap<String, Exemplar>>);

impl Exemplars {
    /// Notes a request with a trace that is kept.
    pub fn note(&self, [method, route, status]: [&str; 3], seconds: f64, trace: &str) {
        let bound = LATENCY.iter().find(|bound| seconds <= **bound);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let line = format!(
            r#"{HISTOGRAM}_bucket{{http_request_method="{method}",http_route="{route}",http_response_status_code="{status}",le="{bound}"}}"#
        );
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX || kept.contains_key(&line) {
            let exemplar =
                Exemplar { trace: trace.to_owned(), value: seconds, at: SystemTime::now() };
            kept.insert(line, exemplar);
        }
    }

    /// The text of Prometheus as `OpenMetrics`, with what was noted.
    pub(super) fn dress(&self, text: &str) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::with_capacity(text.len() + 64 * kept.len());
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix("# ") {
                Some(about) => describe(&mut out, about),
                None => out.push_str(line),
            }
            if let Some(exemplar) = line.rsplit_once(' ').and_then(|(name, _)| kept.get(name)) {
                exemplar.write(&mut out);
            }
            out.push('\n');
        }
        out.push_str("# EOF\n");
        out
    }
}

/// A counter's family has its name without the end that its samples have.
fn describe(out: &mut String, about: &str) {
    let mut parts = about.splitn(3, ' ');
    let (word, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (name, rest) =
        (name.strip_suffix("_total").unwrap_or(name), parts.next().unwrap_or_default());
    // Writing to a String cannot fail.
    let _written = write!(out, "# {word} {name} {rest}");
}

impl Exemplar {
    fn write(&self, out: &mut String) {
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let (trace, value) = (&self.trace, self.value);
        let _written = write!(out, r#" # {{trace_id="{trace}"}} {value} {at:.3}"#);
    }
}

#[cfg(test)]
mod tests {
    use super::HISTOGRAM;
    use crate::telemetry::Metrics;

    #[test]
    fn a_slow_request_is_found_in_its_bucket() {
        let metrics = Metrics::new();
        let labels = ["POST", "/wallet/deposit", "200"];
        metrics.http_server_request_duration_seconds.with(labels).record(0.3);
        metrics.wallet_panics_total.preregister(["http"]);
        metrics.exemplars.note(labels, 0.3, "0af7651916cd43dd8448eb211c80319c");

        let text = metrics.exemplars.dress(&metrics.handle().render());

        let is_bucket = |line: &&str| line.starts_with(HISTOGRAM) && line.contains(r#"le="0.5""#);
        let bucket = text.lines().find(is_bucket).unwrap();
        assert!(
            bucket.contains(r#"} 1 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.3 "#),
            "{bucket}"
        );
        assert_eq!(text.matches("trace_id").count(), 1);
        assert!(text.contains("# TYPE wallet_panics counter\n"));
        assert!(text.contains("\nwallet_panics_total{place=\"http\"} 0\n"));
        assert!(text.ends_with("# EOF\n") && !text.contains("\n\n"));
    }
}

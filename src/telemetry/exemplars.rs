//! Exemplars, as `OpenMetrics` defines them: an exemplar links a histogram bucket to the trace of a request that was
//! counted in this bucket.
//!
//! Only requests whose trace is exported become exemplars. Without a trace collector, exemplars cost nothing.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::buckets::LATENCY;

/// Maximum number of buckets with an exemplar. Further buckets get none.
const EXEMPLARS_MAX: usize = 5_000;

/// The only histogram with exemplars. The service level objectives of the API are computed from it.
const HISTOGRAM: &str = "http_server_request_duration_seconds";

/// A request to which a histogram bucket links: its trace, its duration and its time.
struct Exemplar {
    trace_id: String,
    value: f64,
    at: SystemTime,
}

/// Most recent traced request of each histogram bucket. The key is the name of the bucket with its labels, as in the
/// metrics text.
#[derive(Default)]
pub struct Exemplars(Mutex<HashMap<String, Exemplar>>);

impl Exemplars {
    /// Makes a request the exemplar of its histogram bucket. The caller must make sure that the trace of the request is
    /// exported.
    pub fn record(&self, [method, route, status]: [&str; 3], seconds: f64, trace_id: &str) {
        let bound = LATENCY.iter().find(|bound| seconds <= **bound);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), f64::to_string);
        let sample = format!(
            r#"{HISTOGRAM}_bucket{{http_request_method="{method}",http_route="{route}",http_response_status_code="{status}",le="{bound}"}}"#
        );
        let mut exemplars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if exemplars.len() < EXEMPLARS_MAX || exemplars.contains_key(&sample) {
            let trace_id = trace_id.to_owned();
            let exemplar = Exemplar { trace_id, value: seconds, at: SystemTime::now() };
            exemplars.insert(sample, exemplar);
        }
    }

    /// Converts metrics in the text format of Prometheus to `OpenMetrics` text with exemplars.
    pub(super) fn to_open_metrics(&self, text: &str) -> String {
        let exemplars = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = String::with_capacity(text.len() + 64 * exemplars.len());
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line.strip_prefix("# ") {
                Some(comment) => write_comment(&mut out, comment),
                None => out.push_str(line),
            }
            if let Some(exemplar) = line.rsplit_once(' ').and_then(|(name, _)| exemplars.get(name))
            {
                exemplar.write(&mut out);
            }
            out.push('\n');
        }
        out.push_str("# EOF\n");
        out
    }
}

/// Writes a HELP or TYPE comment. `OpenMetrics` comments give the name of a counter without the suffix `_total`.
fn write_comment(out: &mut String, comment: &str) {
    let mut parts = comment.splitn(3, ' ');
    let (keyword, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let (name, rest) =
        (name.strip_suffix("_total").unwrap_or(name), parts.next().unwrap_or_default());
    // Writing to a String cannot fail.
    let _written = write!(out, "# {keyword} {name} {rest}");
}

impl Exemplar {
    fn write(&self, out: &mut String) {
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let (trace_id, value) = (&self.trace_id, self.value);
        // Writing to a String cannot fail.
        let _written = write!(out, r#" # {{trace_id="{trace_id}"}} {value} {at:.3}"#);
    }
}

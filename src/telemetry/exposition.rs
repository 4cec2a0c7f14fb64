//! Renders the response to `/metrics`, and reads the values that are sampled for each response, such as the number of
//! tasks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::metrics::Metrics;

/// Interval at which [`Exposition::upkeep`] must be called. Recorded values take memory until the call adds them to the
/// buckets of their histograms.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Text format of the response to `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// Text format 0.0.4 of Prometheus, without exemplars.
    Prometheus,
    /// `OpenMetrics` text, with exemplars.
    OpenMetrics,
}

impl ExpositionFormat {
    /// Returns the best format that the header `Accept` permits.
    pub fn from_accept(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Renders the metrics of the process as text.
#[derive(Clone)]
pub struct Exposition {
    metrics: Arc<Metrics>,
    process: metrics_process::Collector,
    runtimes: Arc<[SampledRuntime]>,
}

/// An asynchronous runtime whose tasks and worker threads are sampled.
struct SampledRuntime {
    name: &'static str,
    handle: Handle,
    workers: Mutex<WorkerTime>,
}

/// Total time that the worker threads of a runtime had been busy when the metrics were last rendered.
struct WorkerTime {
    at: Instant,
    busy: Duration,
}

impl Exposition {
    /// Creates a renderer of the metrics of the process, including the metrics of `runtimes`.
    pub fn new(
        metrics: Arc<Metrics>,
        runtimes: impl IntoIterator<Item = (&'static str, Handle)>,
    ) -> Self {
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(metrics.recorder(), || process.describe());
        let runtimes = runtimes.into_iter().map(|(name, handle)| {
            let workers = Mutex::new(WorkerTime { at: Instant::now(), busy: Duration::ZERO });
            SampledRuntime { name, handle, workers }
        });
        Self { metrics, process, runtimes: runtimes.collect() }
    }

    /// Renders the metrics as text. Rendering takes milliseconds of CPU time, so it must not be called in an async
    /// task.
    pub fn render(&self, format: ExpositionFormat) -> String {
        let started = Instant::now();
        metrics::with_local_recorder(self.metrics.recorder(), || self.process.collect());
        for runtime in &*self.runtimes {
            self.sample(runtime);
        }
        let mut text = self.metrics.handle().render();
        if format == ExpositionFormat::OpenMetrics {
            text = self.metrics.exemplars.to_open_metrics(&text);
        }
        self.metrics.wallet_metrics_render_duration_seconds.set(started.elapsed().as_secs_f64());
        text
    }

    /// Adds recorded values to the buckets of histograms. Must be called every [`UPKEEP_INTERVAL`].
    pub fn upkeep(&self) {
        self.metrics.handle().run_upkeep();
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of tasks are far below 2^52")]
    fn sample(&self, runtime: &SampledRuntime) {
        let (name, now) = ([runtime.name], runtime.handle.metrics());
        let workers = now.num_workers();
        self.metrics.tokio_workers_count.with(name).set(workers as f64);
        self.metrics.tokio_live_tasks_count.with(name).set(now.num_alive_tasks() as f64);
        self.metrics.tokio_global_queue_depth.with(name).set(now.global_queue_depth() as f64);

        let busy: Duration = (0..workers).map(|n| now.worker_total_busy_duration(n)).sum();
        let mut last = runtime.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let available = last.at.elapsed().as_secs_f64() * workers as f64;
        let used = busy.saturating_sub(last.busy).as_secs_f64();
        *last = WorkerTime { at: Instant::now(), busy };
        if available > 0.0 {
            self.metrics.tokio_workers_busy_ratio.with(name).set((used / available).min(1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_leads_to_the_trace_of_a_request_in_it() {
        let metrics = Metrics::new();
        let labels = ["POST", "/wallet/deposit", "200"];
        metrics.http_server_request_duration_seconds.with(labels).record(0.3);
        metrics.wallet_panics_total.preregister(["http"]);
        metrics.exemplars.record(labels, 0.3, "0af7651916cd43dd8448eb211c80319c");

        let text = metrics.exemplars.to_open_metrics(&metrics.handle().render());

        let is_bucket = |line: &&str| {
            line.starts_with("http_server_request_duration_seconds_bucket")
                && line.contains(r#"le="0.5""#)
        };
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

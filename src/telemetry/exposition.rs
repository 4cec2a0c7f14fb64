//! `/metrics`: what is sampled when it is asked for, and the text.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeMetrics};

use super::metrics::Metrics;

/// How often raw histogram samples are folded into buckets; they pile up in memory until then.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How the metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    /// With exemplars.
    OpenMetrics,
}

impl Format {
    /// As whoever asks prefers it.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Plain
        }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Renders the metrics of one program.
#[derive(Clone)]
pub struct Exposition {
    metrics: Arc<Metrics>,
    process: metrics_process::Collector,
    busy: Arc<Mutex<Busy>>,
}

/// What the workers had done at the last reading.
struct Busy {
    at: Instant,
    total: Duration,
}

impl Exposition {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let process = metrics_process::Collector::default();
        metrics::with_local_recorder(metrics.recorder(), || process.describe());
        let busy = Busy { at: Instant::now(), total: Duration::ZERO };
        Self { metrics, process, busy: Arc::new(Mutex::new(busy)) }
    }

    /// The text for Prometheus. Takes milliseconds of CPU: run it off the async threads.
    pub fn render(&self, runtime: &Handle, format: Format) -> String {
        let started = Instant::now();
        metrics::with_local_recorder(self.metrics.recorder(), || self.process.collect());
        self.sample_runtime(&runtime.metrics());
        let mut text = self.metrics.handle().render();
        if format == Format::OpenMetrics {
            text = self.metrics.exemplars.dress(&text);
        }
        self.metrics.wallet_metrics_render_duration_seconds.set(started.elapsed().as_secs_f64());
        text
    }

    /// Folds the samples of the histograms; call it every [`UPKEEP_INTERVAL`].
    pub fn upkeep(&self) {
        self.metrics.handle().run_upkeep();
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of tasks are far below 2^52")]
    fn sample_runtime(&self, runtime: &RuntimeMetrics) {
        let workers = runtime.num_workers();
        self.metrics.tokio_workers_count.set(workers as f64);
        self.metrics.tokio_live_tasks_count.set(runtime.num_alive_tasks() as f64);
        self.metrics.tokio_global_queue_depth.set(runtime.global_queue_depth() as f64);

        let total: Duration = (0..workers).map(|n| runtime.worker_total_busy_duration(n)).sum();
        let mut last = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let could = last.at.elapsed().as_secs_f64() * workers as f64;
        let did = total.saturating_sub(last.total).as_secs_f64();
        *last = Busy { at: Instant::now(), total };
        if could > 0.0 {
            self.metrics.tokio_workers_busy_ratio.set((did / could).min(1.0));
        }
    }
}

//! Sampling of traces. The operator sets the share of traces to export and a limit on spans per second. While the spans
//! exceed the limit, a smaller share is exported.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::Gauge;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::trace_context::set_sample_share;

/// Interval at which the share of sampled traces is adjusted. When a burst of spans begins, the share stays unchanged
/// until the next adjustment.
const INTERVAL: Duration = Duration::from_millis(250);

/// Counts the spans of sampled traces. If their rate exceeds the limit, lowers the share of traces that are sampled.
#[derive(Clone)]
pub(super) struct SpanBudget(Arc<Shared>);

struct Shared {
    /// Number of spans since the share was last changed.
    spans: AtomicU64,
    /// Maximum number of spans per second.
    spans_max: f64,
    /// Share of traces that is sampled while the rate of spans is below the limit.
    share_max: f64,
    /// Metric that shows the current share of sampled traces.
    gauge: Gauge,
}

impl SpanBudget {
    /// Creates the span counter, and sets the share of sampled traces to `share_max`.
    pub(super) fn new(share_max: f64, spans_max: u32, gauge: Gauge) -> Self {
        set_sample_share(share_max);
        gauge.set(share_max);
        let spans_max = f64::from(spans_max);
        Self(Arc::new(Shared { spans: AtomicU64::new(0), spans_max, share_max, gauge }))
    }

    /// Counts a span of a sampled trace.
    pub(super) fn count(&self) {
        self.0.spans.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts a task that regularly adjusts the share of sampled traces to the span rate, until the exporter's runtime
    /// ends.
    #[expect(clippy::disallowed_methods, reason = "it ends with the runtime of the exporter")]
    pub(super) fn start(self) {
        tokio::spawn(self.adjust());
    }

    async fn adjust(self) {
        let Shared { spans, spans_max, share_max, gauge } = &*self.0;
        let mut ticks = interval(INTERVAL);
        // After a delay, the next interval still has its full length, so that the measured rate is meaningful.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut share, mut since) = (*share_max, Instant::now());
        loop {
            let now = ticks.tick().await;
            let spans = spans.swap(0, Ordering::Relaxed);
            share = next_share(share, *share_max, spans, now - since, *spans_max);
            since = now;
            set_sample_share(share);
            gauge.set(share);
        }
    }
}

/// Returns the share of traces to sample in the next interval: the share that would have produced `spans_max` spans per
/// second, given that `share` produced `spans` within `time`, but at most `share_max`.
fn next_share(share: f64, share_max: f64, spans: u64, time: Duration, spans_max: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
    let spans = spans as f64;
    let affordable = spans_max * time.as_secs_f64();
    if spans * share_max <= affordable * share { share_max } else { share * affordable / spans }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the share of traces to sample after `share` has produced `spans` spans within one second.
    fn after(share: f64, share_max: f64, spans: u64) -> f64 {
        next_share(share, share_max, spans, Duration::from_secs(1), 1_000.0)
    }

    #[test]
    fn everything_is_sampled_up_to_the_rate() {
        for spans in [0, 1, 1_000] {
            assert!((after(1.0, 1.0, spans) - 1.0).abs() < 1e-9, "{spans}");
        }
    }

    #[test]
    fn above_the_rate_the_share_falls_to_what_fits() {
        assert!((after(1.0, 1.0, 4_000) - 0.25).abs() < 1e-9);
        assert!((after(0.25, 1.0, 1_000) - 0.25).abs() < 1e-9, "it stays while the load stays");
        assert!((after(0.25, 1.0, 2_000) - 0.125).abs() < 1e-9);
    }

    #[test]
    fn the_share_rises_again_with_the_load_gone() {
        assert!((after(0.25, 1.0, 500) - 0.5).abs() < 1e-9);
        assert!((after(0.01, 1.0, 0) - 1.0).abs() < 1e-9);
        assert!((after(0.01, 0.1, 0) - 0.1).abs() < 1e-9, "to the ratio that was set");
    }

    #[test]
    fn a_ratio_of_nothing_stays_nothing() {
        for spans in [0, 10_000] {
            assert!(after(0.0, 0.0, spans).abs() < 1e-9);
        }
    }
}

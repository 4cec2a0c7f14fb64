//! Metric families: metrics with labels. A family has a handle for each combination of label values, which is
//! registered on first use.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

/// Maximum number of label combinations (series) of a metric. Further combinations are counted together under `_OTHER`,
/// so a programming mistake in a label cannot exhaust the memory of this process or of Prometheus.
const SERIES_MAX: usize = 2_000;

thread_local! {
    /// Buffer for the joined label values of the series that this thread looks up. Lookups share it to save
    /// allocations.
    static JOINED: Cell<String> = const { Cell::new(String::new()) };
}

const METADATA: Metadata<'static> = Metadata::new("revwallet", Level::INFO, None);

/// A counter, gauge or histogram.
pub trait MetricKind: Clone {
    /// Registers a series and returns the handle that records its values.
    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self;

    /// Returns a handle that ignores recorded values.
    fn disabled() -> Self;
}

impl MetricKind for Counter {
    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self {
        recorder.register_counter(key, &METADATA)
    }

    fn disabled() -> Self {
        Self::noop()
    }
}

impl MetricKind for Gauge {
    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self {
        recorder.register_gauge(key, &METADATA)
    }

    fn disabled() -> Self {
        Self::noop()
    }
}

impl MetricKind for Histogram {
    fn register(recorder: &PrometheusRecorder, key: &Key) -> Self {
        recorder.register_histogram(key, &METADATA)
    }

    fn disabled() -> Self {
        Self::noop()
    }
}

/// A metric with `N` labels.
pub struct MetricFamily<M, const N: usize> {
    /// Recorder that registers new series; `None` if metrics are disabled.
    recorder: Option<Arc<PrometheusRecorder>>,
    name: &'static str,
    labels: [&'static str; N],
    /// Metric handles, keyed by their label values, joined with a separator that no value contains.
    series: RwLock<HashMap<Box<str>, M>>,
}

impl<M: MetricKind, const N: usize> MetricFamily<M, N> {
    pub fn new(
        recorder: Option<&Arc<PrometheusRecorder>>,
        name: &'static str,
        labels: [&'static str; N],
    ) -> Self {
        Self { recorder: recorder.cloned(), name, labels, series: RwLock::default() }
    }

    /// Returns the handle for these label values.
    pub fn with(&self, values: [&str; N]) -> M {
        let Some(recorder) = &self.recorder else { return M::disabled() };
        let mut joined = JOINED.try_with(Cell::take).unwrap_or_default();
        joined.clear();
        for value in values {
            joined.push_str(value);
            joined.push('\u{1f}');
        }
        let handle = self.known(&joined).unwrap_or_else(|is_full| {
            if is_full {
                self.register(recorder, [(); N].map(|()| "_OTHER"), None)
            } else {
                self.register(recorder, values, Some(&joined))
            }
        });
        let _thread_ends = JOINED.try_with(|kept| kept.set(joined));
        handle
    }

    /// Returns the handle for these joined label values. If there is none, returns whether the family is full.
    fn known(&self, joined: &str) -> Result<M, bool> {
        let known = self.series.read().unwrap_or_else(PoisonError::into_inner);
        known.get(joined).cloned().ok_or(known.len() >= SERIES_MAX)
    }

    /// Registers a series with the value zero before its first event. Otherwise, the first event would create the
    /// series with the value 1, and the function `rate` of Prometheus would not see an increase.
    pub fn preregister(&self, values: [&str; N]) {
        drop(self.with(values));
    }

    fn register(
        &self,
        recorder: &PrometheusRecorder,
        values: [&str; N],
        joined: Option<&str>,
    ) -> M {
        let labels: Vec<Label> = (self.labels.iter().zip(values))
            .map(|(label, value)| Label::new(*label, value.to_owned()))
            .collect();
        let handle = M::register(recorder, &Key::from_parts(self.name, labels));
        if let Some(joined) = joined {
            let mut known = self.series.write().unwrap_or_else(PoisonError::into_inner);
            known.insert(joined.into(), handle.clone());
        }
        handle
    }
}

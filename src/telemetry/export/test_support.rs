//! Counter whose value a test can read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, CounterFn};

#[derive(Default)]
pub(in crate::telemetry) struct CountingCounter(AtomicU64);

impl CountingCounter {
    pub(in crate::telemetry) fn counter(self: &Arc<Self>) -> Counter {
        Counter::from_arc(Arc::clone(self))
    }

    pub(in crate::telemetry) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl CounterFn for CountingCounter {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

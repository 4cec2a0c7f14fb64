//! How long answers take.

use std::time::Duration;

/// Latencies in buckets that are at most three percent wide: 32 for each doubling.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

/// Two to this power are the buckets of a doubling.
const FINENESS: u32 = 5;

impl Histogram {
    pub(super) fn record(&mut self, latency: Duration) {
        let bucket = bucket_of(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn count(&self) -> f64 {
        self.total as f64
    }

    /// In milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let wanted = self.total as f64 * share;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen as f64 >= wanted
        });
        reached.map_or(0.0, |bucket| end_of(bucket) as f64 / 1e6)
    }
}

/// The leading digits of a number of nanoseconds, in base two.
fn bucket_of(nanoseconds: u64) -> usize {
    let nanoseconds = nanoseconds.max(1 << FINENESS);
    let shift = nanoseconds.ilog2() - FINENESS;
    let digits = nanoseconds >> shift;
    usize::try_from((u64::from(shift) << FINENESS) + digits).unwrap_or(usize::MAX)
}

/// The longest latency of a bucket.
fn end_of(bucket: usize) -> u64 {
    let place = bucket as u64;
    let shift = (place >> FINENESS).saturating_sub(1);
    let digits = place - (shift << FINENESS);
    (digits + 1) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        for milliseconds in 1..=100 {
            histogram.record(Duration::from_millis(milliseconds));
        }

        for (share, truth) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = histogram.quantile(share);
            assert!((found / truth - 1.0).abs() < 0.04, "{share}: {found}");
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for nanoseconds in (1..100_000).chain([1 << 40, (1 << 40) + 1]) {
            let bucket = bucket_of(nanoseconds);

            assert!(nanoseconds < end_of(bucket), "{nanoseconds}");
            assert!(bucket_of(end_of(bucket)) == bucket + 1, "{nanoseconds}");
        }
    }
}

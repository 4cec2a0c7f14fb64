//! Latency distribution.

use std::iter::Sum;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Number of significant decimal digits of a recorded latency. With two digits, quantiles are exact to one percent.
const SIGNIFICANT_DIGITS: u8 = 2;

/// Latencies in nanoseconds, without an upper limit.
#[derive(Debug, Clone)]
pub(crate) struct LatencyHistogram(Histogram<u64>);

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self(Histogram::new(SIGNIFICANT_DIGITS).expect("between 0 and 5 digits are valid"))
    }
}

impl LatencyHistogram {
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.0.record(nanoseconds).expect("the histogram grows with its highest value");
    }

    /// Number of recorded latencies.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// Returns a quantile of the latencies in milliseconds, such as the median if `share` is 0.5.
    #[expect(clippy::cast_precision_loss, reason = "two digits are significant")]
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e6
    }
}

impl Sum for LatencyHistogram {
    fn sum<I: Iterator<Item = Self>>(histograms: I) -> Self {
        histograms.fold(Self::default(), |mut sum, histogram| {
            sum.0.add(histogram.0).expect("the histogram grows with its highest value");
            sum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_one_percent() {
        let mut latencies = LatencyHistogram::default();
        for milliseconds in 1..=100 {
            latencies.record(Duration::from_millis(milliseconds));
        }

        for (share, truth) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = latencies.quantile_ms(share);
            assert!((found / truth - 1.0).abs() < 0.01, "{share}: {found}");
        }
    }

    #[test]
    fn the_sum_of_histograms_counts_every_latency() {
        let (mut short, mut long) = (LatencyHistogram::default(), LatencyHistogram::default());
        short.record(Duration::from_nanos(1));
        long.record(Duration::MAX);

        let sum: LatencyHistogram = [short, long].into_iter().sum();

        assert_eq!(sum.len(), 2);
        assert!(sum.quantile_ms(0.5) < 0.001);
        assert!(sum.quantile_ms(1.0) > 1e12);
    }
}

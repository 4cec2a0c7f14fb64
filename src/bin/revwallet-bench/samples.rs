//! Results of loads, and statistics over repeated loads.

use std::time::Instant;

use anyhow::Context;
use tokio::task::JoinSet;

use crate::load::latency::LatencyHistogram;
use crate::report::Measurement;
use crate::resource_usage::ResourceUsage;

/// Rate and latencies of one load.
#[derive(Debug, Clone)]
pub(crate) struct LoadResult {
    /// Number of transfers per second. For requests that transfer no money, such as reads: number of requests per
    /// second.
    pub rate: f64,
    pub latencies: LatencyHistogram,
}

/// A load's result, and the resources that were used while the load ran.
#[derive(Debug, Clone)]
pub(crate) struct LoadSample {
    pub result: LoadResult,
    pub usage: ResourceUsage,
}

/// Samples of two alternatives that were measured alternately, so that changes in the machine's speed affect both
/// equally.
#[derive(Debug, Default)]
pub(crate) struct PairedSamples {
    baseline: Vec<LoadSample>,
    candidate: Vec<LoadSample>,
}

impl LoadResult {
    /// Returns the rate and the latencies of a load that began at `began` and has just ended.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub(crate) fn since(began: Instant, latencies: LatencyHistogram) -> Self {
        Self { rate: latencies.len() as f64 / began.elapsed().as_secs_f64(), latencies }
    }

    /// Waits for the tasks of a load and merges the latencies that they recorded. Each latency is that of a call that
    /// performs `operations` operations; the rate counts operations, not calls.
    pub(crate) async fn join(
        tasks: JoinSet<anyhow::Result<LatencyHistogram>>,
        began: Instant,
        operations: f64,
    ) -> anyhow::Result<Self> {
        let recorded = tasks.join_all().await;
        let result = Self::since(began, recorded.into_iter().sum::<anyhow::Result<_>>()?);
        Ok(Self { rate: result.rate * operations, ..result })
    }
}

impl From<(LoadResult, ResourceUsage)> for LoadSample {
    fn from((result, usage): (LoadResult, ResourceUsage)) -> Self {
        Self { result, usage }
    }
}

impl LoadSample {
    pub(crate) fn rate(&self) -> f64 {
        self.result.rate
    }

    /// 99th percentile of the latencies, in milliseconds.
    pub(crate) fn p99_ms(&self) -> f64 {
        self.result.latencies.quantile_ms(0.99)
    }
}

impl PairedSamples {
    /// Adds the samples of a round, in which each alternative was measured once.
    pub(crate) fn push(&mut self, baseline: LoadSample, candidate: LoadSample) {
        self.baseline.push(baseline);
        self.candidate.push(candidate);
    }

    /// Divides the candidate's value by the baseline's value in each round, and returns the median of these ratios.
    pub(crate) fn median_ratio(&self, value: impl Fn(&LoadSample) -> f64) -> f64 {
        let turns = self.baseline.iter().zip(&self.candidate);
        median(turns.map(|(baseline, candidate)| value(candidate) / value(baseline)).collect())
    }

    /// Returns a row of the report for each of the two alternatives, with its median sample.
    pub(crate) fn into_measurements(
        self,
        labels: [&str; 2],
        clients: usize,
    ) -> anyhow::Result<[Measurement; 2]> {
        let [baseline, candidate] = labels;
        Ok([
            Measurement::new(baseline, clients, median_sample(self.baseline)?),
            Measurement::new(candidate, clients, median_sample(self.candidate)?),
        ])
    }
}

/// Returns the median of the values. For an even number of values, the median is the upper of the two middle values.
/// Without values, the result is NaN.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Returns the sample with the median rate.
pub(crate) fn median_sample(mut samples: Vec<LoadSample>) -> anyhow::Result<LoadSample> {
    samples.sort_by(|one, other| one.rate().total_cmp(&other.rate()));
    let middle = samples.len() / 2;
    samples.into_iter().nth(middle).context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64) -> LoadSample {
        let result = LoadResult { rate, latencies: LatencyHistogram::default() };
        LoadSample { result, usage: ResourceUsage::default() }
    }

    #[test]
    fn the_median_is_neither_the_best_nor_the_worst() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
        let middle = median_sample([9.0, 1.0, 2.0].map(sample).to_vec()).unwrap();
        assert!((middle.rate() - 2.0).abs() < f64::EPSILON);
        assert!(median_sample(Vec::new()).is_err());
    }

    #[test]
    fn alternatives_are_compared_turn_by_turn() {
        let mut samples = PairedSamples::default();
        for (baseline, candidate) in [(100.0, 50.0), (10.0, 8.0), (1.0, 0.9)] {
            samples.push(sample(baseline), sample(candidate));
        }

        assert!((samples.median_ratio(LoadSample::rate) - 0.8).abs() < 1e-9);
    }
}

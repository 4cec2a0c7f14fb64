//! Conversion of integers to values of gauges.

/// Converts a count to the value of a gauge. Counts up to 2^53 are converted exactly.
#[expect(clippy::cast_precision_loss, reason = "exact until 2^53")]
pub fn gauge_value(count: i64) -> f64 {
    count as f64
}

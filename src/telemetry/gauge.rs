//! Conversion of integers to gauge values.

/// Converts a count to a gauge value. Counts up to 2^53 are converted exactly.
#[expect(clippy::cast_precision_loss, reason = "exact until 2^53")]
pub fn gauge_value(count: i64) -> f64 {
    count as f64
}

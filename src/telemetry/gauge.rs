//! Integers as values of gauges.

/// Converts a count to the value of a gauge, exactly up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact until 2^53")]
pub fn gauge_value(count: i64) -> f64 {
    count as f64
}

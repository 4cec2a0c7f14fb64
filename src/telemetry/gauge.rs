//! Integers as values of gauges.

/// Value of a gauge: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "exact until 2^53")]
pub fn gauge_value(count: i64) -> f64 {
    count as f64
}

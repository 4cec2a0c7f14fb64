//! Upper bounds of histogram buckets.
//!
//! No bound is a whole number, because Prometheus 3 writes the bound `1` as `1.0` in labels, and earlier versions write
//! `1`. A query that names such a label would work with only some versions.

/// Bounds in seconds, for requests: from a fast read to a timeout.
pub(super) const LATENCY: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.5, 2.5, 5.5, 10.5];

/// Bounds in seconds, for operations that should take less than a millisecond.
pub(super) const FINE_LATENCY: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.5, 2.5, 5.5,
];

/// Bounds for counts, such as the number of transfers in a batch.
pub(super) const COUNTS: &[f64] =
    &[1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5, 128.5, 256.5, 512.5, 1024.5, 4096.5, 20_000.5];

/// Bounds in bytes, for the size of a request body.
pub(super) const BYTES: &[f64] = &[128.5, 512.5, 2048.5, 8192.5, 65_536.5, 524_288.5, 4_194_304.5];

//! Parsers for the values of settings. The parsers reject, at startup, values that would make the program panic later.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;

/// Longest duration that a setting accepts: ten years, so that adding a duration to the current time never overflows.
const DURATION_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// Parses a count that must be at least 1, such as a number of connections, requests or queue entries.
pub fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_000_000)
}

/// Parser of a number of threads.
pub fn threads() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1_024)
}

/// Returns half the number of cores, and at least 1.
pub fn half_of_the_cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Parses a duration, which may be zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration > DURATION_MAX => Err("give at most 3650d".to_owned()),
        parsed => parsed.map_err(|cause| cause.to_string()),
    }
}

/// Parses a duration of at least one millisecond.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < Duration::from_millis(1) => Err("give at least 1ms".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses a duration of at least one second, for settings that the database or a token stores in whole seconds.
pub fn whole_seconds(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < Duration::from_secs(1) => Err("give at least 1s".to_owned()),
        duration => Ok(duration),
    }
}

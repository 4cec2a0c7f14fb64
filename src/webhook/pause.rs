//! Circuit breaker: if an attempt times out or fails slowly, the webhook is paused. Each further such attempt doubles
//! the pause, until the receiver accepts a delivery.

use std::time::Duration;

/// Pause of a webhook after the first attempt that timed out or failed slowly. Each further such attempt doubles the
/// pause.
const PAUSE_MIN: Duration = Duration::from_secs(10);

/// Longest pause of a webhook.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// Longest duration of an attempt that counts as prompt. A slower receiver occupies a worker for longer, so fewer
/// deliveries to its webhook may be sent at the same time.
pub(super) const PROMPT: Duration = Duration::from_secs(3);

/// Returns the pause of a webhook after this number of attempts that timed out or failed slowly.
pub(super) fn pause_after(timeouts: u32) -> Duration {
    let doublings = timeouts.saturating_sub(1).min(16);
    (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_an_hour() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 9, 10, u32::MAX]
            .into_iter()
            .map(|timeouts| pause_after(timeouts).as_secs())
            .collect();

        assert_eq!(seconds, [10, 10, 20, 40, 2_560, 3_600, 3_600]);
    }
}

//! Throttle of the notifications that announce new transfers to readers (tasks that follow the ledger): the first batch
//! after an idle period sends a notification at once; the batches right after it share a notification.
//!
//! A notification wakes a process of the database server and a process of this program. At two thousand batches per
//! second, a notification for each batch would cost more than the batches themselves, and a reader does not notice a
//! delay of a few milliseconds.

use std::time::{Duration, Instant};

/// Shortest time between two notifications.
const INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct NotifyThrottle {
    notified_at: Option<Instant>,
    /// Whether a batch was sent without a notification since the last notification.
    is_pending: bool,
}

impl NotifyThrottle {
    /// Returns whether the batch that is being sent has to notify the readers, and records the decision.
    pub(super) fn record_batch(&mut self) -> bool {
        let is_due = self.notified_at.is_none_or(|at| at.elapsed() >= INTERVAL);
        if is_due {
            self.record_notification();
        } else {
            self.is_pending = true;
        }
        is_due
    }

    /// Records a notification that is sent now.
    pub(super) fn record_notification(&mut self) {
        self.notified_at = Some(Instant::now());
        self.is_pending = false;
    }

    /// Time at which a pending notification must be sent, unless another batch sends it earlier; `None` if no
    /// notification is pending.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.notified_at.filter(|_| self.is_pending).map(|at| at + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_notifies_and_the_next_ones_share_a_notification() {
        let mut throttle = NotifyThrottle::default();

        assert!(throttle.record_batch());
        assert_eq!(throttle.due_at(), None);
        assert!(!throttle.record_batch());
        assert!(!throttle.record_batch());
        assert!(throttle.due_at().is_some_and(|due| due > Instant::now()));
        throttle.record_notification();
        assert_eq!(throttle.due_at(), None);
    }
}

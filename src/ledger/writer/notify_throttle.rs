//! When who follows the book is woken: by the first batch after a silence at once, by those close behind it together.
//!
//! A notification wakes a process of the server and one of ours. With each of two thousand batches a second that
//! costs more than the batches; a reader that is told a few milliseconds later sees no difference.

use std::time::{Duration, Instant};

/// Shortest time between two notifications.
const INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub(super) struct NotifyThrottle {
    rung: Option<Instant>,
    /// A batch was sent that did not ring.
    owes: bool,
}

impl NotifyThrottle {
    /// Whether the batch that is sent now rings.
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.rung.is_none_or(|rung| rung.elapsed() >= INTERVAL);
        if due {
            self.rung();
        } else {
            self.owes = true;
        }
        due
    }

    /// It rings now.
    pub(super) fn rung(&mut self) {
        self.rung = Some(Instant::now());
        self.owes = false;
    }

    /// When it must ring, even if no batch comes.
    pub(super) fn due(&self) -> Option<Instant> {
        self.rung.filter(|_| self.owes).map(|rung| rung + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_batch_rings_and_those_close_behind_it_ring_once_together() {
        let mut bell = NotifyThrottle::default();

        assert!(bell.is_due());
        assert_eq!(bell.due(), None);
        assert!(!bell.is_due());
        assert!(!bell.is_due());
        assert!(bell.due().is_some_and(|due| due > Instant::now()));
        bell.rung();
        assert_eq!(bell.due(), None);
    }
}

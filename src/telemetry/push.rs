//! Sending what has gathered to a receiver that may be away for a while.
//!
//! A thread of its own does it, from a bounded buffer: a receiver that is slow or away costs what could not be sent,
//! which is counted, and nothing else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::Counter;
use tokio::runtime::Runtime;

/// Attempts before something is given up: with the pauses between them, ten seconds.
const ATTEMPTS: u32 = 7;

/// Pause after the first attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(500);

/// Longest pause: so long the end of the program may have to wait.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Most bytes that are sent at once: receivers have limits.
pub(super) const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// What became of an attempt.
pub(super) enum Answer {
    Taken,
    /// What it does not take now it will not take later.
    Refused,
    Away,
}

/// Who is sent to.
pub(super) trait Receiver: Send {
    /// Where the first part of what waits ends that fits into [`REQUEST_BYTES_MAX`], and how many it holds.
    fn part(&self, waiting: &[u8]) -> (usize, u64);

    fn send(&mut self, part: &[u8]) -> impl Future<Output = Answer>;
}

/// Set when the program begins to end.
pub(super) type Closing = Arc<AtomicBool>;

/// Takes what a sink writes out.
pub(super) struct Push<R> {
    runtime: Runtime,
    receiver: R,
    sent: Counter,
    lost: Counter,
    closing: Closing,
    /// Whether the last part was given up: until one is taken, nothing is tried twice.
    is_away: bool,
}

impl<R: Receiver> Push<R> {
    /// `open` is called where the receiver's connections will live.
    pub(super) fn new(
        open: impl FnOnce() -> anyhow::Result<R>,
        sent: Counter,
        lost: Counter,
        closing: &Closing,
    ) -> anyhow::Result<Self> {
        // The thread of the sink has to wait for answers, so it brings its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let receiver = {
            let _here = runtime.enter();
            open()?
        };
        let closing = Arc::clone(closing);
        Ok(Self { runtime, receiver, sent, lost, closing, is_away: false })
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Whether it arrived.
    fn push(&mut self, part: &[u8]) -> bool {
        let mut pause = PAUSE;
        for attempt in 1..=ATTEMPTS {
            match self.runtime.block_on(self.receiver.send(part)) {
                Answer::Taken => return true,
                Answer::Refused => return false,
                Answer::Away => {}
            }
            if self.is_away || self.is_closing() || attempt == ATTEMPTS {
                break;
            }
            std::thread::sleep(pause);
            pause = PAUSE_MAX.min(2 * pause);
        }
        false
    }
}

impl<R: Receiver> Write for Push<R> {
    fn write(&mut self, waiting: &[u8]) -> io::Result<usize> {
        // What this thread does must not become something that it has to send.
        let silent = tracing::subscriber::NoSubscriber::default();
        tracing::subscriber::with_default(silent, || {
            let mut rest = waiting;
            while !rest.is_empty() {
                let (end, count) = self.receiver.part(rest);
                let (now, later) = rest.split_at(end);
                let arrived = !(self.is_closing() && self.is_away) && self.push(now);
                self.is_away = !arrived;
                let counter = if arrived { &self.sent } else { &self.lost };
                counter.increment(count);
                rest = later;
            }
        });
        Ok(waiting.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

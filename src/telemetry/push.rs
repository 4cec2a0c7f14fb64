//! Sending what has gathered to a receiver that may be away for a while.
//!
//! A thread of its own does it, from a bounded buffer: a receiver that is slow or away costs what could not be sent,
//! which is counted, and nothing else.

use std::io::{self, Write};
use std::time::Duration;

use metrics::Counter;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Dispatch, dispatcher};

/// Attempts before something is given up: with the pauses between them ten seconds, and what they take themselves.
const ATTEMPTS: u32 = 7;

/// Pause after the first attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// So long the end of the program waits for a receiver.
const END_MAX: Duration = Duration::from_secs(5);

/// Most bytes that are sent at once: receivers have limits.
pub(super) const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Takes what a sink writes out.
pub(super) struct Push<R> {
    runtime: Runtime,
    receiver: R,
    sent: Counter,
    lost: Counter,
    /// Cancelled when the program begins to end.
    closing: CancellationToken,
    /// Until when the end waits, once it has begun.
    end: Option<Instant>,
    /// Whether the last part found nobody: until somebody is there, nothing is tried twice.
    is_away: bool,
}

impl<R: Receiver> Push<R> {
    /// `open` is called where the receiver's connections will live.
    pub(super) fn new(
        open: impl FnOnce() -> anyhow::Result<R>,
        sent: Counter,
        lost: Counter,
        closing: &CancellationToken,
    ) -> anyhow::Result<Self> {
        // The thread of the sink has to wait for answers, so it brings its own.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let opened = {
            let _here = runtime.enter();
            open()
        };
        let closing = closing.clone();
        match opened {
            Ok(receiver) => {
                Ok(Self { runtime, receiver, sent, lost, closing, end: None, is_away: false })
            }
            Err(cause) => {
                // Whoever starts the program is within a runtime, and may not wait there.
                runtime.shutdown_background();
                Err(cause)
            }
        }
    }

    fn push(&mut self, part: &[u8]) -> Answer {
        if self.closing.is_cancelled() {
            let end = *self.end.get_or_insert_with(|| Instant::now() + END_MAX);
            if self.is_away || Instant::now() > end {
                return Answer::Away;
            }
        }
        let (closing, end, receiver) = (&self.closing, self.end, &mut self.receiver);
        let attempts = if self.is_away { 1 } else { ATTEMPTS };
        self.runtime.block_on(async {
            let ended = async {
                closing.cancelled().await;
                sleep_until(end.unwrap_or_else(|| Instant::now() + END_MAX)).await;
            };
            tokio::select! {
                answer = insist(receiver, part, attempts, closing) => answer,
                () = ended => Answer::Away,
            }
        })
    }
}

/// Tries so often, and no more once the program ends.
async fn insist<R: Receiver>(
    receiver: &mut R,
    part: &[u8],
    attempts: u32,
    closing: &CancellationToken,
) -> Answer {
    let mut pause = PAUSE;
    for _ in 1..attempts {
        let answer = receiver.send(part).await;
        if answer != Answer::Away {
            return answer;
        }
        if closing.run_until_cancelled(sleep(pause)).await.is_none() {
            break;
        }
        pause = PAUSE_MAX.min(2 * pause);
    }
    receiver.send(part).await
}

impl<R: Receiver> Write for Push<R> {
    fn write(&mut self, waiting: &[u8]) -> io::Result<usize> {
        // What this thread does must not become something that it has to send.
        dispatcher::with_default(&Dispatch::none(), || {
            let mut rest = waiting;
            while !rest.is_empty() {
                let (end, count) = self.receiver.part(rest);
                let (now, later) = rest.split_at(end);
                let answer = self.push(now);
                self.is_away = answer == Answer::Away;
                let counter = if answer == Answer::Taken { &self.sent } else { &self.lost };
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

#[cfg(test)]
mod tests {
    use metrics::{Counter, CounterFn};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// Answers as it was told, then takes everything.
    #[derive(Default)]
    struct Told {
        answers: Vec<Answer>,
        asked: u32,
        taken: Vec<u8>,
    }

    impl Receiver for Told {
        fn part(&self, waiting: &[u8]) -> (usize, u64) {
            (waiting.len().min(4), 1)
        }

        async fn send(&mut self, part: &[u8]) -> Answer {
            self.asked += 1;
            let answer =
                if self.answers.is_empty() { Answer::Taken } else { self.answers.remove(0) };
            if answer == Answer::Taken {
                self.taken.extend(part);
            }
            answer
        }
    }

    #[derive(Default)]
    struct Count(AtomicU64);

    impl CounterFn for Count {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }

        fn absolute(&self, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    /// What becomes of these bytes, four at a time: the receiver, how many parts were sent, how many lost.
    fn pushed(bytes: &[u8], answers: &[Answer], is_ending: bool) -> (Told, u64, u64) {
        let (sent, lost) = (Arc::<Count>::default(), Arc::<Count>::default());
        let counters = [&sent, &lost].map(|count| Counter::from_arc(Arc::clone(count)));
        let [to_sent, to_lost] = counters;
        let closing = CancellationToken::new();
        let told = Told { answers: answers.to_vec(), ..Told::default() };
        let mut push = Push::new(|| Ok(told), to_sent, to_lost, &closing).expect("it opens");
        if is_ending {
            closing.cancel();
        }
        push.write_all(bytes).expect("nothing fails");
        let [sent, lost] = [sent, lost].map(|count| count.0.load(Ordering::Relaxed));
        (push.receiver, sent, lost)
    }

    #[test]
    fn who_comes_back_gets_everything_once() {
        let (told, sent, lost) = pushed(b"onetwothree!", &[Answer::Away, Answer::Away], false);

        assert_eq!((told.taken.as_slice(), sent, lost), (&b"onetwothree!"[..], 3, 0));
        assert_eq!(told.asked, 5);
    }

    #[test]
    fn what_is_refused_is_not_sent_again_and_hinders_nothing() {
        let answers = [Answer::Refused, Answer::Away];

        let (told, sent, lost) = pushed(b"onetwothree!", &answers, false);

        assert_eq!((told.taken.as_slice(), sent, lost), (&b"wothree!"[..], 2, 1));
        assert_eq!(told.asked, 4);
    }

    #[test]
    fn the_end_waits_for_nobody_who_is_away() {
        let (told, sent, lost) = pushed(b"onetwothree!", &[Answer::Away; 9], true);

        assert_eq!((sent, lost), (0, 3));
        assert_eq!(told.asked, 2, "once, and once more");
    }
}

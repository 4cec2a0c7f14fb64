//! Tests that every record is delivered or counted as lost, whether the receiver accepts or rejects records, is
//! unavailable, or hangs.

use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::test_support::CountingCounter;
use super::*;

/// A record as large as a quarter of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quarter(u32);

impl ExportRecord for Quarter {
    fn size_bytes(&self) -> usize {
        queue::BATCH_BYTES_MAX / 4
    }
}

/// Reaction of the receiver to an attempt to deliver a batch.
#[derive(Clone, Copy)]
enum Answer {
    Give(ExportOutcome),
    Hang,
    /// The receiver is unavailable, and the program logs another line during the attempt.
    AwayWhileLogging(u32),
    /// The receiver is unavailable, and the program begins to shut down during the attempt.
    AwayWhileStopping,
}

use Answer::{AwayWhileLogging, AwayWhileStopping, Give, Hang};

const AWAY: Answer = Give(ExportOutcome::Unavailable);

#[derive(Default)]
struct Received {
    attempts: u32,
    records: Vec<u32>,
}

/// A receiver with scripted responses; after the last response, it accepts all records.
struct ScriptedReceiver {
    script: Vec<Answer>,
    received: Arc<Mutex<Received>>,
    queue: ExportQueue<Quarter>,
    shutdown: CancellationToken,
}

impl ExportDestination for ScriptedReceiver {
    type Record = Quarter;

    async fn send(&mut self, batch: &mut Vec<Quarter>) -> ExportOutcome {
        self.received.lock().unwrap().attempts += 1;
        let accepted = Give(ExportOutcome::Accepted { rejected: 0 });
        let answer = if self.script.is_empty() { accepted } else { self.script.remove(0) };
        match answer {
            Give(ExportOutcome::Accepted { rejected }) => {
                let kept = batch.iter().skip(usize::try_from(rejected).unwrap());
                self.received.lock().unwrap().records.extend(kept.map(|record| record.0));
                ExportOutcome::Accepted { rejected }
            }
            Give(delivery) => delivery,
            Hang => pending().await,
            AwayWhileLogging(record) => {
                self.queue.push(Quarter(record));
                ExportOutcome::Unavailable
            }
            AwayWhileStopping => {
                self.shutdown.cancel();
                ExportOutcome::Unavailable
            }
        }
    }
}

/// An exporter connected to a receiver with scripted responses.
struct Fixture {
    exporter: Exporter<ScriptedReceiver>,
    received: Arc<Mutex<Received>>,
    delivered: Arc<CountingCounter>,
    lost: Arc<CountingCounter>,
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    attempts: u32,
    records: Vec<u32>,
    delivered: u64,
    lost: u64,
}

impl Fixture {
    /// Creates an exporter whose queue has room for `capacity` records and contains twelve records.
    fn new(capacity: usize, script: impl IntoIterator<Item = Answer>) -> Self {
        let [delivered, lost] = [(); 2].map(|()| Arc::<CountingCounter>::default());
        let queue = ExportQueue::new(capacity * Quarter(0).size_bytes(), lost.counter());
        let (received, shutdown) = (Arc::<Mutex<Received>>::default(), CancellationToken::new());
        let destination = ScriptedReceiver {
            script: script.into_iter().collect(),
            received: Arc::clone(&received),
            queue: queue.clone(),
            shutdown: shutdown.clone(),
        };
        (0..12).for_each(|record| queue.push(Quarter(record)));
        let exporter = Exporter {
            queue,
            destination,
            linger: Duration::ZERO,
            backoff: (Duration::from_millis(1), Duration::from_millis(1)),
            flush_timeout: FLUSH_TIMEOUT,
            counters: ExportCounters { delivered: delivered.counter(), lost: lost.counter() },
            shutdown,
        };
        Self { exporter, received, delivered, lost }
    }

    /// Exports records as a running program does, until the queue is empty.
    fn drain(mut self) -> Outcome {
        runtime().block_on(self.exporter.drain(&mut Vec::new()));
        self.outcome()
    }

    /// Runs the exporter until it has shut down. The shutdown begins immediately, unless the scripted receiver begins
    /// it during a delivery.
    fn run(mut self) -> Outcome {
        let stops = |answer: &Answer| matches!(answer, AwayWhileStopping);
        if !self.exporter.destination.script.iter().any(stops) {
            self.exporter.shutdown.cancel();
        }
        runtime().block_on(self.exporter.run());
        self.outcome()
    }

    fn outcome(self) -> Outcome {
        let Received { attempts, records } = std::mem::take(&mut *self.received.lock().unwrap());
        Outcome { attempts, records, delivered: self.delivered.value(), lost: self.lost.value() }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn a_receiver_that_comes_back_gets_everything_once() {
    let outcome = Fixture::new(100, [AWAY, AWAY]).drain();

    let expected = Outcome { attempts: 5, records: numbers(0..12), delivered: 12, lost: 0 };
    assert_eq!(outcome, expected);
}

#[test]
fn a_rejected_batch_is_lost_and_delays_nothing() {
    let outcome = Fixture::new(100, [Give(ExportOutcome::Rejected), AWAY]).drain();

    let expected = Outcome { attempts: 4, records: numbers(4..12), delivered: 8, lost: 4 };
    assert_eq!(outcome, expected);
}

#[test]
fn records_that_are_rejected_alone_are_lost_alone() {
    let outcome = Fixture::new(100, [Give(ExportOutcome::Accepted { rejected: 1 })]).drain();

    let expected = Outcome { attempts: 3, records: numbers(1..12), delivered: 11, lost: 1 };
    assert_eq!(outcome, expected);
}

#[test]
fn an_outage_loses_nothing_that_fits_into_the_queue() {
    // With the pauses of the real program, 50 attempts take 98 seconds.
    let outcome = Fixture::new(62, (12..62).map(AwayWhileLogging)).drain();

    assert_eq!((outcome.records, outcome.lost), (numbers(0..62), 0));
}

#[test]
fn a_longer_outage_loses_the_oldest_and_counts_them() {
    let outcome = Fixture::new(20, (12..62).map(AwayWhileLogging)).drain();

    assert_eq!((outcome.records, outcome.delivered, outcome.lost), (numbers(42..62), 20, 42));
}

#[test]
fn shutdown_gives_up_on_a_receiver_that_is_away() {
    let outcome = Fixture::new(100, [AWAY; 9]).run();

    assert_eq!(outcome, Outcome { attempts: 2, records: Vec::new(), delivered: 0, lost: 12 });
}

#[test]
fn shutdown_ends_the_pause_between_attempts() {
    let mut fixture = Fixture::new(100, [AwayWhileStopping]);
    fixture.exporter.backoff = (Duration::from_hours(1), Duration::from_hours(1));

    let outcome = fixture.run();

    let expected = Outcome { attempts: 4, records: numbers(0..12), delivered: 12, lost: 0 };
    assert_eq!(outcome, expected);
}

#[test]
fn shutdown_does_not_wait_for_a_receiver_that_hangs() {
    let mut fixture = Fixture::new(100, [Hang]);
    fixture.exporter.flush_timeout = Duration::from_millis(50);

    let outcome = fixture.run();

    assert_eq!(outcome, Outcome { attempts: 1, records: Vec::new(), delivered: 0, lost: 12 });
}

//! Export of log lines and spans to a receiver over the network.
//!
//! A thread with its own runtime sends batches from a bounded queue, so a busy program does not delay the export and
//! the export does not delay the program. While the receiver is unavailable, the records stay in the queue and the
//! batch is retried; a full queue drops its oldest records. Every record that is not delivered is counted.

pub(super) mod loki;
pub(super) mod otlp;
mod queue;
#[cfg(test)]
pub(super) mod test_support;
#[cfg(test)]
mod tests;

use std::thread::JoinHandle;
use std::time::Duration;

use metrics::Counter;
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Dispatch, dispatcher};

pub(super) use queue::{ExportQueue, ExportRecord};

/// Backoff after the first failed attempt. The backoff doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest backoff between attempts. A receiver that is available again gets its records within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Longest time that shutdown waits for the last records to be delivered.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Consecutive attempts that may fail during shutdown before the remaining records are given up.
const FLUSH_ATTEMPTS: u32 = 2;

/// Outcome of an attempt to deliver a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExportOutcome {
    /// The receiver took the batch, except for this many records.
    Accepted { rejected: u64 },
    /// The receiver refused the batch, and would refuse it again.
    Rejected,
    /// The receiver did not answer or asked for a retry.
    Unavailable,
}

/// A client that sends records to a receiver.
pub(super) trait ExportDestination: Send + 'static {
    type Record: ExportRecord;

    /// Tries once to deliver a batch, within a time limit. An implementation may move the records out of `batch`, but
    /// must move them back before it returns or awaits.
    fn send(&mut self, batch: &mut Vec<Self::Record>) -> impl Future<Output = ExportOutcome>;
}

/// Counters of records by their fate.
pub(super) struct ExportCounters {
    pub(super) delivered: Counter,
    pub(super) lost: Counter,
}

/// Sends the records of a queue to a destination.
struct Exporter<D: ExportDestination> {
    queue: ExportQueue<D::Record>,
    destination: D,
    /// Time that records gather before they are sent together.
    linger: Duration,
    /// Shortest and longest pause between attempts.
    backoff: (Duration, Duration),
    flush_timeout: Duration,
    counters: ExportCounters,
    /// Cancelled when the program shuts down.
    shutdown: CancellationToken,
}

/// Guard of an exporter. Dropping the guard waits until the last records are delivered or given up.
pub(super) struct ExportFlush(Option<JoinHandle<()>>);

impl Drop for ExportFlush {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // The panic hook has reported a panic of the thread, whose records are lost.
            let _panicked = thread.join();
        }
    }
}

/// Starts a thread that exports what is pushed to the returned queue, until `shutdown` is cancelled.
///
/// `connect` runs inside the thread's runtime. The returned guard must be dropped after `shutdown` is cancelled.
pub(super) fn start<D: ExportDestination>(
    name: &str,
    connect: impl FnOnce() -> anyhow::Result<D>,
    linger: Duration,
    capacity_bytes: usize,
    counters: ExportCounters,
    shutdown: &CancellationToken,
) -> anyhow::Result<(ExportQueue<D::Record>, ExportFlush)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let destination = match enter(&runtime, connect) {
        Ok(destination) => destination,
        Err(cause) => {
            // The caller may be inside a runtime, in which dropping another runtime panics.
            runtime.shutdown_background();
            return Err(cause);
        }
    };
    let queue = ExportQueue::new(capacity_bytes, counters.lost.clone());
    let mut exporter = Exporter {
        queue: queue.clone(),
        destination,
        linger,
        backoff: (BACKOFF_MIN, BACKOFF_MAX),
        flush_timeout: FLUSH_TIMEOUT,
        counters,
        shutdown: shutdown.clone(),
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Events of the export itself must not become records.
        dispatcher::with_default(&Dispatch::none(), || {
            runtime.block_on(exporter.run());
        });
    })?;
    Ok((queue, ExportFlush(Some(thread))))
}

fn enter<T>(runtime: &Runtime, work: impl FnOnce() -> T) -> T {
    let _guard = runtime.enter();
    work()
}

impl<D: ExportDestination> Exporter<D> {
    /// Exports until shutdown, then flushes the queue within a time limit.
    async fn run(&mut self) {
        let (queue, shutdown, limit) =
            (self.queue.clone(), self.shutdown.clone(), self.flush_timeout);
        let deadline = async {
            shutdown.cancelled().await;
            sleep(limit).await;
        };
        let mut batch = Vec::new();
        tokio::select! {
            () = self.export(&mut batch) => {}
            () = deadline => {}
        }
        queue.put_back(batch);
        queue.clear();
    }

    /// Exports until shutdown, and then until the queue is empty. `batch` holds the records that are being sent.
    async fn export(&mut self, batch: &mut Vec<D::Record>) {
        while !self.shutdown.is_cancelled() {
            tokio::select! {
                () = self.queue.wait_for_record() => {}
                () = self.shutdown.cancelled() => {}
            }
            tokio::select! {
                () = sleep(self.linger) => {}
                () = self.queue.wait_for_full_batch() => {}
                () = self.shutdown.cancelled() => {}
            }
            self.drain(batch).await;
        }
        // Records may have arrived between the last check of the queue and the shutdown.
        self.drain(batch).await;
    }

    /// Delivers everything in the queue. Retries without a limit, but gives up after [`FLUSH_ATTEMPTS`] failures during
    /// shutdown.
    async fn drain(&mut self, batch: &mut Vec<D::Record>) {
        let (shortest, longest) = self.backoff;
        let (mut backoff, mut failures) = (shortest, 0);
        loop {
            *batch = self.queue.take_batch();
            if batch.is_empty() {
                return;
            }
            let is_flush = self.shutdown.is_cancelled();
            if self.try_deliver(batch).await {
                (backoff, failures) = (shortest, 0);
                continue;
            }
            failures += u32::from(is_flush);
            if failures >= FLUSH_ATTEMPTS {
                self.queue.clear();
                return;
            }
            // Shutdown interrupts the pause, because the deadline of the flush is near.
            let _interrupted = self.shutdown.run_until_cancelled(sleep(backoff)).await;
            backoff = longest.min(2 * backoff);
        }
    }

    /// Sends a batch once. Returns true if the records were counted as delivered or lost, and false if they were put
    /// back for another attempt.
    async fn try_deliver(&mut self, batch: &mut Vec<D::Record>) -> bool {
        let count = batch.len() as u64;
        let rejected = match self.destination.send(batch).await {
            ExportOutcome::Accepted { rejected } => rejected.min(count),
            ExportOutcome::Rejected => count,
            ExportOutcome::Unavailable => {
                self.queue.put_back(std::mem::take(batch));
                return false;
            }
        };
        self.counters.delivered.increment(count - rejected);
        self.counters.lost.increment(rejected);
        batch.clear();
        true
    }
}

//! Export of log lines and spans over the network, to a receiver such as Loki or a trace collector.
//!
//! A separate thread with its own runtime takes batches from a bounded queue and sends them, so that the export and the
//! program do not delay each other. While the receiver is unavailable, records stay in the queue and the batch is
//! retried. A full queue drops its oldest records. Every record that is not delivered is counted.

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

/// Pause after the first failed attempt. It doubles with each further failure, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest pause between attempts. When the receiver becomes available again, it gets the waiting records within this
/// time.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Longest time that shutdown waits for the delivery of the last records.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of consecutive failed attempts during shutdown after which the remaining records are dropped.
const FLUSH_ATTEMPTS: u32 = 2;

/// Outcome of an attempt to deliver a batch of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExportOutcome {
    /// The receiver accepted the batch, except for `rejected` records.
    Accepted { rejected: u64 },
    /// The receiver rejected the batch, and a retry would be rejected too.
    Rejected,
    /// The receiver did not respond, or asked for a retry.
    Unavailable,
}

/// A client that sends records to a receiver, such as Loki.
pub(super) trait ExportDestination: Send + 'static {
    type Record: ExportRecord;

    /// Tries to deliver a batch, once and within a time limit. An implementation may move records out of `batch`, but
    /// must move them back before it awaits or returns, so that they are not lost if the call is canceled.
    fn send(&mut self, batch: &mut Vec<Self::Record>) -> impl Future<Output = ExportOutcome>;
}

/// Counters of delivered records and of lost records.
pub(super) struct ExportCounters {
    pub(super) delivered: Counter,
    pub(super) lost: Counter,
}

/// Sends the records of a queue to a receiver.
struct Exporter<D: ExportDestination> {
    queue: ExportQueue<D::Record>,
    destination: D,
    /// Time for which records are collected before they are sent together.
    linger: Duration,
    /// Shortest and longest pause after a failed attempt.
    backoff: (Duration, Duration),
    flush_timeout: Duration,
    counters: ExportCounters,
    /// Token that is canceled when the program shuts down.
    shutdown: CancellationToken,
}

/// Guard of an exporter. When it is dropped, it waits until the last records are delivered or counted as lost.
pub(super) struct ExportFlush(Option<JoinHandle<()>>);

impl Drop for ExportFlush {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // If the thread panicked, the panic hook has reported it, and the records of the thread are lost.
            let _panicked = thread.join();
        }
    }
}

/// Starts a thread that exports the records that are pushed to the returned queue, until `shutdown` is canceled.
///
/// `connect` is called inside the thread's runtime. The returned guard must be dropped only after `shutdown` is
/// canceled, because dropping it waits for the thread.
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
            // The caller may be inside a runtime, where dropping another runtime would panic.
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
        // Log events of the export itself are discarded. Otherwise, each export would cause more records to export.
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
    /// Exports records until shutdown, then sends the rest of the queue within a time limit.
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

    /// Exports records until shutdown, and then until the queue is empty. `batch` holds the records that are being
    /// sent.
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
        // More records may have arrived between the last check of the queue and the shutdown.
        self.drain(batch).await;
    }

    /// Sends everything in the queue. While the program runs, retries without limit. During shutdown, drops the rest
    /// after [`FLUSH_ATTEMPTS`] failures.
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
            // Shutdown ends the pause early, because the time limit for the last records has begun.
            let _interrupted = self.shutdown.run_until_cancelled(sleep(backoff)).await;
            backoff = longest.min(2 * backoff);
        }
    }

    /// Tries to send a batch. Returns true if its records were counted as delivered or lost, and false if they were put
    /// back into the queue for another attempt.
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

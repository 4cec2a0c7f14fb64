//! Queue of records that are waiting to be exported. Its size in bytes is limited; a full queue drops its oldest
//! records.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Counter;
use tokio::sync::Notify;

/// Maximum size of a batch of records, in bytes. Receivers limit the size of a request.
pub(in crate::telemetry) const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// A record that can be exported: a log line or a span.
pub(in crate::telemetry) trait ExportRecord: Send + 'static {
    /// Returns the approximate size of the record in memory.
    fn size_bytes(&self) -> usize;
}

/// Handle to a queue of records. It is cheap to clone.
///
/// A full queue drops its oldest records and counts them. Therefore, an unavailable receiver neither fills the memory
/// nor delays the program.
pub(in crate::telemetry) struct ExportQueue<R>(Arc<Shared<R>>);

impl<R> Clone for ExportQueue<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<R> {
    contents: Mutex<Contents<R>>,
    capacity_bytes: usize,
    dropped: Counter,
    /// Notifies the exporter when an empty queue gets a record, and when there are enough records for a full batch.
    changed: Notify,
}

struct Contents<R> {
    records: VecDeque<R>,
    bytes: usize,
}

impl<R: ExportRecord> Contents<R> {
    /// Drops the oldest records until the remaining records fit into the capacity. Returns the number of dropped
    /// records.
    fn evict(&mut self, capacity_bytes: usize) -> u64 {
        let mut evicted = 0;
        while self.bytes > capacity_bytes
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.size_bytes();
            evicted += 1;
        }
        evicted
    }
}

impl<R: ExportRecord> ExportQueue<R> {
    /// Creates an empty queue. The counter `dropped` counts the records that the queue drops.
    pub(in crate::telemetry) fn new(capacity_bytes: usize, dropped: Counter) -> Self {
        let contents = Mutex::new(Contents { records: VecDeque::new(), bytes: 0 });
        Self(Arc::new(Shared { contents, capacity_bytes, dropped, changed: Notify::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Contents<R>> {
        self.0.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record, and drops the oldest records if the queue is full.
    pub(in crate::telemetry) fn push(&self, record: R) {
        let size = record.size_bytes();
        if size > self.0.capacity_bytes {
            self.0.dropped.increment(1);
            return;
        }
        let mut contents = self.lock();
        let before = contents.bytes;
        contents.records.push_back(record);
        contents.bytes += size;
        let is_first = contents.records.len() == 1;
        let fills_batch = before < BATCH_BYTES_MAX && contents.bytes >= BATCH_BYTES_MAX;
        let evicted = contents.evict(self.0.capacity_bytes);
        drop(contents);
        if evicted > 0 {
            self.0.dropped.increment(evicted);
        }
        if is_first || fills_batch {
            self.0.changed.notify_one();
        }
    }

    /// Waits until the queue is not empty.
    pub(super) async fn wait_for_record(&self) {
        while self.lock().records.is_empty() {
            self.0.changed.notified().await;
        }
    }

    /// Waits until there are enough records for a full batch.
    pub(super) async fn wait_for_full_batch(&self) {
        while self.lock().bytes < BATCH_BYTES_MAX {
            self.0.changed.notified().await;
        }
    }

    /// Removes and returns the oldest records that together fit into a batch. Returns at least one record unless the
    /// queue is empty.
    pub(in crate::telemetry) fn take_batch(&self) -> Vec<R> {
        let mut contents = self.lock();
        let (mut count, mut bytes) = (0, 0);
        for record in &contents.records {
            let size = record.size_bytes();
            if count > 0 && bytes + size > BATCH_BYTES_MAX {
                break;
            }
            (count, bytes) = (count + 1, bytes + size);
        }
        contents.bytes -= bytes;
        contents.records.drain(..count).collect()
    }

    /// Puts an undelivered batch back at the front of the queue. If the queue then exceeds its capacity, drops its
    /// oldest records.
    pub(super) fn put_back(&self, batch: Vec<R>) {
        let mut contents = self.lock();
        contents.bytes += batch.iter().map(ExportRecord::size_bytes).sum::<usize>();
        for record in batch.into_iter().rev() {
            contents.records.push_front(record);
        }
        let evicted = contents.evict(self.0.capacity_bytes);
        drop(contents);
        self.0.dropped.increment(evicted);
    }

    /// Drops all records, and counts them as dropped.
    pub(super) fn clear(&self) {
        let mut contents = self.lock();
        contents.bytes = 0;
        let rest = std::mem::take(&mut contents.records);
        drop(contents);
        self.0.dropped.increment(rest.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::export::test_support::CountingCounter;

    struct Sized(usize, char);

    impl ExportRecord for Sized {
        fn size_bytes(&self) -> usize {
            self.0
        }
    }

    fn queue(capacity_bytes: usize) -> (ExportQueue<Sized>, Arc<CountingCounter>) {
        let dropped = Arc::<CountingCounter>::default();
        (ExportQueue::new(capacity_bytes, dropped.counter()), dropped)
    }

    fn names(batch: &[Sized]) -> String {
        batch.iter().map(|record| record.1).collect()
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_counts() {
        let (queue, dropped) = queue(10);

        for name in 'a'..='e' {
            queue.push(Sized(3, name));
        }

        assert_eq!(names(&queue.take_batch()), "cde");
        assert_eq!(dropped.value(), 2);
    }

    #[test]
    fn a_record_larger_than_the_queue_is_dropped_and_counted() {
        let (queue, dropped) = queue(10);

        queue.push(Sized(9, 'a'));
        queue.push(Sized(11, 'b'));

        assert_eq!(names(&queue.take_batch()), "a");
        assert_eq!(dropped.value(), 1);
    }

    #[test]
    fn a_batch_holds_as_many_as_fit_and_at_least_one() {
        let (queue, dropped) = queue(10 * BATCH_BYTES_MAX);
        for (size, name) in
            [(BATCH_BYTES_MAX + 1, 'a'), (1, 'b'), (BATCH_BYTES_MAX - 1, 'c'), (1, 'd')]
        {
            queue.push(Sized(size, name));
        }

        let batches: Vec<String> = (0..4).map(|_| names(&queue.take_batch())).collect();

        assert_eq!(batches, ["a", "bc", "d", ""]);
        assert_eq!(dropped.value(), 0);
    }

    #[test]
    fn a_batch_that_is_put_back_comes_first_and_loses_its_oldest() {
        let (queue, dropped) = queue(10);
        queue.push(Sized(4, 'a'));
        queue.push(Sized(4, 'b'));
        let batch = queue.take_batch();
        queue.push(Sized(4, 'c'));

        queue.put_back(batch);

        assert_eq!(names(&queue.take_batch()), "bc");
        assert_eq!(dropped.value(), 1);
    }
}

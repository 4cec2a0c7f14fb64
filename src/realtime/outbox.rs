//! The outbox of a connection: the queue of frames that wait for its client, limited in bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::position::BookPosition;

/// Memory that a queued frame takes in addition to its text.
const ENTRY_BYTES: usize = size_of::<Outgoing>();

/// Largest capacity, in frames, that an empty queue keeps. The memory of a larger queue is released.
const KEPT_ENTRIES_MAX: usize = 4;

/// Number of a subscription, unique within its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SubscriptionId(pub u32);

/// A frame that waits to be sent to the client.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub frame: Utf8Bytes,
    /// The event that the frame contains; `None` for a reply to a request of the client.
    pub event: Option<OutgoingEvent>,
}

#[derive(Debug, Clone)]
pub(super) struct OutgoingEvent {
    pub subscription: SubscriptionId,
    /// Position of the subscription after the client has received this event.
    pub position: BookPosition,
    pub committed_at: OffsetDateTime,
    /// Whether the event was queued when it happened, rather than by a replay of missed events.
    pub is_live: bool,
}

/// The queue of frames for a connection. The hub and the session add frames, and the session takes and sends them.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    wake: Notify,
    bytes_max: usize,
    /// Number of bytes in the outboxes of all connections of the process.
    total_bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<Outgoing>,
    bytes: usize,
    /// Subscriptions that fell behind because the queue was full, each with the position from which it must continue.
    behind: Vec<(SubscriptionId, BookPosition)>,
    /// Time when the queue became full. It is reset only when the queue is empty, not when it merely has room again.
    full_since: Option<Instant>,
    /// Whether the credential of the connection was revoked.
    is_revoked: bool,
    is_closed: bool,
}

/// Result of adding an event to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// The queue is full, so the event was not added.
    Full,
    /// The connection has ended, so the event was not added.
    Closed,
}

impl Outbox {
    pub(super) fn new(bytes_max: usize, total_bytes: Arc<AtomicUsize>) -> Self {
        Self { queue: Mutex::default(), wake: Notify::new(), bytes_max, total_bytes }
    }

    /// Adds an event, unless the queue is full. An empty queue accepts an event of any size.
    pub(super) fn push(&self, frame: Utf8Bytes, event: OutgoingEvent) -> Pushed {
        let mut queue = self.lock();
        if queue.is_closed {
            return Pushed::Closed;
        }
        let bytes = frame.len() + ENTRY_BYTES;
        if !queue.frames.is_empty() && queue.bytes + bytes > self.bytes_max {
            // The time is noted here too, because a replay can fill the queue while no live subscription falls behind.
            queue.full_since.get_or_insert_with(Instant::now);
            return Pushed::Full;
        }
        self.add(&mut queue, Outgoing { frame, event: Some(event) });
        Pushed::Queued
    }

    /// Adds a reply. Replies need no limit, because the session reads no further requests while the queue is full.
    pub(super) fn reply(&self, frame: Utf8Bytes) {
        let mut queue = self.lock();
        if !queue.is_closed {
            self.add(&mut queue, Outgoing { frame, event: None });
        }
    }

    fn add(&self, queue: &mut Queue, outgoing: Outgoing) {
        let bytes = outgoing.frame.len() + ENTRY_BYTES;
        queue.bytes += bytes;
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
        queue.frames.push_back(outgoing);
    }

    /// Notes that a subscription has fallen behind, because the queue was full and events were not added.
    pub(super) fn fall_behind(&self, subscription: SubscriptionId, position: BookPosition) {
        let mut queue = self.lock();
        queue.behind.push((subscription, position));
        queue.full_since.get_or_insert_with(Instant::now);
        drop(queue);
        // The hub wakes only sessions of live subscriptions, and this subscription is no longer live.
        self.wake.notify_one();
    }

    pub(super) fn revoke(&self) {
        self.lock().is_revoked = true;
        self.wake.notify_one();
    }

    /// Wakes the session, so that it sends the frames that were added.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until the session has something to do, such as new frames to send. Cancel-safe.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Takes frames from the front of the queue until they have at least `bytes_max` bytes or the queue is empty.
    pub(super) fn take(&self, bytes_max: usize, into: &mut Vec<Outgoing>) {
        let mut queue = self.lock();
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(outgoing) = queue.frames.pop_front() else { break };
            bytes += outgoing.frame.len();
            queue.bytes -= outgoing.frame.len() + ENTRY_BYTES;
            self.total_bytes.fetch_sub(outgoing.frame.len() + ENTRY_BYTES, Ordering::Relaxed);
            into.push(outgoing);
        }
        if queue.frames.is_empty() {
            queue.full_since = None;
            if queue.frames.capacity() > KEPT_ENTRIES_MAX {
                queue.frames = VecDeque::new();
            }
        }
    }

    /// Returns the subscriptions that fell behind, and whether the credential was revoked. Resets both.
    pub(super) fn take_notes(&self) -> (Vec<(SubscriptionId, BookPosition)>, bool) {
        let mut queue = self.lock();
        (std::mem::take(&mut queue.behind), std::mem::take(&mut queue.is_revoked))
    }

    /// Returns the time when the queue became full, or `None` if it has been empty since.
    pub(super) fn full_since(&self) -> Option<Instant> {
        self.lock().full_since
    }

    /// Returns whether the queue has room, so that the session may read further requests.
    pub(super) fn has_room(&self) -> bool {
        self.lock().bytes < self.bytes_max
    }

    /// Removes all frames of a subscription that has ended.
    pub(super) fn forget(&self, subscription: SubscriptionId) {
        self.retain(|outgoing| {
            outgoing.event.as_ref().is_none_or(|event| event.subscription != subscription)
        });
        self.lock().behind.retain(|(id, _)| *id != subscription);
    }

    /// Closes the outbox, which then accepts no more frames. Returns the subscriptions that had unsent events.
    pub(super) fn close(&self) -> Vec<SubscriptionId> {
        self.lock().is_closed = true;
        let mut unsent = Vec::new();
        self.retain(|outgoing| {
            unsent.extend(outgoing.event.as_ref().map(|event| event.subscription));
            false
        });
        unsent.sort_unstable();
        unsent.dedup();
        unsent
    }

    fn retain(&self, mut keeps: impl FnMut(&Outgoing) -> bool) {
        let mut queue = self.lock();
        let mut dropped = 0;
        queue.frames.retain(|outgoing| {
            let is_kept = keeps(outgoing);
            if !is_kept {
                dropped += outgoing.frame.len() + ENTRY_BYTES;
            }
            is_kept
        });
        queue.bytes -= dropped;
        self.total_bytes.fetch_sub(dropped, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u32) -> OutgoingEvent {
        OutgoingEvent {
            subscription: SubscriptionId(id),
            position: "p1.0123456789abcdef.1.0123456789ab.1.0".parse().unwrap(),
            committed_at: OffsetDateTime::UNIX_EPOCH,
            is_live: true,
        }
    }

    fn outbox(bytes_max: usize) -> Outbox {
        Outbox::new(bytes_max, Arc::default())
    }

    #[test]
    fn a_queue_is_bounded_in_bytes() {
        let outbox = outbox(1_000);
        let frame = || Utf8Bytes::from("x".repeat(600));

        assert_eq!(outbox.push(frame(), event(1)), Pushed::Queued);
        assert_eq!(outbox.push(frame(), event(1)), Pushed::Full);
        let mut taken = Vec::new();
        outbox.take(1, &mut taken);
        assert_eq!(taken.len(), 1);
        assert_eq!(outbox.total_bytes.load(Ordering::Relaxed), 0);
        // An event that is larger than the limit of the queue must be deliverable, too.
        assert_eq!(outbox.push("x".repeat(5_000).into(), event(1)), Pushed::Queued);
    }

    #[test]
    fn a_full_queue_counts_as_full_until_it_is_empty() {
        let outbox = outbox(300);
        outbox.push("a".into(), event(1));
        outbox.push("b".into(), event(1));
        assert_eq!(outbox.full_since(), None);

        outbox.fall_behind(SubscriptionId(1), event(1).position);
        let mut taken = Vec::new();
        outbox.take(1, &mut taken);
        assert!(outbox.full_since().is_some());
        outbox.take(1, &mut taken);

        assert_eq!((taken.len(), outbox.full_since()), (2, None));
        assert_eq!(outbox.take_notes(), (vec![(SubscriptionId(1), event(1).position)], false));
    }

    #[test]
    fn a_closed_outbox_names_what_was_not_sent() {
        let outbox = outbox(10_000);
        outbox.reply("reply".into());
        for id in [2, 1, 2] {
            outbox.push("x".into(), event(id));
        }

        assert_eq!(outbox.close(), [SubscriptionId(1), SubscriptionId(2)]);
        assert_eq!(outbox.push("x".into(), event(1)), Pushed::Closed);
        assert_eq!(outbox.total_bytes.load(Ordering::Relaxed), 0);
    }
}

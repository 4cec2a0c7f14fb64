//! State of a topic: its subscribers and its recent events.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;

use super::delivery::{Delivery, FrameFormat};
use super::message::Viewer;
use super::outbox::{Outbox, OutgoingEvent, Pushed, SubscriptionId};
use super::position::BookPosition;

/// Maximum number of bytes of recent events that a topic keeps in memory. Clients that reconnect receive these events
/// without a read from the database.
pub(super) const RECENT_BYTES_MAX: usize = 1024 * 1024;

/// A subscription of a connection to a topic.
#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub id: SubscriptionId,
    pub outbox: Arc<Outbox>,
    pub format: FrameFormat,
    pub viewer: Viewer,
    /// Limits the subscription to events about this player.
    pub player: Option<Arc<str>>,
    /// Position up to which the subscriber has received everything.
    pub position: BookPosition,
}

impl Subscriber {
    /// Adds an event to the subscriber's outbox, unless the subscriber has received it already.
    pub(super) fn push(&mut self, delivery: &Delivery, is_live: bool) -> Pushed {
        if !delivery.is_after(&self.position) {
            return Pushed::Queued;
        }
        let (position, frame) = delivery.frame(self.format, &self.position);
        let is_for = |_: &Utf8Bytes| delivery.is_for(self.viewer, self.player.as_deref());
        let pushed = match frame.filter(is_for) {
            Some(frame) => {
                let committed_at = delivery.message.at;
                let subscription = self.id;
                let position = position.clone();
                let event = OutgoingEvent { subscription, position, committed_at, is_live };
                self.outbox.push(frame, event)
            }
            None => Pushed::Queued,
        };
        if pushed == Pushed::Queued {
            self.position = position;
        }
        pushed
    }
}

/// State of a topic: its subscribers and its recent events.
#[derive(Debug)]
pub(super) struct TopicState {
    /// Subscribers that are up to date, and receive events as they happen.
    pub live: Vec<Subscriber>,
    /// Subscribers that have missed events, and must catch up.
    pub behind: Vec<(Arc<Outbox>, SubscriptionId)>,
    /// All events after the position `since`, oldest first.
    recent: VecDeque<Arc<Delivery>>,
    recent_bytes: usize,
    since: BookPosition,
    /// Lock that is held while older events are read from the database. Other subscribers that need them wait, instead
    /// of reading the same events again.
    pub reading: Arc<tokio::sync::Mutex<()>>,
}

impl TopicState {
    pub(super) fn new(since: BookPosition) -> Self {
        Self {
            live: Vec::new(),
            behind: Vec::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            since,
            reading: Arc::default(),
        }
    }

    pub(super) fn since(&self) -> &BookPosition {
        &self.since
    }

    /// Returns the number of events that a topic can keep in memory, given the average size of its recent events.
    /// Returns `None` if there are no recent events.
    pub(super) fn events_in_memory(&self) -> Option<usize> {
        let average = self.recent_bytes.checked_div(self.recent.len())?;
        RECENT_BYTES_MAX.checked_div(average)
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.behind.is_empty() || !self.live.is_empty()
    }

    /// Returns the recent events after a position, which must not be earlier than `since`.
    pub(super) fn after(&self, position: &BookPosition) -> impl Iterator<Item = &Arc<Delivery>> {
        self.recent.iter().filter(move |delivery| delivery.is_after(position))
    }

    /// Pushes an event to every live subscriber. A subscriber whose outbox is full falls behind. All live subscribers
    /// must have received everything up to `from`.
    pub(super) fn push(&mut self, delivery: &Arc<Delivery>, from: &BookPosition) {
        let Self { live, behind, .. } = self;
        live.retain_mut(|subscriber| match subscriber.push(delivery, true) {
            Pushed::Queued => true,
            Pushed::Closed => false,
            Pushed::Full => {
                let position = subscriber.position.clone().join(from);
                subscriber.outbox.fall_behind(subscriber.id, position);
                behind.push((Arc::clone(&subscriber.outbox), subscriber.id));
                false
            }
        });
        self.keep(Arc::clone(delivery));
    }

    fn keep(&mut self, delivery: Arc<Delivery>) {
        self.recent_bytes += delivery.bytes();
        self.recent.push_back(delivery);
        while self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.bytes();
            self.since = self.since.clone().join(&oldest.position);
        }
    }

    /// Adds older events in front of the recent events. Returns false, and adds no events, if the older events do not
    /// end where the recent events begin, or if there is no room for them.
    pub(super) fn extend_back(
        &mut self,
        since: BookPosition,
        until: &BookPosition,
        older: &[Arc<Delivery>],
    ) -> bool {
        let bytes: usize = older.iter().map(|delivery| delivery.bytes()).sum();
        if *until != self.since || self.recent_bytes + bytes > RECENT_BYTES_MAX {
            return false;
        }
        for delivery in older.iter().rev() {
            self.recent.push_front(Arc::clone(delivery));
        }
        self.recent_bytes += bytes;
        self.since = since;
        true
    }

    /// Adds a subscriber that is up to date.
    pub(super) fn add_live(&mut self, subscriber: Subscriber) {
        if self.live.is_empty() {
            // Most topics have only one subscriber, so no room is reserved for more.
            self.live.reserve_exact(1);
        }
        self.live.push(subscriber);
    }

    /// Removes a subscriber, whether it is up to date or behind.
    pub(super) fn remove(&mut self, outbox: &Arc<Outbox>, id: SubscriptionId) {
        let is_subscriber = |own: &Subscriber| own.id == id && Arc::ptr_eq(&own.outbox, outbox);
        // The order of the subscribers does not matter, and `swap_remove` is fast when many subscribers leave at once.
        match self.live.iter().position(is_subscriber) {
            Some(index) => drop(self.live.swap_remove(index)),
            None => self.caught_up(outbox, id),
        }
    }

    /// Removes a subscriber from the list of those that are behind.
    pub(super) fn caught_up(&mut self, outbox: &Arc<Outbox>, id: SubscriptionId) {
        let is_subscriber = |(other, other_id): &(Arc<Outbox>, SubscriptionId)| {
            *other_id == id && Arc::ptr_eq(other, outbox)
        };
        if let Some(index) = self.behind.iter().position(is_subscriber) {
            self.behind.swap_remove(index);
        }
    }

    /// Wakes the sessions of all subscribers that are up to date, so that the sessions send the pushed events.
    pub(super) fn wake(&self) {
        for subscriber in &self.live {
            subscriber.outbox.wake();
        }
    }
}

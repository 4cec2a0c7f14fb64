//! The hub of a process: a task that follows the ledger and the event table, and the index of all subscriptions.
//!
//! The index is locked while events are delivered, and while a subscription begins or ends. So each subscription begins
//! at an exact position. While there are no subscriptions and no connections with a credential, the hub reads nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::select_all;
use tokio::sync::{Mutex, MutexGuard, Notify, watch};

use super::continuation::CheckedPositions;
use super::credential::{Credential, REVOCATIONS, revoke};
use super::delivery::{Delivery, DeliverySource};
use super::event;
use super::feed::{Feed, Topic, TopicTransfers, Wanted};
use super::message::Message;
use super::outbox::{Outbox, SubscriptionId};
use super::position::BookPosition;
use super::topic::{Subscriber, TopicState};
use crate::error::{Error, Result};
use crate::ledger::book::{FIRST_BOOK, book_of_account};
use crate::ledger::tail::{
    BookEvent, Events, LiveReader, SealedRow, SealedTransfers, Segment, Tail,
};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// Pause after a failed attempt to start the hub, or to turn transfers into messages.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Longest time that a subscription waits for the hub to start.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// A handle to the hub. Cheap to clone.
#[derive(Clone)]
pub(super) struct Hub(Arc<HubParts>);

pub(super) struct HubParts {
    tail: Tail,
    pub(super) feeds: Vec<Arc<dyn Feed>>,
    index: Mutex<Index>,
    /// Number of tasks that are waiting for the hub to start, in order to begin a subscription or register a
    /// credential.
    starting: AtomicUsize,
    /// Wakes the hub's task when the hub is needed for the first time, and when it is no longer needed.
    changed: Notify,
    /// Whether the hub follows the ledger and the event table.
    is_following: watch::Sender<bool>,
    pub(super) retention: Duration,
    pub(super) checked: CheckedPositions,
    metrics: Arc<Metrics>,
}

/// All subscriptions of the process, and its open connections by credential.
#[derive(Default)]
pub(super) struct Index {
    /// Position up to which the hub has delivered everything; `None` while the hub is not following the ledger.
    position: Option<BookPosition>,
    pub(super) topics: HashMap<Arc<str>, TopicState>,
    /// Names of all topics in `topics`, as a set that is passed to the feeds.
    wanted: Wanted,
    /// Connections, by the credential on which they depend.
    pub(super) credentials: HashMap<Credential, Vec<Arc<Outbox>>>,
    /// Time when the hub last notified connections of a revocation; before the first revocation, time when the hub
    /// began to follow the event table.
    pub(super) revoked_at: Option<Instant>,
}

/// Guard of a task that is waiting for the hub to start. The hub does not stop while the guard exists.
struct Starting<'a>(&'a HubParts);

impl<'a> Starting<'a> {
    fn begin(hub: &'a HubParts) -> Self {
        hub.starting.fetch_add(1, Ordering::Relaxed);
        hub.changed.notify_one();
        Self(hub)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.0.starting.fetch_sub(1, Ordering::Relaxed);
        // Wakes the hub, which then checks whether it is still needed.
        self.0.changed.notify_one();
    }
}

impl HubParts {
    /// Wakes the hub's task if the hub is no longer needed, so that it stops reading.
    pub(super) fn note_need(&self, index: &Index) {
        if !self.is_needed(index) {
            self.changed.notify_one();
        }
    }

    fn is_needed(&self, index: &Index) -> bool {
        let is_used = !index.topics.is_empty() || !index.credentials.is_empty();
        is_used || self.starting.load(Ordering::Relaxed) > 0
    }
}

/// The streams that the hub reads: a stream of transfers for each book of the ledger, and a stream of events.
struct Readers {
    books: Vec<LiveReader<SealedTransfers>>,
    events: LiveReader<Events>,
}

impl std::ops::Deref for Hub {
    type Target = HubParts;

    fn deref(&self) -> &HubParts {
        &self.0
    }
}

impl Hub {
    pub(super) fn start(
        tail: &Tail,
        feeds: Vec<Arc<dyn Feed>>,
        retention: Duration,
        metrics: &Arc<Metrics>,
        tasks: &Tasks,
    ) -> Self {
        let hub = Self(Arc::new(HubParts {
            tail: tail.clone(),
            feeds,
            index: Mutex::default(),
            starting: AtomicUsize::new(0),
            changed: Notify::new(),
            is_following: watch::Sender::new(false),
            retention,
            checked: CheckedPositions::default(),
            metrics: Arc::clone(metrics),
        }));
        let (task, stopping) = (hub.clone(), tasks.stopping().clone());
        tasks.spawn("realtime-hub", async move {
            let _stopped = stopping.run_until_cancelled(Box::pin(task.run())).await;
            Ok(())
        });
        hub
    }

    async fn run(self) {
        loop {
            while !self.is_needed(&*self.index.lock().await) {
                self.changed.notified().await;
            }
            match Box::pin(self.follow()).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(
                        error.message = %error,
                        "could not begin to read new events for connected clients; retrying in {RETRY_DELAY:?}"
                    );
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Follows the ledger and the event table until the hub is no longer needed.
    async fn follow(&self) -> Result<()> {
        let Readers { mut books, mut events } = self.open_readers().await?;
        self.is_following.send_replace(true);
        loop {
            // If several books are ready, the first is read. The rotation lets each book be first in turn.
            books.rotate_left(1);
            let next = select_all(books.iter_mut().map(|book| Box::pin(book.next())));
            tokio::select! {
                (segment, _, _) = next => match segment {
                    Some(segment) => self.deliver_transfers(&segment).await,
                    None => return Ok(()),
                },
                segment = events.next() => match segment {
                    Some(segment) => self.deliver_events(&segment).await,
                    None => return Ok(()),
                },
                () = self.changed.notified() => {
                    let mut index = self.index.lock().await;
                    if !self.is_needed(&index) {
                        index.position = None;
                        self.is_following.send_replace(false);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Opens streams that begin at the current ends of the ledger and the event table, and sets the position of the hub
    /// to these ends.
    async fn open_readers(&self) -> Result<Readers> {
        let mut books = Vec::new();
        for book in FIRST_BOOK..=self.tail.books() {
            books.push(self.tail.live_transfers(book, None).await?);
        }
        let events = self.tail.live_events().await?;
        let mut position = self.database_position().await?.with_books(self.tail.books());
        for book in &books {
            let seq = book.position().seq;
            let facts = self.tail.position_facts(seq, self.retention).await?;
            position = position.after_transfer(seq, facts.batch.as_deref().unwrap_or(""));
        }
        let mut index = self.index.lock().await;
        index.position = Some(BookPosition { event: events.position(), ..position });
        index.revoked_at = Some(Instant::now());
        drop(index);
        Ok(Readers { books, events })
    }

    async fn deliver_transfers(&self, segment: &Segment<SealedRow>) {
        let mut index = self.index.lock().await;
        let mut messages = self.translate(&segment.items, &index.wanted).await;
        messages.sort_by_key(|(row, _)| *row);
        let Some(from) = index.position.clone() else { return };
        let deliveries = messages.into_iter().filter_map(|(row, message)| {
            let SealedRow { row, batch } = segment.items.get(row)?;
            let position = from.clone().after_transfer(row.seq, batch);
            Some(Delivery::new(position, DeliverySource::Book(row.seq), message))
        });
        Self::deliver(&mut index, &from, deliveries);
        if let Some(last) = segment.items.last() {
            index.position = Some(from.after_transfer(segment.until.seq, &last.batch));
        }
    }

    async fn deliver_events(&self, segment: &Segment<BookEvent>) {
        let mut index = self.index.lock().await;
        let Some(from) = index.position.clone() else { return };
        for revoked in segment.items.iter().filter(|event| event.topic == REVOCATIONS) {
            revoke(&mut index, &revoked.body);
        }
        let deliveries: Vec<Delivery> = segment
            .items
            .iter()
            .filter(|event| index.topics.contains_key(event.topic.as_str()))
            .filter_map(|event| delivery_of(event, &from))
            .collect();
        Self::deliver(&mut index, &from, deliveries.into_iter());
        index.position = Some(BookPosition { event: segment.until, ..from });
    }

    /// Pushes deliveries to the subscribers of their topics, then wakes the sessions of these subscribers.
    fn deliver(index: &mut Index, from: &BookPosition, deliveries: impl Iterator<Item = Delivery>) {
        let mut touched = Wanted::new();
        for delivery in deliveries {
            let Some((name, _)) = index.topics.get_key_value(&*delivery.message.topic) else {
                continue;
            };
            let name = Arc::clone(name);
            if let Some(topic) = index.topics.get_mut(&name) {
                topic.push(&Arc::new(delivery), from);
            }
            touched.insert(name);
        }
        for name in touched {
            if let Some(topic) = index.topics.get(&name) {
                topic.wake();
            }
        }
    }

    /// Asks every feed to turn rows of the ledger into messages. A feed that fails, for example because the database is
    /// not available, is called again until it succeeds.
    pub(super) async fn translate(
        &self,
        rows: &[SealedRow],
        wanted: &Wanted,
    ) -> Vec<(usize, Message)> {
        let mut messages = Vec::new();
        for feed in &self.feeds {
            loop {
                match feed.messages(rows, wanted).await {
                    Ok(some) => break messages.extend(some),
                    Err(error) => {
                        tracing::warn!(
                            error.message = %error,
                            "could not turn new transfers into events for clients; retrying in {RETRY_DELAY:?}"
                        );
                        tokio::time::sleep(RETRY_DELAY).await;
                    }
                }
            }
        }
        messages
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().await
    }

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the topic with this name, and the feed that defines it.
    pub(super) fn topic(&self, name: &str) -> Option<(Topic, &Arc<dyn Feed>)> {
        self.feeds.iter().find_map(|feed| Some((feed.topic(name)?, feed)))
    }

    /// Begins a subscription. Without `after`, the subscription is up to date at once. With `after`, it must first
    /// catch up from this position. `acknowledge` is called before the first event can arrive.
    pub(super) async fn subscribe(
        &self,
        topic: &Topic,
        mut subscriber: NewSubscriber,
        after: Option<&BookPosition>,
        acknowledge: impl FnOnce(&Outbox),
    ) -> Result<()> {
        if let TopicTransfers::OfAccounts(accounts) = &topic.transfers
            && accounts
                .iter()
                .filter_map(|id| book_of_account(*id))
                .any(|id| id > self.tail.books())
        {
            // Another process has created a book that this process does not follow.
            return Err(Error::Overloaded);
        }
        let mut index = self.following_index().await?;
        let position = index.position.clone().ok_or(Error::Overloaded)?;
        let Index { topics, wanted, .. } = &mut *index;
        let state = topics.entry(Arc::clone(&topic.name)).or_insert_with(|| {
            wanted.insert(Arc::clone(&topic.name));
            TopicState::new(position.clone())
        });
        acknowledge(&subscriber.outbox);
        subscriber.outbox.wake();
        match after {
            None => state.add_live(subscriber.at(position)),
            Some(_) => state.behind.push((Arc::clone(&subscriber.outbox), subscriber.id)),
        }
        Ok(())
    }

    /// Returns the position up to which the hub has delivered everything, or `None` if the hub is not running.
    pub(super) async fn position(&self) -> Option<BookPosition> {
        self.index.lock().await.position.clone()
    }

    /// Locks the index of the running hub. If the hub is not running, starts the hub and waits until it is running.
    pub(super) async fn following_index(&self) -> Result<MutexGuard<'_, Index>> {
        let index = self.index.lock().await;
        if index.position.is_some() {
            return Ok(index);
        }
        drop(index);
        // The guard is dropped only after the index is locked. So the caller can add its subscription before the hub
        // checks whether it is still needed.
        let _starting = Starting::begin(self);
        let mut is_following = self.is_following.subscribe();
        let following = async { is_following.wait_for(|is| *is).await.is_ok() };
        let started = tokio::time::timeout(START_TIMEOUT, following).await;
        let index = self.index.lock().await;
        match started {
            Ok(true) if index.position.is_some() => Ok(index),
            _ => Err(Error::Overloaded),
        }
    }

    /// Ends a subscription.
    pub(super) async fn unsubscribe(&self, topic: &str, outbox: &Arc<Outbox>, id: SubscriptionId) {
        let mut index = self.index.lock().await;
        if let Some(state) = index.topics.get_mut(topic) {
            state.remove(outbox, id);
            if !state.has_subscribers() {
                index.topics.remove(topic);
                index.wanted.remove(topic);
            }
        }
        outbox.forget(id);
        self.note_need(&index);
    }
}

/// A subscriber whose position is not set yet. [`Self::at`] sets the position.
#[derive(Debug, Clone)]
pub(super) struct NewSubscriber {
    pub id: SubscriptionId,
    pub outbox: Arc<Outbox>,
    pub format: super::delivery::FrameFormat,
    pub viewer: super::message::Viewer,
    pub player: Option<Arc<str>>,
}

impl NewSubscriber {
    pub(super) fn at(&mut self, position: BookPosition) -> Subscriber {
        let Self { id, outbox, format, viewer, player } = self.clone();
        Subscriber { id, outbox, format, viewer, player, position }
    }
}

/// Creates the delivery of an event. The position of the delivery combines the event's position in the event table with
/// the ledger position that `from` contains.
pub(super) fn delivery_of(event: &BookEvent, from: &BookPosition) -> Option<Delivery> {
    let position = BookPosition { event: event.position, ..from.clone() };
    let message = event::message_of(event)?;
    Some(Delivery::new(position, DeliverySource::Events, message))
}

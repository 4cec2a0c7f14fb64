//! Replays the events that a subscription has missed, from memory or from the database.
//!
//! Events that were read from the database are added to the recent events of their topic in memory. So if many clients
//! reconnect after a restart, the database is read once for each topic, not once for each client.

use std::sync::Arc;

use super::delivery::{Delivery, DeliverySource};
use super::feed::{Topic, TopicTransfers, Wanted};
use super::hub::{Hub, NewSubscriber, delivery_of};
use super::outbox::Pushed;
use super::position::BookPosition;
use super::topic::{RECENT_BYTES_MAX, TopicState};
use crate::error::{Error, Result};
use crate::ledger::account::AccountId;
use crate::ledger::book::{FIRST_BOOK, book_of_account};
use crate::ledger::tail::{SealedRow, events_of_topic, rows_of_accounts, sealed_rows};

/// Maximum number of rows that a single query reads from a book of the ledger, or from the event table.
const PAGE_MAX: i64 = 250;

/// Result of a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// The subscription is up to date, and receives further events as they happen.
    Live,
    /// The outbox of the client is full. The replay must continue from this position once the outbox is empty.
    Behind(BookPosition),
}

/// The events of a topic between two positions, oldest first.
struct Page {
    deliveries: Vec<Arc<Delivery>>,
    /// Position up to which the page contains all events.
    until: BookPosition,
}

impl Hub {
    /// Sends missed events to a subscription, until it is up to date or the outbox of its client is full.
    pub(super) async fn replay(
        &self,
        topic: &Topic,
        mut subscriber: NewSubscriber,
        mut position: BookPosition,
    ) -> Result<Progress> {
        loop {
            let (since, reading, events_max) = {
                let mut index = self.lock().await;
                let state = index.topics.get_mut(&topic.name).ok_or(Error::Overloaded)?;
                if position.covers(state.since()) {
                    self.metrics().wallet_ws_replays_total.with(["memory"]).increment(1);
                    return Ok(catch_up(state, &mut subscriber, &position));
                }
                (state.since().clone(), Arc::clone(&state.reading), events_max(state))
            };
            let reading = reading.lock().await;
            {
                let index = self.lock().await;
                let state = index.topics.get(&topic.name).ok_or(Error::Overloaded)?;
                if *state.since() != since {
                    continue;
                }
            }
            self.metrics().wallet_ws_replays_total.with(["database"]).increment(1);
            let page = self.read_pages(topic, &position, &since, events_max).await?;
            if page.until.covers(&since) {
                let mut index = self.lock().await;
                let state = index.topics.get_mut(&topic.name).ok_or(Error::Overloaded)?;
                if state.extend_back(position.clone(), &since, &page.deliveries) {
                    continue;
                }
            }
            drop(reading);
            // The page is too old to be added to the recent events, so it is sent only to this subscriber.
            let mut behind = subscriber.at(position.clone());
            for delivery in &page.deliveries {
                if behind.push(delivery, false) != Pushed::Queued {
                    behind.outbox.wake();
                    return Ok(Progress::Behind(behind.position));
                }
            }
            behind.outbox.wake();
            position = position.join(&page.until);
        }
    }

    /// Reads the events of a topic after `after`, up to `until`. Stops early once the events read so far have more than
    /// [`RECENT_BYTES_MAX`] bytes.
    async fn read_pages(
        &self,
        topic: &Topic,
        after: &BookPosition,
        until: &BookPosition,
        events_max: i64,
    ) -> Result<Page> {
        let mut all = Page { deliveries: Vec::new(), until: after.clone() };
        let mut bytes = 0;
        while !all.until.covers(until) && bytes <= RECENT_BYTES_MAX {
            let page = self.read(topic, &all.until, until, events_max).await?;
            bytes += page.deliveries.iter().map(|delivery| delivery.bytes()).sum::<usize>();
            all.deliveries.extend(page.deliveries);
            all.until = page.until;
        }
        Ok(all)
    }

    /// Returns the accounts of a topic that was declared with [`TopicTransfers::OfFoundAccounts`], and an empty list
    /// for other topics. The feed looks up the accounts at each call, so that no account of a delivered transfer is
    /// missing.
    async fn found_accounts(&self, topic: &Topic) -> Result<Vec<AccountId>> {
        match (&topic.transfers, self.topic(&topic.name)) {
            (TopicTransfers::OfFoundAccounts, Some((_, feed))) => feed.accounts(topic).await,
            _ => Ok(Vec::new()),
        }
    }

    /// Reads the events of a topic after the position `after`: at most [`PAGE_MAX`] rows from each book of the ledger,
    /// and at most `events_max` rows from the event table.
    async fn read(
        &self,
        topic: &Topic,
        after: &BookPosition,
        until: &BookPosition,
        events_max: i64,
    ) -> Result<Page> {
        let found = self.found_accounts(topic).await?;
        let accounts = match &topic.transfers {
            TopicTransfers::OfAccounts(accounts) => accounts,
            TopicTransfers::None | TopicTransfers::Any | TopicTransfers::OfFoundAccounts => &found,
        };
        let mut reached = after.clone();
        let mut deliveries = Vec::new();
        for book in FIRST_BOOK..=self.tail().books() {
            let bounds = (after.seq(book), until.seq(book));
            let rows = self.read_rows(topic, book, accounts, bounds).await?;
            reached = self.deliveries_of(topic, rows, reached, until, book, &mut deliveries).await;
        }
        let bounds = (after.event, until.event);
        let events = {
            let mut db = Box::pin(self.tail().pool().acquire()).await?;
            events_of_topic(&mut db, &topic.name, bounds, events_max).await?
        };
        // The events are placed after all transfers of the page. Only the order within each source matters to clients.
        deliveries
            .extend(events.iter().filter_map(|event| delivery_of(event, &reached)).map(Arc::new));
        reached.event = match events.last() {
            Some(last) if is_full(&events, events_max) => last.position,
            _ => after.event.max(until.event),
        };
        Ok(Page { deliveries, until: reached })
    }

    /// Reads the transfers of a topic from a book of the ledger: at most [`PAGE_MAX`] rows.
    async fn read_rows(
        &self,
        topic: &Topic,
        book: i32,
        accounts: &[AccountId],
        (after, last): (i64, i64),
    ) -> Result<Vec<SealedRow>> {
        let own = accounts.iter().copied().filter(|id| book_of_account(*id) == Some(book));
        let own: Vec<AccountId> = own.collect();
        let is_any = matches!(topic.transfers, TopicTransfers::Any);
        if last <= after || (own.is_empty() && !is_any) {
            return Ok(Vec::new());
        }
        let mut db = Box::pin(self.tail().pool().acquire()).await?;
        Ok(if is_any {
            sealed_rows(&mut db, book, after, last, PAGE_MAX).await?
        } else {
            rows_of_accounts(&mut db, book, &own, after, last, PAGE_MAX).await?
        })
    }

    /// Converts rows of a book to deliveries, and adds them to `deliveries`. `reached` is the position before the rows.
    /// Returns the position after the rows. If there are fewer than [`PAGE_MAX`] rows, no more transfers of the topic
    /// follow up to `until`, so the returned position in the book is that of `until`.
    async fn deliveries_of(
        &self,
        topic: &Topic,
        rows: Vec<SealedRow>,
        reached: BookPosition,
        until: &BookPosition,
        book: i32,
        deliveries: &mut Vec<Arc<Delivery>>,
    ) -> BookPosition {
        let full = is_full(&rows, PAGE_MAX);
        // A full page may have only some rows of its last transfer. They are removed here, and come with the next page.
        let rows = if full { without_last_transfer(rows) } else { rows };
        let wanted = Wanted::from([Arc::clone(&topic.name)]);
        let mut messages = self.translate(&rows, &wanted).await;
        messages.sort_by_key(|(row, _)| *row);
        deliveries.extend(messages.into_iter().filter_map(|(row, message)| {
            let SealedRow { row, batch } = rows.get(row)?;
            let position = reached.clone().after_transfer(row.seq, batch);
            Some(Arc::new(Delivery::new(position, DeliverySource::Book(row.seq), message)))
        }));
        match rows.last() {
            Some(last) if full => reached.after_transfer(last.row.seq, &last.batch),
            _ => reached.join_book(until, book),
        }
    }
}

fn is_full<T>(items: &[T], max: i64) -> bool {
    i64::try_from(items.len()).is_ok_and(|count| count >= max)
}

/// Returns the maximum number of events that are read at once, which is lower for large events. The outbox of a slow
/// client takes only a few large events at a time, and the rest would have to be read again.
fn events_max(state: &TopicState) -> i64 {
    let fitting = state.events_in_memory().and_then(|count| i64::try_from(count).ok());
    fitting.unwrap_or(PAGE_MAX).clamp(1, PAGE_MAX)
}

/// Removes the rows of the last transfer, because more rows of this transfer may follow. Keeps them if it is the only
/// transfer.
fn without_last_transfer(mut rows: Vec<SealedRow>) -> Vec<SealedRow> {
    let Some(last) = rows.last().map(|last| last.row.transfer_id()) else { return rows };
    if let Some(before) = rows.iter().rposition(|row| row.row.transfer_id() != last) {
        rows.truncate(before + 1);
    }
    rows
}

/// Pushes the recent events after a position to a subscriber. If all of them fit into the outbox, the subscription is
/// up to date.
fn catch_up(
    state: &mut TopicState,
    subscriber: &mut NewSubscriber,
    position: &BookPosition,
) -> Progress {
    let mut behind = subscriber.at(position.clone());
    for delivery in state.after(position) {
        if behind.push(delivery, false) != Pushed::Queued {
            behind.outbox.wake();
            return Progress::Behind(behind.position);
        }
    }
    behind.outbox.wake();
    state.caught_up(&behind.outbox, behind.id);
    state.add_live(behind);
    Progress::Live
}

//! Fan-out: each transfer and each published event becomes deliveries, exactly once and in order, even if a process is
//! killed. Two durable readers do it, one for the transfers of the book and one for its events.

mod events;
mod transfers;

use std::collections::BTreeMap;
use std::marker::PhantomData;

use sqlx::PgConnection;

use super::Webhooks;
use super::delivery::sql::{NewDeliveries, NewDelivery, insert_deliveries};
use super::queue::{DeliveryJob, Subject};
use super::sql::{self, Subscription};
use crate::error::Result;
use crate::ids::WebhookId;
use crate::ledger::tail::{Events, NotifyChannel, Position, Segment, Source, Tail, Transfers};
use crate::tasks::Tasks;

/// Starts both readers, which run until the tasks stop.
pub fn start(tail: &Tail, webhooks: Webhooks, tasks: &Tasks) {
    let fan_out = transfers::TransferFanOut { webhooks };
    tail.follow::<Subscribed<Transfers>>(transfers::READER, fan_out, tasks);
    tail.follow::<Subscribed<Events>>(events::READER, events::EventFanOut, tasks);
}

/// The items of a source; all of them are skipped while there is neither a webhook nor an alert.
struct Subscribed<S>(PhantomData<S>);

impl<S: Source> Source for Subscribed<S> {
    type Item = S::Item;

    const CHANNEL: NotifyChannel = S::CHANNEL;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<S::Item>> {
        // The end is read before the check, so that a webhook that is created in between receives the items after that
        // end.
        let until = S::end(db, book).await?;
        if sql::has_webhooks_or_alerts(db).await? {
            return S::read(db, book, after, max).await;
        }
        // The end of events moves with every transaction, even with the transaction that advances the cursor, so the
        // cursor of a reader that is caught up stays where it is.
        let is_caught_up = S::lag(db, book, after).await? == 0;
        let until = if is_caught_up { after } else { until };
        Ok(Segment { after, until, items: Vec::new(), is_full: false })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        S::end(db, book).await
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        S::lag(db, book, position).await
    }

    fn position_of(item: &S::Item) -> Position {
        S::position_of(item)
    }
}

/// Deliveries of a segment, and the jobs that send them.
#[derive(Default)]
struct Deliveries<'a> {
    new: NewDeliveries,
    owners: BTreeMap<(WebhookId, Subject), &'a str>,
}

impl<'a> Deliveries<'a> {
    fn push(&mut self, subscription: &'a Subscription, delivery: &NewDelivery<'_>) {
        self.new.push(subscription.id, delivery);
        self.owners.insert((subscription.id, delivery.subject), &subscription.owner);
    }

    async fn insert(self, db: &mut PgConnection) -> Result<()> {
        insert_deliveries(db, &self.new).await?;
        for ((webhook, subject), owner) in self.owners {
            DeliveryJob { webhook, subject, owner }.enqueue(db).await?;
        }
        Ok(())
    }
}

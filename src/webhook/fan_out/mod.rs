//! Fan-out: turns each transfer and each published event into deliveries to webhooks, exactly once and in order, even
//! if a process is killed. A task for each part (book) of the ledger handles its transfers, and another task handles
//! the published events. Each task stores its position, so that it can continue after a restart.

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

/// Starts the tasks that turn transfers and published events into deliveries until the program stops.
pub fn start(tail: &Tail, webhooks: &Webhooks, tasks: &Tasks) {
    let fan_out = |_| transfers::TransferFanOut { webhooks: webhooks.clone() };
    tail.follow::<Subscribed<Transfers>, _>(transfers::READER, fan_out, tasks);
    tail.follow::<Subscribed<Events>, _>(events::READER, |_| events::EventFanOut, tasks);
}

/// A source of transfers or published events. While there are no webhooks and no alerts, it skips its items without
/// reading them.
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
        // The end must be read before the check. If a webhook is created between the two, the items after the end are
        // not skipped, so the webhook receives them.
        let until = S::end(db, book).await?;
        if sql::has_webhooks_or_alerts(db).await? {
            return S::read(db, book, after, max).await;
        }
        // The end of the published events moves with every transaction, even with the transaction that stores the
        // reader's position. So a reader that has read everything keeps its position; otherwise it would store a new
        // position again and again.
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

/// Deliveries for a batch of transfers or published events, and the jobs that must be enqueued to send them.
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

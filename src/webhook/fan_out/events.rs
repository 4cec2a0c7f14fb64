//! Fan-out of published events to webhooks. Published events, such as the addition of a game, move no money.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Deliveries, Subscribed};
use crate::error::Result;
use crate::ids::UserId;
use crate::ledger::tail::{BookEvent, Events, ReaderOptions, Segment, SegmentHandler};
use crate::realtime::{Message, message_of};
use crate::webhook::delivery::sql::NewDelivery;
use crate::webhook::event::{message_body, published_name};
use crate::webhook::queue::Subject;
use crate::webhook::sql::{self, Subscription};

pub(super) const READER: ReaderOptions = ReaderOptions {
    name: "webhook_events",
    items_max: 500,
    pause: Duration::from_millis(20),
    pause_steps: 0,
};

pub(super) struct EventFanOut;

impl SegmentHandler<Subscribed<Events>> for EventFanOut {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<BookEvent>) -> Result<()> {
        let subscriptions = sql::subscriptions(db).await?;
        let mut deliveries = Deliveries::default();
        for event in &segment.items {
            let Some(message) = message_of(event) else { continue };
            let Some(name) = published_name(&message.kind) else { continue };
            let body = message_body(name, &message)?;
            let user = message.player.as_deref().and_then(|id| id.parse().ok()).map(UserId);
            let delivery = NewDelivery {
                subject: user.map_or(Subject::EVERYONE, Subject::of_user),
                seq: None,
                trace_id: event.trace_id,
                event: name,
                body: &body,
            };
            let receivers = subscriptions.iter().filter(|subscription| {
                subscription.from_xid <= event.position.seq
                    && subscription.wants(name)
                    && sees(subscription, &message)
            });
            for subscription in receivers {
                deliveries.push(subscription, &delivery);
            }
        }
        deliveries.insert(db).await
    }
}

/// Whether the owner of the webhook has the right to see the published event.
fn sees(subscription: &Subscription, message: &Message) -> bool {
    message.audience.includes(subscription.app_user, subscription.sees_all)
}

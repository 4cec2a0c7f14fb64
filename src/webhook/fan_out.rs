//! Fan-out: each transfer of the book becomes deliveries, exactly once and in order, even if a process is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::alert::Alert;
use super::event::{self, ALERT_CROSSED, CrossedAlert};
use super::queue::DeliveryJob;
use super::{BOOK, Webhooks, alert, sql};
use crate::auth::Access;
use crate::error::{Error, Result};
use crate::ids::{UserId, WalletId};
use crate::ledger::currency::Currency;
use crate::ledger::read::BookRow;
use crate::ledger::tail::{
    self, NotifyChannel, Position, ReaderOptions, Segment, SegmentHandler, Source, StartPosition,
    Tail, Transfers,
};
use crate::ledger::transfer::TransferKind;
use crate::tasks::Tasks;
use crate::wallet::WalletRecord;

const READER: ReaderOptions = ReaderOptions {
    name: "webhooks",
    start: StartPosition::Now,
    items_max: 500,
    pause: Duration::from_millis(20),
};

/// Starts the fan-out, which runs until the tasks stop.
pub fn start(tail: &Tail, webhooks: Webhooks, tasks: &Tasks) {
    tail.follow::<SubscribedTransfers>(READER, FanOut { webhooks }, tasks);
}

/// The transfers of the book; none of them while there is neither a webhook nor an alert.
struct SubscribedTransfers;

impl Source for SubscribedTransfers {
    type Item = BookRow;

    const CHANNEL: NotifyChannel = NotifyChannel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<BookRow>> {
        // The end is read first: a webhook that is created in between gets the transfers after that end.
        let until = Transfers::end(db, book).await?;
        if sql::has_webhooks_or_alerts(db).await? {
            return Transfers::read(db, book, after, max).await;
        }
        Ok(Segment { after, until, items: Vec::new() })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        Transfers::end(db, book).await
    }

    async fn lag(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Transfers::lag(db, book, position).await
    }

    fn position_of(row: &BookRow) -> Position {
        Transfers::position_of(row)
    }
}

struct FanOut {
    webhooks: Webhooks,
}

/// An event of a wallet, with the body that its subscribers receive.
struct WalletEvent<'a> {
    name: &'static str,
    row: &'a BookRow,
    wallet: WalletId,
    /// The user that the wallet belongs to.
    user: Option<UserId>,
    body: String,
}

impl SegmentHandler<SubscribedTransfers> for FanOut {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<BookRow>) -> Result<()> {
        let subscriptions = sql::subscriptions(db).await?;
        let events = self.wallet_events(db, segment).await?;
        let mut deliveries = sql::NewDeliveries::default();
        let mut recipients = BTreeMap::new();
        for event in &events {
            for subscription in subscriptions.iter().filter(|one| self.matches(one, event)) {
                let WalletEvent { name, row, wallet, body, .. } = event;
                deliveries.push(subscription.id, *wallet, row.seq, name, body);
                recipients.insert((subscription.id, *wallet), subscription.owner.as_str());
            }
        }
        sql::insert_deliveries(db, &deliveries).await?;
        for ((webhook, wallet), owner) in recipients {
            DeliveryJob { webhook, wallet, owner }.enqueue(db).await?;
        }
        Ok(())
    }
}

impl FanOut {
    /// Whether the webhook receives the event: it is older than the transfer, its owner sees the wallet, and it
    /// subscribes to events of this name.
    fn matches(&self, subscription: &sql::Subscription, event: &WalletEvent<'_>) -> bool {
        subscription.from_seq < event.row.seq
            && self.can_see(subscription, event.user)
            && subscription.events.iter().any(|name| name == "*" || name == event.name)
    }

    /// Whether the owner of the webhook may see wallets of this user.
    fn can_see(&self, subscription: &sql::Subscription, user: Option<UserId>) -> bool {
        match user {
            _ if subscription.sees_all => true,
            None => self.webhooks.policy.access == Access::Open,
            Some(_) => subscription.app_user == user,
        }
    }

    /// Every event of these transfers, one for each wallet involved, and one for each alert that is crossed.
    async fn wallet_events<'a>(
        &self,
        db: &mut PgConnection,
        segment: &'a Segment<BookRow>,
    ) -> Result<Vec<WalletEvent<'a>>> {
        let wallets: BTreeSet<WalletId> =
            segment.items.iter().flat_map(event::wallets_of).collect();
        let records = self.webhooks.wallets.find_records(wallets.iter().copied()).await?;
        let wallets: Vec<WalletId> = wallets.into_iter().collect();
        let alerts = alert::sql::list_alerts(db, &wallets).await?;
        let mut events = Vec::new();
        for row in &segment.items {
            let Some(kind) = TransferKind::from_code(row.kind) else { continue };
            for wallet in event::wallets_of(row) {
                // An account that is not a wallet has no events.
                let Some(WalletRecord { currency, user, .. }) =
                    records.get(&wallet).map(Arc::as_ref)
                else {
                    continue;
                };
                let (currency, user) = (*currency, *user);
                let name = event::event_name(kind);
                let body = event::event_body(name, row, wallet, currency, None)?;
                events.push(WalletEvent { name, row, wallet, user, body });
                for alert in
                    alerts.iter().filter(|alert| alert.wallet == wallet && alert.is_crossed_by(row))
                {
                    let body = alert_body(alert, row, currency)?;
                    let raw = RawValue::from_string(body.clone());
                    let raw = raw.map_err(|cause| Error::Internal(cause.into()))?;
                    tail::append_event(db, BOOK, "alert", &raw, row.trace_id).await?;
                    events.push(WalletEvent { name: ALERT_CROSSED, row, wallet, user, body });
                }
            }
        }
        Ok(events)
    }
}

fn alert_body(alert: &Alert, row: &BookRow, currency: Currency) -> Result<String> {
    let crossed = CrossedAlert {
        id: alert.id.to_string(),
        direction: alert.direction.name(),
        line: event::number(alert.threshold, currency)?,
    };
    event::event_body(ALERT_CROSSED, row, alert.wallet, currency, Some(crossed))
}

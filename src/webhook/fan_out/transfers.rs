//! Fan-out of transfers to webhooks: an event for each wallet that a transfer involves, and an event for each balance
//! alert whose threshold the transfer crosses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::{Deliveries, Subscribed};
use crate::auth::Access;
use crate::error::{Error, Result};
use crate::ids::{UserId, WalletId};
use crate::ledger::currency::Currency;
use crate::ledger::read::BookRow;
use crate::ledger::tail::{self, ReaderOptions, Segment, SegmentHandler, Transfers};
use crate::ledger::transfer::TransferKind;
use crate::wallet::WalletRecord;
use crate::wallet::transfer::wallets_of;
use crate::webhook::Webhooks;
use crate::webhook::alert::{self, Alert};
use crate::webhook::delivery::sql::NewDelivery;
use crate::webhook::event::{self, ALERT_CROSSED, CrossedAlert};
use crate::webhook::queue::Subject;
use crate::webhook::sql::{self, Subscription};

pub(super) const READER: ReaderOptions = ReaderOptions {
    name: "webhooks",
    items_max: 500,
    pause: Duration::from_millis(20),
    pause_steps: 0,
};

pub(super) struct TransferFanOut {
    pub(super) webhooks: Webhooks,
}

/// An event about a wallet, with the JSON body that webhooks receive.
struct WalletEvent<'a> {
    name: &'static str,
    row: &'a BookRow,
    wallet: WalletId,
    /// The user that the wallet belongs to.
    user: Option<UserId>,
    body: String,
}

impl SegmentHandler<Subscribed<Transfers>> for TransferFanOut {
    async fn apply(&mut self, db: &mut PgConnection, segment: &Segment<BookRow>) -> Result<()> {
        let subscriptions = sql::subscriptions(db).await?;
        let events = self.wallet_events(db, segment).await?;
        let mut deliveries = Deliveries::default();
        for event in &events {
            let delivery = NewDelivery {
                subject: Subject::of_wallet(event.wallet),
                seq: Some(event.row.seq),
                trace_id: event.row.trace_id,
                event: event.name,
                body: &event.body,
            };
            for subscription in subscriptions.iter().filter(|one| self.matches(one, event)) {
                deliveries.push(subscription, &delivery);
            }
        }
        deliveries.insert(db).await
    }
}

impl TransferFanOut {
    /// Whether the webhook receives the event: the webhook is older than the transfer, its owner may see the wallet,
    /// and it subscribes to events of this name.
    fn matches(&self, subscription: &Subscription, event: &WalletEvent<'_>) -> bool {
        subscription.is_before(event.row.seq)
            && self.can_see(subscription, event.user)
            && subscription.wants(event.name)
    }

    /// Whether the owner of the webhook has the right to see the wallets of this user.
    fn can_see(&self, subscription: &Subscription, user: Option<UserId>) -> bool {
        match user {
            _ if subscription.sees_all => true,
            None => self.webhooks.policy.access == Access::Open,
            Some(_) => subscription.app_user == user,
        }
    }

    /// Returns an event for each wallet that these transfers involve, and an event for each alert whose threshold they
    /// cross. Also adds each crossed alert to the published events.
    async fn wallet_events<'a>(
        &self,
        db: &mut PgConnection,
        segment: &'a Segment<BookRow>,
    ) -> Result<Vec<WalletEvent<'a>>> {
        let wallets: BTreeSet<WalletId> = segment.items.iter().flat_map(wallets_of).collect();
        let records = self.webhooks.wallets.find_records(wallets.iter().copied()).await?;
        let wallets: Vec<WalletId> = wallets.into_iter().collect();
        let alerts = alert::sql::list_alerts(db, &wallets).await?;
        let mut events = Vec::new();
        for row in &segment.items {
            let Some(kind) = TransferKind::from_code(row.kind) else { continue };
            for wallet in wallets_of(row) {
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
                    tail::append_event(db, "alert", &raw, row.trace_id).await?;
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

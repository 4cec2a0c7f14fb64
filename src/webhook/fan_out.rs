//! From the book to what is to be delivered: each transfer once, in order, whatever is killed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::event::{self, Crossed};
use super::{BOOK, Deliver, Webhooks, sql};
use crate::auth::Access;
use crate::error::Result;
use crate::ids::{UserId, WalletId, WebhookId};
use crate::jobs;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read::Line;
use crate::ledger::tail::{
    self, Channel, Effect, Position, Reader, Segment, Source, Start, Tail, Transfers,
};
use crate::ledger::transfer::TransferKind;
use crate::tasks::Tasks;
use crate::wallet::WalletRecord;

const READER: Reader = Reader {
    name: "webhooks",
    start: Start::Now,
    items_max: 500,
    pause: Duration::from_millis(20),
};

/// Queues of one webhook: at most so many of its deliveries are on their way at once.
const QUEUES: i64 = 2;

/// Feeds until the tasks stop.
pub fn start(tail: &Tail, webhooks: Webhooks, tasks: &Tasks) {
    tail.follow::<Watched>(READER, FanOut { webhooks }, tasks);
}

/// The transfers, but nothing of them while nobody wants to be told.
struct Watched;

impl Source for Watched {
    type Item = Line;

    const CHANNEL: Channel = Channel::Book;

    async fn read(
        db: &mut PgConnection,
        book: i32,
        after: Position,
        max: i64,
    ) -> sqlx::Result<Segment<Line>> {
        // First the end, then who is there: whoever comes in between is told of what is behind the end.
        let until = Transfers::end(db, book).await?;
        if sql::has_receivers(db).await? {
            return Transfers::read(db, book, after, max).await;
        }
        Ok(Segment { after, until, items: Vec::new() })
    }

    async fn end(db: &mut PgConnection, book: i32) -> sqlx::Result<Position> {
        Transfers::end(db, book).await
    }

    async fn behind(db: &mut PgConnection, book: i32, position: Position) -> sqlx::Result<i64> {
        Transfers::behind(db, book, position).await
    }

    fn position_of(line: &Line) -> Position {
        Transfers::position_of(line)
    }
}

struct FanOut {
    webhooks: Webhooks,
}

/// Something to be told about a wallet.
struct Told<'a> {
    event: &'static str,
    line: &'a Line,
    wallet: WalletId,
    /// Whom the wallet belongs to.
    user: Option<UserId>,
    body: String,
}

impl Effect<Watched> for FanOut {
    async fn apply(&mut self, db: &mut PgConnection, stretch: &Segment<Line>) -> Result<()> {
        let webhooks = sql::subscriptions(db).await?;
        let told = self.told(db, stretch).await?;
        let mut deliveries = sql::Deliveries::default();
        let mut lanes = BTreeSet::new();
        for told in &told {
            let wants = |hook: &&sql::Subscription| {
                hook.from_seq < told.line.seq
                    && self.hears(hook, told.user)
                    && hook.events.iter().any(|event| event == "*" || event == told.event)
            };
            for hook in webhooks.iter().filter(wants) {
                deliveries.push(hook.id, told.wallet, told.line.seq, told.event, &told.body);
                lanes.insert((hook.id, told.wallet));
            }
        }
        sql::deliver(db, &deliveries).await?;
        for (webhook, wallet) in lanes {
            enqueue(db, webhook, wallet).await?;
        }
        Ok(())
    }
}

/// Promises that what waits for a wallet at a webhook is delivered.
pub(super) async fn enqueue(
    db: &mut PgConnection,
    webhook: WebhookId,
    wallet: WalletId,
) -> Result<()> {
    let payload = json!({ "webhook": webhook, "wallet": wallet });
    let queue = format!("webhook-{webhook}-{}", wallet.0 % QUEUES);
    let key = format!("webhook-{webhook}-{wallet}");
    jobs::enqueue(db, Deliver::QUEUE, &payload, &queue, &key, Deliver::ATTEMPTS_MAX).await
}

impl FanOut {
    /// Whether its owner may look at a wallet that belongs to this user.
    fn hears(&self, hook: &sql::Subscription, user: Option<UserId>) -> bool {
        match user {
            _ if hook.sees_all => true,
            None => self.webhooks.policy.access == Access::Open,
            Some(_) => hook.app_user == user,
        }
    }

    /// Everything that these transfers give to tell.
    async fn told<'a>(
        &self,
        db: &mut PgConnection,
        stretch: &'a Segment<Line>,
    ) -> Result<Vec<Told<'a>>> {
        let concerned: BTreeSet<WalletId> =
            stretch.items.iter().flat_map(event::wallets_of).collect();
        let facts = self.webhooks.wallets.find_records(concerned.iter().copied()).await?;
        let concerned: Vec<WalletId> = concerned.into_iter().collect();
        let alerts = sql::alerts_of(db, &concerned).await?;
        let mut told = Vec::new();
        for line in &stretch.items {
            let Some(kind) = TransferKind::from_code(line.kind) else { continue };
            for wallet in event::wallets_of(line) {
                // An account that is no wallet is nobody's business.
                let Some(WalletRecord { currency, user, .. }) = facts.get(&wallet).map(Arc::as_ref)
                else {
                    continue;
                };
                let (currency, user) = (*currency, *user);
                let event = event::name_of(kind);
                let body = event::body(event, line, wallet, currency, None)?;
                told.push(Told { event, line, wallet, user, body });
                for alert in alerts
                    .iter()
                    .filter(|alert| alert.wallet == wallet && alert.is_crossed_by(line))
                {
                    let body = crossed(alert, line, currency)?;
                    let raw = RawValue::from_string(body.clone());
                    let raw = raw.map_err(|cause| crate::error::Error::Internal(cause.into()))?;
                    tail::append(db, BOOK, "alert", &raw, line.trace_id).await?;
                    told.push(Told { event: "alert.crossed", line, wallet, user, body });
                }
            }
        }
        Ok(told)
    }
}

fn crossed(alert: &sql::AlertRow, line: &Line, currency: Currency) -> Result<String> {
    let crossed = Crossed {
        id: alert.id.to_string(),
        direction: alert.direction.clone(),
        line: event::number(Minor(alert.line), currency)?,
    };
    event::body("alert.crossed", line, alert.wallet, currency, Some(crossed))
}

impl sql::AlertRow {
    /// Whether what can be spent was on one side of the line before this transfer, and is on the other after it.
    fn is_crossed_by(&self, line: &Line) -> bool {
        let (before, after) = match self.wallet {
            _ if line.amount == 0 || line.seq <= self.from_seq => return false,
            WalletId(id) if id == line.credit => {
                (line.credit_balance - line.amount, line.credit_balance)
            }
            WalletId(id) if id == line.debit => {
                (line.debit_balance + line.amount, line.debit_balance)
            }
            _ => return false,
        };
        match self.direction.as_str() {
            "below" => before >= self.line && after < self.line,
            _ => before <= self.line && after > self.line,
        }
    }
}

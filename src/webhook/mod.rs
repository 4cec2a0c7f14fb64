//! Webhooks: signed POST requests that inform a receiver about events. They are sent in order, and retried for a day.
//!
//! Background tasks read the committed transfers and published events, and insert deliveries ([`fan_out`]). Jobs send
//! the deliveries ([`deliver`]).
//!
//! | effect of a receiver that is down or slow | how the effect is limited |
//! |---|---|
//! | delays other webhooks of its owner | each webhook has only two queues ([`queue`]) |
//! | delays webhooks of other owners | each owner has a limited number of queues ([`queue`]) and of slots ([`slots`]) |
//! | occupies workers until its requests time out | its webhook is paused, twice as long each time ([`pause`]) |
//!
//! A webhook works only while its owner exists. For example, after the API key that owns a webhook is revoked,
//! deliveries to the webhook are neither recorded nor sent.

mod alert;
mod deliver;
mod delivery;
mod event;
pub mod fan_out;
pub mod http;
mod pause;
mod queue;
pub mod retention;
pub(crate) mod signature;
mod slots;
mod sql;
mod target;

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection as _;
use time::OffsetDateTime;

use crate::auth::{Caller, Policy, Scope};
use crate::db::Database;
use crate::error::{Error, Result};
use crate::idempotency_key::IdempotencyKey;
use crate::ids::{DeliveryId, WebhookId};
use crate::settings;
use crate::telemetry::Metrics;
use crate::wallet::Wallets;

use self::queue::DeliveryJob;

pub use self::alert::{Alert, AlertDirection, BalanceAlert};
pub use self::deliver::DeliverWebhook;
pub use self::delivery::{DeliveryState, WebhookDelivery};
pub use self::event::EVENTS;

/// Maximum number of deliveries that a replay sends again.
const REPLAY_MAX: i64 = 10_000;

/// Maximum number of webhooks per caller with `wallet:read`. The number is limited because each transfer is matched
/// against every webhook.
const WEBHOOKS_MAX: usize = 100;

/// Maximum number of webhooks per caller without `wallet:read`.
const WEBHOOKS_OF_USER_MAX: usize = 10;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookArgs {
    /// Allow webhooks to private and loopback addresses, for development or for receivers in the same network.
    #[arg(long, env = "REVWALLET_WEBHOOK_ALLOW_PRIVATE", global = true)]
    pub webhook_allow_private: bool,
    /// Time for which finished deliveries stay in the log.
    #[arg(long, env = "REVWALLET_WEBHOOK_LOG_LIFETIME", global = true, default_value = "30d", value_parser = settings::whole_seconds)]
    pub webhook_log_lifetime: Duration,
}

/// Operations on webhooks. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<WebhooksParts>);

impl std::ops::Deref for Webhooks {
    type Target = WebhooksParts;

    fn deref(&self) -> &WebhooksParts {
        &self.0
    }
}

pub struct WebhooksParts {
    db: Database,
    wallets: Wallets,
    policy: Policy,
    client: reqwest::Client,
    allow_private: bool,
    log_lifetime: Duration,
    metrics: Arc<Metrics>,
    slots: slots::Slots,
}

/// A webhook as its owner sees it.
#[derive(Debug)]
pub struct Webhook {
    pub id: WebhookId,
    pub url: String,
    pub events: Vec<String>,
    /// The signing secret. It is present only in the response to a request that creates or rotates it.
    pub secret: Option<String>,
    pub created_at: OffsetDateTime,
    pub replayed: bool,
}

impl From<sql::WebhookRow> for Webhook {
    fn from(row: sql::WebhookRow) -> Self {
        let sql::WebhookRow { id, url, events, created_at, .. } = row;
        Self { id, url, events, secret: None, created_at, replayed: false }
    }
}

impl Webhook {
    /// Returns the webhook for the response to the request that creates it, or to a repetition of that request. If the
    /// secret has been rotated since, the response omits it, because the first secret is no longer valid.
    fn created(row: sql::WebhookRow, replayed: bool) -> Self {
        let secret = row.rotated_at.is_none().then(|| row.secret.clone());
        Self { secret, replayed, ..Self::from(row) }
    }
}

/// Returns the only owner whose webhooks the caller may use: the caller itself. Returns `None` for an admin, because
/// admins may see and delete the webhooks of every owner.
fn required_owner(caller: &Caller) -> Option<&str> {
    (!caller.has_scope(Scope::Admin)).then(|| caller.name())
}

impl Webhooks {
    pub fn new(
        db: Database,
        wallets: Wallets,
        policy: Policy,
        args: &WebhookArgs,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        for outcome in ["delivered", "failed"] {
            metrics.wallet_webhook_deliveries_total.preregister([outcome]);
        }
        for reason in ["limit", "paused"] {
            metrics.wallet_webhook_deferrals_total.preregister([reason]);
        }
        for limit in ["webhooks", "alerts"] {
            metrics.wallet_webhook_refusals_total.preregister([limit]);
        }
        let allow_private = args.webhook_allow_private;
        let client = target::client(allow_private)?;
        let log_lifetime = args.webhook_log_lifetime;
        let slots = slots::Slots::default();
        Ok(Self(Arc::new(WebhooksParts {
            db,
            wallets,
            policy,
            client,
            allow_private,
            log_lifetime,
            metrics,
            slots,
        })))
    }

    /// Creates a webhook. Generates a random secret if the caller provides none.
    pub async fn create(
        &self,
        url: &str,
        events: &[String],
        secret: Option<&str>,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<Webhook> {
        caller.require_visibility()?;
        let mut db = self.db.acquire("webhook.create").await?;
        let content = [url, &events.join(" "), secret.unwrap_or_default()];
        let key = key.hashed(caller.name(), "webhook", &content);
        let mut tx = db.begin().await?;
        sql::lock_owner(&mut tx, caller.name()).await?;
        if let Some(key) = key
            && let Some(row) = sql::find_by_key(&mut tx, key.hash).await?
        {
            key.require_same_content(row.content_hash)?;
            return Ok(Webhook::created(row, true));
        }
        let limit =
            if caller.has_scope(Scope::WalletRead) { WEBHOOKS_MAX } else { WEBHOOKS_OF_USER_MAX };
        if sql::list(&mut tx, caller.name()).await?.len() >= limit {
            self.metrics.wallet_webhook_refusals_total.with(["webhooks"]).increment(1);
            let why = format!("limit of {limit} webhooks reached: delete one first");
            return Err(Error::field("/url", why));
        }
        let secret = secret.map_or_else(signature::new_secret, str::to_owned);
        let created = sql::create(&mut tx, caller.name(), url, events, &secret, key).await?;
        // The hash of the key includes the caller, and this transaction holds the caller's lock. So no concurrent
        // transaction can have inserted a webhook with this key.
        let row = created.ok_or(Error::Overloaded)?;
        tx.commit().await?;
        Ok(Webhook::created(row, false))
    }

    /// Returns the webhooks of the caller.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Webhook>> {
        caller.require_visibility()?;
        let mut db = self.db.snapshot("webhook.list").await?;
        let rows = sql::list(&mut db, caller.name()).await?;
        Ok(rows.into_iter().map(Webhook::from).collect())
    }

    /// Returns a webhook of the caller, or any webhook if the caller is an admin. Otherwise, the webhook of another
    /// caller is a 404 error.
    pub async fn get(&self, id: WebhookId, caller: &Caller) -> Result<Webhook> {
        caller.require_visibility()?;
        let mut db = self.db.snapshot("webhook.get").await?;
        let row = sql::find(&mut db, required_owner(caller), id).await?;
        row.map(Webhook::from).ok_or(Error::NotFound("webhook"))
    }

    /// Returns a page of the deliveries of a webhook, newest first. Only deliveries with an id below `before` are
    /// returned.
    pub async fn deliveries(
        &self,
        id: WebhookId,
        before: i64,
        limit: i64,
        caller: &Caller,
    ) -> Result<Vec<WebhookDelivery>> {
        self.get(id, caller).await?;
        let mut db = self.db.snapshot("webhook.deliveries").await?;
        delivery::sql::list_deliveries(&mut db, id, before, limit).await
    }

    /// Deletes a webhook and its delivery log.
    pub async fn delete(&self, id: WebhookId, caller: &Caller) -> Result<()> {
        caller.require_visibility()?;
        let mut db = self.db.acquire("webhook.delete").await?;
        let existed = sql::delete(&mut db, required_owner(caller), id).await?;
        if existed { Ok(()) } else { Err(Error::NotFound("webhook")) }
    }

    /// Replaces the secret of a webhook. For a day, deliveries are also signed with the previous secret. The response
    /// contains the new secret, so not even an admin may rotate the secret of another caller's webhook.
    pub async fn rotate(
        &self,
        id: WebhookId,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<Webhook> {
        caller.require_visibility()?;
        let key = key.hashed(caller.name(), "rotate", &[&id.to_string()]).map(|key| key.hash);
        let mut db = self.db.acquire("webhook.rotate").await?;
        let is_rotated =
            sql::rotate(&mut db, caller.name(), id, &signature::new_secret(), key).await?;
        let row = sql::find(&mut db, Some(caller.name()), id).await?;
        let row = row.ok_or(Error::NotFound("webhook"))?;
        let secret = Some(row.secret.clone());
        Ok(Webhook { secret, replayed: !is_rotated, ..Webhook::from(row) })
    }

    /// Sends a delivery again, or the deliveries since a moment. Returns how many deliveries are sent again.
    pub async fn replay(
        &self,
        id: WebhookId,
        delivery: Option<DeliveryId>,
        since: Option<OffsetDateTime>,
        caller: &Caller,
    ) -> Result<usize> {
        caller.require_visibility()?;
        let mut tx = self.db.pool().begin().await?;
        let webhook = sql::find(&mut tx, required_owner(caller), id).await?;
        let sql::WebhookRow { caller: owner, .. } = webhook.ok_or(Error::NotFound("webhook"))?;
        let subjects = delivery::sql::replay(&mut tx, id, delivery, since, REPLAY_MAX).await?;
        let count = subjects.len();
        if delivery.is_some() && count == 0 {
            return Err(Error::NotFound("delivery"));
        }
        for subject in subjects.into_iter().collect::<std::collections::BTreeSet<_>>() {
            DeliveryJob { webhook: id, subject, owner: &owner }.enqueue(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(count)
    }
}

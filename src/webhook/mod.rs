//! Webhooks: somebody else's server is told what happens to wallets, signed, in order, until it has heard it.
//!
//! A durable reader of the book writes down what is to be told ([`fan_out`]); jobs tell it ([`deliver`]). A receiver that
//! is down or slow has its own few queues and slows nobody else.

mod alert;
mod deliver;
mod event;
pub mod fan_out;
pub mod http;
pub mod retention;
mod signature;
mod sql;
mod target;

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::auth::{Caller, Policy, Scope};
use crate::db::Database;
use crate::duration::duration;
use crate::error::{Error, Result};
use crate::idempotency::IdempotencyKey;
use crate::ids::{DeliveryId, WebhookId};
use crate::telemetry::Metrics;
use crate::wallet::Wallets;

pub use self::deliver::Deliver;
pub use self::event::EVENTS;

/// The book whose transfers are delivered.
const BOOK: i32 = 1;

/// Most deliveries of one replay.
const REPLAY_MAX: i64 = 10_000;

/// Most webhooks of one key, and of anybody else: each transfer is told to each of them.
const WEBHOOKS_MAX: usize = 100;
const WEBHOOKS_OF_A_USER_MAX: usize = 10;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookArgs {
    /// Let webhooks go to private and loopback addresses: for development, or receivers in the same network.
    #[arg(long, env = "REVWALLET_WEBHOOK_ALLOW_PRIVATE", global = true)]
    pub webhook_allow_private: bool,
    /// How long the log of deliveries is kept.
    #[arg(long, env = "REVWALLET_WEBHOOK_LOG_LIFETIME", global = true, default_value = "30d", value_parser = duration)]
    pub webhook_log_lifetime: Duration,
}

/// The operations on webhooks. Cheap to clone.
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
}

/// A webhook as its owner sees it.
#[derive(Debug)]
pub struct Webhook {
    pub id: WebhookId,
    pub url: String,
    pub events: Vec<String>,
    /// Shown when it is made, and never again.
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
        let allow_private = args.webhook_allow_private;
        let client = target::client(allow_private)?;
        let log_lifetime = args.webhook_log_lifetime;
        let parts =
            WebhooksParts { db, wallets, policy, client, allow_private, log_lifetime, metrics };
        Ok(Self(Arc::new(parts)))
    }

    async fn create(
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
        let known = match key {
            Some(key) => sql::of_key(&mut db, key.hash).await?.is_some(),
            None => false,
        };
        let most =
            if caller.has_scope(Scope::WalletRead) { WEBHOOKS_MAX } else { WEBHOOKS_OF_A_USER_MAX };
        if !known && sql::list(&mut db, caller.name(), None).await?.len() >= most {
            let why = format!("limit of {most} webhooks reached: delete one first");
            return Err(Error::field("/url", why));
        }
        let secret = secret.map_or_else(signature::new_secret, str::to_owned);
        let created = sql::create(&mut db, caller.name(), url, events, &secret, key).await?;
        let (row, replayed) = match (created, key) {
            (Some(row), _) => (row, false),
            (None, Some(key)) => match sql::of_key(&mut db, key.hash).await? {
                Some(row) if row.content_hash == Some(key.content) => (row, true),
                _ => return Err(Error::IdempotencyKeyReused),
            },
            (None, None) => return Err(Error::Overloaded),
        };
        // What was answered the first time; a rotation has shown a newer one to somebody else.
        let secret = row.rotated_at.is_none().then(|| row.secret.clone());
        Ok(Webhook { secret, replayed, ..Webhook::from(row) })
    }

    async fn list(&self, caller: &Caller) -> Result<Vec<Webhook>> {
        caller.require_visibility()?;
        let mut db = self.db.acquire("webhook.list").await?;
        let rows = sql::list(&mut db, caller.name(), None).await?;
        Ok(rows.into_iter().map(Webhook::from).collect())
    }

    /// A webhook of this caller; another's is nobody's business.
    async fn get(&self, id: WebhookId, caller: &Caller) -> Result<Webhook> {
        caller.require_visibility()?;
        let mut db = self.db.acquire("webhook.get").await?;
        let rows = sql::list(&mut db, caller.name(), Some(id)).await?;
        rows.into_iter().next().map(Webhook::from).ok_or(Error::NotFound("webhook"))
    }

    /// What it was told before the delivery `before`, newest first.
    async fn deliveries(
        &self,
        id: WebhookId,
        before: i64,
        limit: i64,
        caller: &Caller,
    ) -> Result<Vec<sql::DeliveryRow>> {
        self.get(id, caller).await?;
        let mut db = self.db.acquire("webhook.deliveries").await?;
        sql::deliveries(&mut db, id, before, limit).await
    }

    async fn delete(&self, id: WebhookId, caller: &Caller) -> Result<()> {
        caller.require_visibility()?;
        let mut db = self.db.acquire("webhook.delete").await?;
        let gone = sql::delete(&mut db, caller.name(), id).await?;
        if gone { Ok(()) } else { Err(Error::NotFound("webhook")) }
    }

    /// A new secret, which is shown once.
    async fn rotate(
        &self,
        id: WebhookId,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<Webhook> {
        caller.require_visibility()?;
        let key = key.hashed(caller.name(), "rotate", &[&id.to_string()]).map(|key| key.hash);
        let mut db = self.db.acquire("webhook.rotate").await?;
        let done = sql::rotate(&mut db, caller.name(), id, &signature::new_secret(), key).await?;
        let row = sql::list(&mut db, caller.name(), Some(id)).await?.into_iter().next();
        let row = row.ok_or(Error::NotFound("webhook"))?;
        let secret = Some(row.secret.clone());
        Ok(Webhook { secret, replayed: !done, ..Webhook::from(row) })
    }

    /// Tells once more what was told: one delivery, or everything since a moment. How many.
    async fn replay(
        &self,
        id: WebhookId,
        delivery: Option<DeliveryId>,
        since: Option<OffsetDateTime>,
        caller: &Caller,
    ) -> Result<usize> {
        self.get(id, caller).await?;
        let mut tx = self.db.pool().begin().await?;
        let wallets = sql::replay(&mut tx, id, delivery, since, REPLAY_MAX).await?;
        let count = wallets.len();
        if delivery.is_some() && count == 0 {
            return Err(Error::NotFound("delivery"));
        }
        for wallet in wallets.into_iter().collect::<std::collections::BTreeSet<_>>() {
            fan_out::enqueue(&mut tx, id, wallet).await?;
        }
        tx.commit().await?;
        Ok(count)
    }
}

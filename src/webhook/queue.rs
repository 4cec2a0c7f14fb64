//! Queues of the delivery jobs: one job per webhook and wallet, a bounded number of queues per owner.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{DeliverWebhook, slots};
use crate::error::Result;
use crate::ids::{WalletId, WebhookId};
use crate::jobs;

/// Queues of a webhook: at most this many of its deliveries are in flight at once.
const QUEUES_PER_WEBHOOK: i64 = 2;

/// The job that sends the pending deliveries of a wallet to a webhook.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryJob<'a> {
    pub webhook: WebhookId,
    pub wallet: WalletId,
    /// Name of the caller that the webhook belongs to.
    pub owner: &'a str,
}

impl DeliveryJob<'_> {
    fn payload(&self) -> Value {
        json!({ "webhook": self.webhook, "wallet": self.wallet })
    }

    /// The queue: jobs of one queue run one after another. The webhooks of an owner share its queues.
    fn queue(&self) -> String {
        let of_webhook = self.wallet.0.rem_euclid(QUEUES_PER_WEBHOOK);
        let lane = (self.webhook.0 * QUEUES_PER_WEBHOOK + of_webhook) % slots::lanes(self.owner);
        format!("webhook-{}-{lane}", self.owner)
    }

    fn key(&self) -> String {
        format!("webhook-{}-{}", self.webhook, self.wallet)
    }

    /// Enqueues the job, unless it already waits.
    pub(super) async fn enqueue(&self, db: &mut PgConnection) -> Result<()> {
        jobs::enqueue(
            db,
            DeliverWebhook::QUEUE,
            &self.payload(),
            &self.queue(),
            &self.key(),
            DeliverWebhook::ATTEMPTS_MAX,
        )
        .await
    }

    /// Enqueues the successor of a job that has run without an attempt: it has had `attempts`, and runs after `delay`.
    pub(super) async fn defer(
        &self,
        db: &mut PgConnection,
        attempts: i32,
        delay: Duration,
    ) -> Result<()> {
        self.enqueue(db).await?;
        jobs::defer(db, &self.key(), attempts, delay).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_webhooks_of_an_owner_share_its_queues() {
        let queues = |owner: &str| -> BTreeSet<String> {
            let jobs = (1..=100).flat_map(|webhook| (1..=10).map(move |wallet| (webhook, wallet)));
            jobs.map(|(webhook, wallet)| {
                DeliveryJob { webhook: WebhookId(webhook), wallet: WalletId(wallet), owner }.queue()
            })
            .collect()
        };

        assert_eq!((queues("user:1").len(), queues("key:1").len()), (8, 32));
        assert!(queues("user:1").is_disjoint(&queues("user:2")));
    }
}

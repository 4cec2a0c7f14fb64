//! Queues of the delivery jobs. There is at most one job per webhook and subject (such as a wallet), and a limited
//! number of queues per owner.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{DeliverWebhook, slots};
use crate::error::Result;
use crate::ids::{UserId, WalletId, WebhookId};
use crate::jobs;

/// Number of queues per webhook, which is also the maximum number of simultaneous deliveries to the webhook.
const QUEUES_PER_WEBHOOK: i64 = 2;

/// Subject of a delivery: the wallet or the user that the event is about, or [`Subject::EVERYONE`] if it is about
/// neither. Deliveries of the same subject to the same webhook are sent in order.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type,
)]
#[serde(transparent)]
#[sqlx(transparent)]
pub(super) struct Subject(i64);

impl Subject {
    /// Subject of events that concern neither a wallet nor a user.
    pub(super) const EVERYONE: Self = Self(0);

    pub(super) const fn of_wallet(wallet: WalletId) -> Self {
        Self(wallet.0)
    }

    pub(super) const fn of_user(user: UserId) -> Self {
        Self(-user.0)
    }

    pub(super) fn wallet(self) -> Option<WalletId> {
        (self.0 > 0).then_some(WalletId(self.0))
    }

    pub(super) fn user(self) -> Option<UserId> {
        (self.0 < 0).then_some(UserId(-self.0))
    }
}

/// The job that sends the pending deliveries about a subject (such as a wallet) to a webhook.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeliveryJob<'a> {
    pub webhook: WebhookId,
    pub subject: Subject,
    /// Name of the caller that owns the webhook.
    pub owner: &'a str,
}

impl DeliveryJob<'_> {
    fn payload(&self) -> Value {
        json!({ "webhook": self.webhook, "subject": self.subject })
    }

    /// Returns the name of the queue for this job. Jobs of the same queue run one after another. All webhooks of an
    /// owner share the owner's queues.
    fn queue(&self) -> String {
        let of_webhook = self.subject.0.rem_euclid(QUEUES_PER_WEBHOOK);
        let lane = (self.webhook.0 * QUEUES_PER_WEBHOOK + of_webhook) % slots::lanes(self.owner);
        format!("webhook-{}-{lane}", self.owner)
    }

    fn key(&self) -> String {
        format!("webhook-{}-{}", self.webhook, self.subject.0)
    }

    /// Enqueues the job, unless the same job is already waiting.
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

    /// Enqueues a job that replaces a running job that could not make an attempt. The new job runs after `delay`, and
    /// inherits the number of `attempts` of the old job.
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
                let subject = Subject::of_wallet(WalletId(wallet));
                DeliveryJob { webhook: WebhookId(webhook), subject, owner }.queue()
            })
            .collect()
        };

        assert_eq!((queues("user:1").len(), queues("key:1").len()), (8, 32));
        assert!(queues("user:1").is_disjoint(&queues("user:2")));
    }
}

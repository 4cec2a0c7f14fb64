//! The delivery job: sends the pending deliveries of one wallet to one webhook, in order, until none is left or an
//! attempt fails.

use std::time::{Duration, Instant};

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::{Instrument, Span};

use super::delivery::DeliveryState;
use super::{Webhooks, fan_out, signature, sql};
use crate::error::Result;
use crate::ids::{DeliveryId, WalletId, WebhookId};
use crate::jobs::{self, JobAttempt};
use crate::telemetry::{TraceContext, export_if_sampled};

/// Time after which a job enqueues itself again, so that other jobs get a turn.
const RUN_MAX: Duration = Duration::from_secs(20);

/// Longest error text that is stored, in bytes.
const ERROR_MAX: usize = 300;

/// Sends the pending deliveries of a wallet to a webhook.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeliverWebhook {
    webhook: WebhookId,
    wallet: WalletId,
}

impl DeliverWebhook {
    /// Identifier of the job, and label of its metrics.
    pub const QUEUE: &'static str = "webhook_deliver";

    /// Most attempts. With the exponential backoff of the queue, the last one is a day after the first.
    pub const ATTEMPTS_MAX: i16 = 13;
}

impl TaskHandler for DeliverWebhook {
    const IDENTIFIER: &'static str = Self::QUEUE;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        jobs::run(Self::QUEUE, &context, async |webhooks: &Webhooks, attempt| {
            webhooks.deliver(self.webhook, self.wallet, attempt).await
        })
        .await
    }
}

/// A span in the trace of the request behind the transfer.
fn delivery_span(webhook: WebhookId, next: &sql::NextDelivery) -> Span {
    let Some(trace) = next.trace_id.map(TraceContext::caused_by) else { return Span::current() };
    let span = tracing::info_span!(
        parent: None,
        "webhook.deliver",
        otel.kind = "client",
        trace_id = %trace.trace_id_hex(),
        webhook.id = webhook.0,
        delivery.id = next.id.0,
    );
    export_if_sampled(&span, &trace);
    span
}

/// Outcome of sending a delivery.
struct SendOutcome {
    /// Status of the response, if there was one.
    status: Option<u16>,
    /// Absent if the receiver accepted the delivery.
    error: Option<String>,
}

impl Webhooks {
    async fn deliver(
        &self,
        webhook: WebhookId,
        wallet: WalletId,
        attempt: JobAttempt,
    ) -> Result<()> {
        let started = Instant::now();
        let mut is_first = true;
        loop {
            let mut db = self.db.acquire("webhook.next").await?;
            let next = sql::next_pending(&mut db, webhook, wallet).await?;
            let Some(next) = next else { return Ok(()) };
            if started.elapsed() > RUN_MAX {
                return fan_out::enqueue(&mut db, webhook, wallet).await;
            }
            drop(db);
            let sent = Instant::now();
            let SendOutcome { status, error } =
                self.send(&next).instrument(delivery_span(webhook, &next)).await;
            let label = if error.is_none() { "delivered" } else { "failed" };
            self.metrics.wallet_webhook_deliveries_total.with([label]).increment(1);
            let seconds = sent.elapsed().as_secs_f64();
            self.metrics.wallet_webhook_duration_seconds.record(seconds);
            // The attempts of the job belong to its first delivery; the later ones have had no attempt before.
            let is_given_up = is_first && attempt.is_last && error.is_some();
            let state = match error {
                None => DeliveryState::Delivered,
                Some(_) if is_given_up => DeliveryState::Dead,
                Some(_) => DeliveryState::Pending,
            };
            let mut db = self.db.acquire("webhook.note").await?;
            let status = status.and_then(|status| i16::try_from(status).ok());
            sql::record_attempt(&mut db, next.id, state, status, error.as_deref()).await?;
            match error {
                None => {}
                Some(_) if is_given_up => self.give_up(&mut db, webhook, wallet, next.id).await?,
                // A later delivery failed: a new job counts its attempts from one.
                Some(_) if !is_first => return fan_out::enqueue(&mut db, webhook, wallet).await,
                Some(why) => return Err(jobs::retry(format!("attempt {}: {why}", attempt.number))),
            }
            is_first = false;
        }
    }

    /// Logs a delivery whose attempts are used up, and enqueues a job for the deliveries behind it.
    async fn give_up(
        &self,
        db: &mut sqlx::PgConnection,
        webhook: WebhookId,
        wallet: WalletId,
        delivery: DeliveryId,
    ) -> Result<()> {
        tracing::warn!(
            event = "webhook.dead",
            webhook.id = webhook.0,
            wallet.id = wallet.0,
            delivery.id = delivery.0,
            "webhook delivery failed at its last attempt; replay it when the receiver is available"
        );
        fan_out::enqueue(db, webhook, wallet).await
    }

    async fn send(&self, next: &sql::NextDelivery) -> SendOutcome {
        let failed = |error: String| SendOutcome { status: None, error: Some(error) };
        let url = match super::target::parse(&next.url, self.allow_private) {
            Ok(url) => url,
            Err(why) => return failed(format!("the URL {why}")),
        };
        let (id, now) = (format!("msg_{}", next.id), OffsetDateTime::now_utc().unix_timestamp());
        let secrets = [Some(next.secret.as_str()), next.secret_before.as_deref()];
        let secrets: Vec<&str> = secrets.into_iter().flatten().collect();
        let request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("webhook-id", &id)
            .header("webhook-timestamp", now.to_string())
            .header("webhook-signature", signature::signatures(&secrets, &id, now, &next.body))
            .body(next.body.clone());
        match request.send().await {
            // The body of the response is not read: it could be endless.
            Ok(response) if response.status().is_success() => {
                SendOutcome { status: Some(response.status().as_u16()), error: None }
            }
            Ok(response) => {
                let status = response.status().as_u16();
                let error = format!("the receiver responded with status {status}");
                SendOutcome { status: Some(status), error: Some(error) }
            }
            Err(cause) => {
                let mut text = if cause.is_timeout() {
                    "the receiver did not respond in time".to_owned()
                } else {
                    format!("{:#}", anyhow::Error::new(cause.without_url()))
                };
                text.truncate(text.floor_char_boundary(ERROR_MAX));
                failed(text)
            }
        }
    }
}

//! The job that delivers: what waits for one wallet at one webhook, in order, until nothing does or an attempt fails.

use std::time::{Duration, Instant};

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tracing::{Instrument, Span};

use super::{Webhooks, fan_out, signature, sql};
use crate::error::Result;
use crate::ids::{DeliveryId, WalletId, WebhookId};
use crate::jobs::{self, JobAttempt};
use crate::telemetry::{TraceIds, begin};

/// A job gives others a turn after this long.
const TURN_MAX: Duration = Duration::from_secs(20);

/// Longest text of a failure that is kept.
const ERROR_MAX: usize = 300;

/// Delivers what waits for a wallet at a webhook.
#[derive(Debug, Serialize, Deserialize)]
pub struct Deliver {
    webhook: WebhookId,
    wallet: WalletId,
}

impl Deliver {
    /// For labels, and how jobs of this kind are called.
    pub const QUEUE: &'static str = "webhook_deliver";

    /// With the queue's back-off (e to the number of the attempt, in seconds) the last one is a day after the first.
    pub const ATTEMPTS_MAX: i16 = 13;
}

impl TaskHandler for Deliver {
    const IDENTIFIER: &'static str = Self::QUEUE;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        jobs::run(Self::QUEUE, &context, async |webhooks: &Webhooks, attempt| {
            webhooks.deliver(self.webhook, self.wallet, attempt).await
        })
        .await
    }
}

/// In the trace of the request that it tells of.
fn span_of(webhook: WebhookId, next: &sql::NextDelivery) -> Span {
    let Some(trace) = next.trace_id.map(TraceIds::caused_by) else { return Span::current() };
    let span = tracing::info_span!(
        parent: None,
        "webhook.deliver",
        otel.kind = "client",
        trace_id = %trace.trace_hex(),
        webhook.id = webhook.0,
        delivery.id = next.id.0,
    );
    begin(&span, &trace);
    span
}

/// What became of an attempt.
struct Tried {
    status: Option<u16>,
    /// Nothing when the receiver took it.
    error: Option<String>,
}

impl Webhooks {
    async fn deliver(
        &self,
        webhook: WebhookId,
        wallet: WalletId,
        attempt: JobAttempt,
    ) -> Result<()> {
        let began = Instant::now();
        let mut first = true;
        loop {
            let mut db = self.db.acquire("webhook.next").await?;
            let Some(next) = sql::next(&mut db, webhook, wallet).await? else { return Ok(()) };
            if began.elapsed() > TURN_MAX {
                return fan_out::enqueue(&mut db, webhook, wallet).await;
            }
            drop(db);
            let sent = Instant::now();
            let tried = self.send(&next).instrument(span_of(webhook, &next)).await;
            let outcome = if tried.error.is_none() { "delivered" } else { "failed" };
            self.metrics.wallet_webhook_deliveries_total.with([outcome]).increment(1);
            let seconds = sent.elapsed().as_secs_f64();
            self.metrics.wallet_webhook_duration_seconds.record(seconds);
            // What was begun with another one starts to count anew.
            let gives_up = first && attempt.last && tried.error.is_some();
            let state = match tried.error {
                None => "delivered",
                Some(_) if gives_up => "dead",
                Some(_) => "pending",
            };
            let mut db = self.db.acquire("webhook.note").await?;
            let status = tried.status.and_then(|status| i16::try_from(status).ok());
            sql::note(&mut db, next.id, state, status, tried.error.as_deref()).await?;
            match tried.error {
                None => {}
                Some(_) if gives_up => self.give_up(&mut db, webhook, wallet, next.id).await?,
                // The one that failed now is not the one that this job had failed with before.
                Some(_) if !first => return fan_out::enqueue(&mut db, webhook, wallet).await,
                Some(why) => return Err(jobs::retry(format!("attempt {}: {why}", attempt.number))),
            }
            first = false;
        }
    }

    /// A receiver that was away for a day: the log keeps what it missed, and the others go on.
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
            "delivery {delivery} of webhook {webhook} is given up; replay it when its receiver is back"
        );
        fan_out::enqueue(db, webhook, wallet).await
    }

    async fn send(&self, next: &sql::NextDelivery) -> Tried {
        let fails = |error: String| Tried { status: None, error: Some(error) };
        let url = match super::target::parse(&next.url, self.allow_private) {
            Ok(url) => url,
            Err(why) => return fails(format!("the URL {why}")),
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
            // What it says besides is not read: it may be endless.
            Ok(answer) if answer.status().is_success() => {
                Tried { status: Some(answer.status().as_u16()), error: None }
            }
            Ok(answer) => {
                let status = answer.status().as_u16();
                Tried { status: Some(status), error: Some(format!("it answered {status}")) }
            }
            Err(cause) => {
                let mut text = if cause.is_timeout() {
                    "it took too long".to_owned()
                } else {
                    format!("{:#}", anyhow::Error::new(cause.without_url()))
                };
                text.truncate(text.floor_char_boundary(ERROR_MAX));
                fails(text)
            }
        }
    }
}

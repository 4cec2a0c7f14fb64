//! The delivery job: sends the pending deliveries of a subject (a wallet or a user) to a webhook, in order, until none
//! is left or an attempt fails.

use std::time::{Duration, Instant};

use graphile_worker::{IntoTaskHandlerResult, TaskHandler, WorkerContext};
use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use time::OffsetDateTime;
use tracing::{Instrument, Span, field};
use url::Url;

use super::delivery::{self, DeliveryState};
use super::queue::{DeliveryJob, Subject};
use super::target::UNREACHABLE;
use super::{Webhooks, pause, signature, sql};
use crate::error::Result;
use crate::ids::WebhookId;
use crate::jobs::{self, JobAttempt};
use crate::telemetry::{TraceContext, in_trace_if_sampled};

/// Time after which a job ends and enqueues a new job for the remaining deliveries, so that other jobs can run.
const RUN_MAX: Duration = Duration::from_secs(20);

/// A job that sends the pending deliveries about a subject (such as a wallet) to a webhook.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeliverWebhook {
    webhook: WebhookId,
    /// Subject of the deliveries, such as a wallet. Jobs that earlier versions of the program enqueued name this field
    /// `wallet`.
    #[serde(alias = "wallet")]
    subject: Subject,
}

impl DeliverWebhook {
    /// Identifier of this kind of job, and its label in metrics.
    pub const QUEUE: &'static str = "webhook_deliver";

    /// Maximum number of attempts at a delivery. With the exponential backoff of the job queue, the last attempt is a
    /// day after the first.
    pub const ATTEMPTS_MAX: i16 = 13;
}

impl TaskHandler for DeliverWebhook {
    const IDENTIFIER: &'static str = Self::QUEUE;

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        jobs::run(Self::QUEUE, &context, async |webhooks: &Webhooks, attempt| {
            webhooks.deliver(self.webhook, self.subject, attempt).await
        })
        .await
    }
}

/// Creates the span of a delivery. It belongs to the trace of the request that caused the event.
fn delivery_span(webhook: WebhookId, next: &delivery::sql::NextDelivery) -> Span {
    let Some(trace) = next.trace_id.map(TraceContext::caused_by) else { return Span::current() };
    in_trace_if_sampled(&trace, || {
        tracing::info_span!(
            parent: None,
            "webhook.deliver",
            otel.kind = "client",
            trace_id = %trace.trace_id_hex(),
            webhook.id = webhook.0,
            delivery.id = next.id.0,
            server.address = host_of(&next.url),
            http.response.status_code = field::Empty,
            otel.status_description = field::Empty,
        )
    })
}

/// Returns the host of a URL. The other parts are not logged, because they may contain secrets.
fn host_of(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// Reason why a delivery could not be sent or was not accepted.
struct SendFailure {
    /// Text that the owner of the webhook sees. It reveals nothing about the operator's network.
    error: String,
    /// Detailed cause, which only the operator sees.
    cause: String,
}

/// Outcome of one delivery attempt.
struct SendOutcome {
    /// HTTP status of the response, if there was a response.
    status: Option<u16>,
    /// Time until the response arrived or the attempt failed.
    elapsed: Duration,
    failure: Option<SendFailure>,
}

/// Next step of the delivery job after an attempt.
enum NextStep {
    /// The job sends the next delivery.
    Continue,
    /// The job ends, so that other jobs can run. A new job sends the remaining deliveries.
    Requeue,
    /// The job ends with an error, so that the job queue retries it after its backoff.
    Retry { cause: String },
}

impl Webhooks {
    async fn deliver(
        &self,
        webhook: WebhookId,
        subject: Subject,
        attempt: JobAttempt,
    ) -> Result<()> {
        let started = Instant::now();
        // The job queue counts the attempts of the job, which belong to its first delivery. Each later delivery begins
        // with its first attempt.
        let (mut attempt, mut is_first) = (attempt, true);
        loop {
            let mut db = self.db.acquire("webhook.next").await?;
            let next = delivery::sql::next_pending(&mut db, webhook, subject).await?;
            let Some(next) = next else { return Ok(()) };
            let job = DeliveryJob { webhook, subject, owner: &next.owner };
            if let Some(seconds) = next.pause_seconds {
                if next.is_overdue {
                    delivery::sql::give_up(&mut db, next.id).await?;
                    log_dead(&job, &next);
                    (attempt, is_first) = (JobAttempt::FIRST, false);
                    continue;
                }
                let pause = Duration::from_secs_f64(seconds.max(0.0));
                return self.defer(&mut db, &job, attempt, pause, "paused").await;
            }
            if started.elapsed() > RUN_MAX {
                return job.enqueue(&mut db).await;
            }
            let slot = match self.slots.take(&next.owner, next.is_prompt) {
                Ok(slot) => slot,
                Err(delay) => return self.defer(&mut db, &job, attempt, delay, "limit").await,
            };
            drop(db);
            let step = self.attempt(&job, &next, attempt).await?;
            drop(slot);
            match step {
                NextStep::Continue => {}
                // If a later delivery failed, a new job is enqueued, which counts the attempts at this delivery from 1.
                NextStep::Retry { cause } if is_first => {
                    return Err(jobs::retry(format!("attempt {}: {cause}", attempt.number)));
                }
                NextStep::Requeue | NextStep::Retry { .. } => {
                    let mut db = self.db.acquire("webhook.requeue").await?;
                    return job.enqueue(&mut db).await;
                }
            }
            (attempt, is_first) = (JobAttempt::FIRST, false);
        }
    }

    /// Ends this run of the job and enqueues another run after a delay, so that waiting does not occupy a worker. This
    /// run does not count as an attempt.
    async fn defer(
        &self,
        db: &mut sqlx::PgConnection,
        job: &DeliveryJob<'_>,
        attempt: JobAttempt,
        delay: Duration,
        reason: &str,
    ) -> Result<()> {
        self.metrics.wallet_webhook_deferrals_total.with([reason]).increment(1);
        let mut tx = db.begin().await?;
        job.defer(&mut tx, attempt.number - 1, delay).await?;
        Ok(tx.commit().await?)
    }

    /// Makes one delivery attempt and records its outcome.
    async fn attempt(
        &self,
        job: &DeliveryJob<'_>,
        next: &delivery::sql::NextDelivery,
        attempt: JobAttempt,
    ) -> Result<NextStep> {
        let outcome = self.send(next).instrument(delivery_span(job.webhook, next)).await;
        let SendOutcome { status, elapsed, failure } = outcome;
        let label = if failure.is_none() { "delivered" } else { "failed" };
        self.metrics.wallet_webhook_deliveries_total.with([label]).increment(1);
        self.metrics.wallet_webhook_duration_seconds.record(elapsed.as_secs_f64());
        let state = match failure {
            None => DeliveryState::Delivered,
            Some(_) if attempt.is_last => DeliveryState::Dead,
            Some(_) => DeliveryState::Pending,
        };
        let mut db = self.db.acquire("webhook.note").await?;
        let status = status.and_then(|status| i16::try_from(status).ok());
        let error = failure.as_ref().map(|failure| failure.error.as_str());
        delivery::sql::record_attempt(&mut db, next.id, state, status, error).await?;
        let is_prompt = elapsed <= pause::PROMPT;
        let Some(SendFailure { cause, .. }) = failure else {
            sql::record_response(&mut db, job.webhook, is_prompt).await?;
            return Ok(if is_prompt { NextStep::Continue } else { NextStep::Requeue });
        };
        if !is_prompt {
            self.pause(&mut db, job.webhook, next.timeouts).await?;
        }
        if attempt.is_last {
            log_dead(job, next);
            // This job has used up its attempts, so later deliveries need a new job if they fail.
            job.enqueue(&mut db).await?;
            return Ok(NextStep::Continue);
        }
        Ok(NextStep::Retry { cause })
    }

    /// Pauses a webhook after an attempt that timed out or failed slowly. `timeouts` is the number of such attempts
    /// before this attempt, since the last successful delivery.
    async fn pause(
        &self,
        db: &mut sqlx::PgConnection,
        webhook: WebhookId,
        timeouts: i32,
    ) -> Result<()> {
        let timeouts = timeouts.saturating_add(1);
        let pause = pause::pause_after(timeouts.unsigned_abs());
        if sql::pause(db, webhook, timeouts, pause).await? {
            self.metrics.wallet_webhook_pauses_total.increment(1);
            tracing::info!(
                event = "webhook.paused",
                webhook.id = webhook.0,
                timeouts,
                pause.seconds = pause.as_secs(),
                "a webhook receiver did not respond promptly; pausing the deliveries of this webhook"
            );
        }
        Ok(())
    }

    async fn send(&self, next: &delivery::sql::NextDelivery) -> SendOutcome {
        let started = Instant::now();
        let (status, failure) = match self.request(next) {
            Err(why) => (None, Some(SendFailure::unreachable(format!("the URL {why}")))),
            Ok(request) => match request.send().await {
                // The body of the response is not read, because it could be endless.
                Ok(response) => {
                    let status = response.status();
                    Span::current().record("http.response.status_code", status.as_u16());
                    let failure = (!status.is_success()).then(|| SendFailure::status(status));
                    (Some(status.as_u16()), failure)
                }
                Err(cause) => (None, Some(SendFailure::from(cause))),
            },
        };
        if let Some(failure) = &failure {
            Span::current().record("otel.status_description", &failure.error[..]);
        }
        SendOutcome { status, elapsed: started.elapsed(), failure }
    }

    /// Builds the signed request for a delivery.
    fn request(
        &self,
        next: &delivery::sql::NextDelivery,
    ) -> Result<reqwest::RequestBuilder, String> {
        let url = super::target::parse(&next.url, self.allow_private)?;
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
        Ok(request)
    }
}

impl SendFailure {
    fn unreachable(cause: String) -> Self {
        Self { error: UNREACHABLE.to_owned(), cause }
    }

    fn status(status: reqwest::StatusCode) -> Self {
        let error = format!("the receiver responded with status {}", status.as_u16());
        Self { cause: error.clone(), error }
    }
}

impl From<reqwest::Error> for SendFailure {
    fn from(cause: reqwest::Error) -> Self {
        let is_timeout = cause.is_timeout();
        let cause = format!("{:#}", anyhow::Error::new(cause.without_url()));
        if is_timeout {
            return Self { error: "the receiver did not respond in time".to_owned(), cause };
        }
        Self::unreachable(cause)
    }
}

fn log_dead(job: &DeliveryJob<'_>, next: &delivery::sql::NextDelivery) {
    tracing::warn!(
        event = "webhook.dead",
        webhook.id = job.webhook.0,
        wallet.id = job.subject.wallet().map(|wallet| wallet.0),
        user.id = job.subject.user().map(|user| user.0),
        delivery.id = next.id.0,
        "a webhook delivery kept failing for a day and will not be retried; replay it when the receiver is available"
    );
}

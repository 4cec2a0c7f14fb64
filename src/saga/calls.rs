//! Calls that the steps of a saga make to external systems. The engine does not rely on the response to a call: it asks
//! the external system for the outcome, using the reference of the call.

use std::future::Future;

use serde_json::value::RawValue;
use tracing::Instrument;

use super::handler::{Call, CallOutcome, SagaHandler, StepAction};
use super::{Sagas, SagasParts};
use crate::error::Result;

/// Outcome of an attempt at a call to an external system.
#[derive(Debug)]
pub(super) enum Answer {
    Done(Box<RawValue>),
    /// The external system refused the call, so the call will never take effect.
    Refused(String),
    /// The outcome is not known yet; the next attempt asks for it again.
    Later(String),
    /// The last attempt, or an attempt to cancel the call, did not reveal the outcome.
    Unknown(String),
}

/// Facts about an attempt at a call. They decide whether the attempt sends the call, asks for its outcome, or cancels
/// it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub number: i32,
    /// Whether it is certain that no worker has sent this call before.
    pub is_first: bool,
    /// Whether the deadline of the saga has passed.
    pub is_late: bool,
}

impl<H: SagaHandler> Sagas<H> {
    /// Makes a call to an external system, unless an earlier attempt has made it, and asks for its outcome.
    pub(super) async fn ask(&self, call: &Call<'_>, attempt: Attempt) -> Answer {
        let is_last = attempt.number >= self.settings.attempts_max;
        let is_late = attempt.is_late && call.action == StepAction::Do;
        let mut has_submitted = false;
        if attempt.is_first && !is_late {
            self.submit(call).await;
            has_submitted = true;
        }
        loop {
            return match self.traced("find", call, self.handler.find(call)).await {
                Ok(CallOutcome::Done(answer)) => Answer::Done(answer),
                Ok(CallOutcome::Refused(reason)) => Answer::Refused(reason),
                Ok(CallOutcome::Pending | CallOutcome::Absent) if is_late => {
                    self.cancel(call, attempt).await
                }
                Ok(CallOutcome::Pending) => {
                    Answer::Later("the call is still in progress".to_owned())
                }
                Ok(CallOutcome::Absent) if has_submitted && is_last => {
                    self.cancel(call, attempt).await
                }
                Ok(CallOutcome::Absent) if has_submitted => {
                    Answer::Later("the call did not arrive".to_owned())
                }
                Ok(CallOutcome::Absent) => {
                    self.submit(call).await;
                    has_submitted = true;
                    continue;
                }
                Err(why) if is_last => Answer::Unknown(why),
                Err(why) => Answer::Later(why),
            };
        }
    }

    async fn submit(&self, call: &Call<'_>) {
        if let Err(why) = self.traced("submit", call, self.handler.submit(call)).await {
            tracing::debug!(
                saga.step = call.step.name,
                error.message = why,
                "a call to an external system failed; the worker is asking the system whether the call took effect"
            );
        }
    }

    /// Asks the external system to cancel a call. If the call has already taken effect, returns its result.
    async fn cancel(&self, call: &Call<'_>, attempt: Attempt) -> Answer {
        match self.traced("cancel", call, self.handler.cancel(call)).await {
            Ok(CallOutcome::Done(answer)) => Answer::Done(answer),
            Ok(CallOutcome::Refused(_)) => Answer::Refused(if attempt.is_late {
                "the deadline has passed".to_owned()
            } else {
                format!("given up after {} attempts", attempt.number)
            }),
            Ok(CallOutcome::Pending | CallOutcome::Absent) => {
                Answer::Unknown("the call has neither taken effect nor been canceled".to_owned())
            }
            Err(why) => Answer::Unknown(why),
        }
    }
}

impl<H> SagasParts<H> {
    /// Sends a request to an external system within a tracing span.
    async fn traced<T>(
        &self,
        operation: &'static str,
        call: &Call<'_>,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T, String> {
        let span = tracing::info_span!(
            "saga.call",
            otel.kind = "client",
            operation,
            saga.step = call.step.name,
            reference = call.reference,
        );
        self.in_time(request).instrument(span).await
    }

    /// Awaits a call, but at most for the call timeout from the settings. Returns errors as text.
    pub(super) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(self.settings.call_timeout, call).await {
            Ok(answer) => answer.map_err(|error| error.into_cause().to_string()),
            Err(_) => Err(format!("no response within {:?}", self.settings.call_timeout)),
        }
    }
}

//! Runs a claimed saga: does or undoes its steps until the saga has ended or the next attempt has to wait.

use std::time::Instant;

use serde_json::value::RawValue;

use super::Sagas;
use super::calls::{Answer, Attempt};
use super::claim::Claim;
use super::definition;
use super::handler::{Booked, SagaHandler, StepAction};
use super::sql::{self, ClaimedRow, MOVED, Move};
use super::step_state::StepState;
use super::transitions::SagaState;
use crate::error::{Error, Result};
use crate::ledger::companion::Companion;

/// Error text of a posting that the ledger refused because another worker has claimed the saga in the meantime.
const OVERTAKEN: &str = "another worker has claimed the saga";

/// Result of a step: the worker continues with the next step, or has nothing more to do under this claim.
pub(super) enum Next {
    Step(Box<Claim>),
    /// The worker has nothing more to do under this claim.
    End,
}

impl<H: SagaHandler> Sagas<H> {
    /// Runs a claimed saga until the worker has nothing more to do under this claim.
    pub(super) async fn run_claim(&self, row: ClaimedRow) {
        let (saga, fence) = (row.saga, row.fence);
        if let Err(error) = self.try_run_claim(row).await {
            let cause = format!("{:#}", error.into_cause());
            tracing::warn!(
                event = "saga.attempt_failed",
                error.message = cause,
                "could not run a saga; a worker will retry it later"
            );
            let pause = self.settings.backoff_max.as_secs_f64();
            let released = async {
                let mut db = self.db.acquire("saga.release").await?;
                sql::release(&mut db, saga, fence, pause, None).await
            };
            // If the release fails, the claim ends when its lease expires.
            let _ignored: Result<bool> = released.await;
            self.put_off.notify_one();
        }
    }

    async fn try_run_claim(&self, row: ClaimedRow) -> Result<()> {
        let Some(definition) = definition::find(H::definitions(), &row.kind, row.version) else {
            return self.park(&row).await;
        };
        let state: SagaState = row.state.parse()?;
        if state.is_over() {
            return self.notify(row, state).await;
        }
        let mut claim = Box::new(Claim::from_row(row, definition)?);
        loop {
            let started = Instant::now();
            let (kind, step) = (definition.kind, claim.step()?.name);
            let next = match claim.action {
                StepAction::Do => self.perform(*claim).await?,
                StepAction::Undo => self.undo(*claim).await?,
            };
            let duration = &self.metrics.wallet_saga_step_duration_seconds;
            duration.with([kind, step]).record(started.elapsed().as_secs_f64());
            match next {
                Next::Step(next) => claim = next,
                Next::End => return Ok(()),
            }
        }
    }

    /// Does the current step: makes its call, if any, and writes its transfers to the ledger.
    async fn perform(&self, claim: Claim) -> Result<Next> {
        let step = claim.step()?;
        let answer = if step.calls {
            match self.answer(&claim).await? {
                Answer::Done(answer) => Some(answer),
                Answer::Refused(reason) => return self.give_up(&claim, &reason, None).await,
                Answer::Later(reason) => return self.retry_later(&claim, &reason).await,
                Answer::Unknown(reason) => return self.mark_unknown(&claim, &reason).await,
            }
        } else if claim.is_late {
            let reason =
                claim.reason.clone().unwrap_or_else(|| "the deadline has passed".to_owned());
            return self.give_up(&claim, &reason, None).await;
        } else {
            None
        };
        let is_last = claim.step + 1 == claim.definition.steps.len();
        let following = claim.definition.steps.get(claim.step + 1);
        let mut done = claim.to(
            if is_last { SagaState::Completed } else { SagaState::Processing },
            StepState::Done,
        );
        done.reason = None;
        done.result = answer.as_deref();
        if let Some(following) = following {
            done.seconds = Some(self.settings.lease.as_secs_f64());
            done.next = i16::try_from(claim.step + 1).ok();
            done.next_name = Some(following.name);
        } else {
            self.end(&mut done);
        }
        match self.book(&claim, answer.as_deref(), &done).await? {
            Booked::Done(_) if is_last => {
                self.count(&claim, "done");
                self.count_finished(&claim, "completed");
                Ok(Next::End)
            }
            Booked::Done(_) => {
                self.count(&claim, "done");
                let (step, state) = (claim.step + 1, SagaState::Processing);
                Ok(Next::Step(Box::new(Claim {
                    step,
                    state,
                    attempt: 1,
                    is_first: true,
                    round: 0,
                    result: None,
                    is_booked: false,
                    resolution: None,
                    reason: None,
                    ..claim
                })))
            }
            Booked::Waiting(_) if claim.is_late && step.calls && step.has_undo => {
                self.give_up(&claim, "the deadline has passed", answer.as_deref()).await
            }
            Booked::Waiting(reason) if claim.is_late && !step.calls => {
                self.give_up(&claim, &reason, None).await
            }
            Booked::Waiting(reason) if claim.is_late => self.mark_stuck(&claim, &reason).await,
            Booked::Waiting(reason) => self.wait(&claim, &reason, answer.as_deref()).await,
            Booked::Overtaken => Ok(Next::End),
        }
    }

    /// Undoes the current step: makes the reverse call, if any, and writes the reverse transfers to the ledger.
    async fn undo(&self, claim: Claim) -> Result<Next> {
        let step = claim.step()?;
        let answer = if step.calls {
            match self.answer(&claim).await? {
                Answer::Done(answer) => Some(answer),
                Answer::Refused(reason) => return self.mark_stuck(&claim, &reason).await,
                Answer::Later(reason) => return self.retry_later(&claim, &reason).await,
                Answer::Unknown(reason) => return self.mark_unknown(&claim, &reason).await,
            }
        } else {
            None
        };
        let is_last = claim.step == 0;
        let mut done = claim.to(
            if is_last { SagaState::Failed } else { SagaState::Compensating },
            StepState::Undone,
        );
        done.result = answer.as_deref();
        if is_last {
            self.end(&mut done);
        } else {
            done.seconds = Some(0.0);
            done.next = i16::try_from(claim.step - 1).ok();
        }
        match self.book(&claim, answer.as_deref(), &done).await? {
            Booked::Done(_) => {
                self.count(&claim, "undone");
                if is_last {
                    self.count_finished(&claim, "compensated");
                }
                Ok(Next::End)
            }
            Booked::Waiting(reason) => self.wait(&claim, &reason, answer.as_deref()).await,
            Booked::Overtaken => Ok(Next::End),
        }
    }

    /// Returns the outcome of the current call: the outcome that an operator has set or, without one, the outcome that
    /// the external system reports.
    async fn answer(&self, claim: &Claim) -> Result<Answer> {
        match claim.resolution.as_deref() {
            Some("done") => return Ok(Answer::Done(RawValue::NULL.to_owned())),
            Some(_) => {
                return Ok(Answer::Refused(
                    "an operator found that the call did not take effect".to_owned(),
                ));
            }
            None => {}
        }
        let attempt =
            Attempt { number: claim.attempt, is_first: claim.is_first, is_late: claim.is_late };
        Ok(self.ask(&claim.call()?, attempt).await)
    }

    /// Writes the transfers of the current step to the ledger, and advances the saga in the same transaction.
    async fn book(
        &self,
        claim: &Claim,
        answer: Option<&RawValue>,
        change: &Move<'_>,
    ) -> Result<Booked> {
        let settle = |first: usize| {
            let row = Move { first: Some(first), ..*change };
            Companion::new(&MOVED, &row, OVERTAKEN).map_err(|cause| Error::Internal(cause.into()))
        };
        let booked = self.handler.book(&claim.call()?, answer, &settle).await?;
        if matches!(booked, Booked::Done(None)) && !self.move_on(change).await? {
            return Ok(Booked::Overtaken);
        }
        if matches!(booked, Booked::Overtaken) {
            self.note_overtaken();
        }
        Ok(booked)
    }

    pub(super) async fn move_on(&self, change: &Move<'_>) -> Result<bool> {
        let mut db = self.db.acquire("saga.move").await?;
        sql::move_on(&mut db, change).await
    }

    /// Adds the owner's notification to a change that ends a saga, if notifications are enabled.
    fn end(&self, change: &mut Move<'_>) {
        if self.settings.notifies {
            (change.seconds, change.notification) = (Some(0.0), Some("due"));
        }
    }

    pub(super) fn count(&self, claim: &Claim, outcome: &'static str) {
        let step = claim.definition.steps.get(claim.step).map_or("", |step| step.name);
        self.metrics
            .wallet_saga_steps_total
            .with([claim.definition.kind, step, outcome])
            .increment(1);
    }

    fn count_finished(&self, claim: &Claim, outcome: &'static str) {
        let finished = &self.metrics.wallet_saga_finished_total;
        finished.with([claim.definition.kind, outcome]).increment(1);
    }
}

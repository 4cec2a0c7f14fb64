//! Work on a claimed saga: its steps are done or undone until there is nothing left or another attempt has to wait.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::Sagas;
use super::calls::{Answer, Attempt};
use super::claim::Claim;
use super::definition::{self, Definition};
use super::handler::{Booked, Ended, SagaHandler, StepAction};
use super::sql::{self, ClaimedRow, MOVED, Move};
use super::state::{SagaState, StepState};
use crate::error::{Error, Result};
use crate::ledger::companion::Companion;

/// Refusal of a posting whose claim is not the last one any more.
const OVERTAKEN: &str = "another worker has claimed the saga";

/// Pause before a worker looks again at a saga whose definition it does not know.
const UNKNOWN_VERSION_PAUSE: Duration = Duration::from_secs(30);

/// Pause before a step is tried again that cannot be booked now.
const WAITING_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two notifications of one saga.
const NOTIFICATION_PAUSE_MAX: Duration = Duration::from_hours(1);

/// Whether a claim goes on.
enum Next {
    Step(Box<Claim>),
    /// The claim is over.
    End,
}

impl<H: SagaHandler> Sagas<H> {
    /// Works on a claimed saga until the claim is over.
    pub(super) async fn run_claim(&self, row: ClaimedRow) {
        let (saga, fence) = (row.saga, row.fence);
        if let Err(error) = self.try_run_claim(row).await {
            let cause = format!("{:#}", error.into_cause());
            tracing::warn!(
                event = "saga.attempt_failed",
                saga = saga.0,
                error.message = cause,
                "an attempt at a saga failed; it is retried"
            );
            let pause = self.settings.backoff_max.as_secs_f64();
            let released = async {
                let mut db = self.db.acquire("saga.release").await?;
                sql::release(&mut db, saga, fence, pause, None).await
            };
            // Otherwise the lease ends by itself.
            let _ignored: Result<bool> = released.await;
        }
    }

    async fn try_run_claim(&self, row: ClaimedRow) -> Result<()> {
        let Some(definition) = definition::find(H::definitions(), &row.kind, row.version) else {
            return self.park(&row).await;
        };
        let state: SagaState = row.state.parse()?;
        if state.is_over() {
            return self.notify(row, definition, state).await;
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

    /// Leaves a saga to a newer version of the program.
    async fn park(&self, row: &ClaimedRow) -> Result<()> {
        let reason = format!("version {} of {} is unknown to this program", row.version, row.kind);
        tracing::warn!(
            event = "saga.unknown_version",
            saga = row.saga.0,
            saga.version = row.version,
            "a saga was begun by another version of the program; it waits for a worker of that version"
        );
        self.metrics.wallet_saga_unknown_versions_total.increment(1);
        let mut db = self.db.acquire("saga.park").await?;
        let pause = UNKNOWN_VERSION_PAUSE.as_secs_f64();
        sql::release(&mut db, row.saga, row.fence, pause, Some(&reason)).await?;
        Ok(())
    }

    /// Does the current step.
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
            done.next_state = Some(StepState::Running.name());
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
                let step = claim.step + 1;
                Ok(Next::Step(Box::new(Claim {
                    step,
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

    /// Undoes the current step.
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

    /// The outcome of the current call: what an operator has said, or else what the other system reports.
    async fn answer(&self, claim: &Claim) -> Result<Answer> {
        match claim.resolution.as_deref() {
            Some("done") => return Ok(Answer::Done(RawValue::NULL.to_owned())),
            Some(_) => {
                return Ok(Answer::Refused("an operator found that it was not done".to_owned()));
            }
            None => {}
        }
        let attempt =
            Attempt { number: claim.attempt, is_first: claim.is_first, is_late: claim.is_late };
        Ok(self.ask(&claim.call()?, attempt).await)
    }

    /// Books the current step together with a change of the saga.
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
            self.note_overtaken(claim);
        }
        Ok(booked)
    }

    async fn move_on(&self, change: &Move<'_>) -> Result<bool> {
        let mut db = self.db.acquire("saga.move").await?;
        sql::move_on(&mut db, change).await
    }

    /// Ends the saga with this change.
    fn end(&self, change: &mut Move<'_>) {
        if self.settings.notifies {
            (change.seconds, change.notification) = (Some(0.0), Some("due"));
        }
    }

    /// Begins to undo the steps that are done. With an answer of the other system, the current one is among them, though it
    /// is not booked.
    async fn give_up(
        &self,
        claim: &Claim,
        reason: &str,
        answer: Option<&RawValue>,
    ) -> Result<Next> {
        let step_state = if answer.is_some() { StepState::Waiting } else { StepState::Failed };
        let mut change = claim.to(SagaState::Compensating, step_state);
        change.undoing = true;
        change.reason = Some(claim.reason.as_deref().unwrap_or(reason));
        change.error = Some(reason);
        change.seconds = Some(0.0);
        change.result = answer;
        if answer.is_none() {
            change.next = i16::try_from(claim.step.saturating_sub(1)).ok();
        }
        self.count(claim, "refused");
        tracing::info!(
            event = "saga.compensating",
            saga = claim.id.0,
            saga_step = change.step_name,
            reason,
            "a step of a saga failed for good; the steps before it are undone"
        );
        self.change(claim, &change).await
    }

    async fn retry_later(&self, claim: &Claim, reason: &str) -> Result<Next> {
        let mut change = claim.to(claim.working_state(), claim.trying_state());
        change.error = Some(reason);
        change.seconds = Some(self.settings.backoff(claim.attempt).as_secs_f64());
        self.count(claim, "retry");
        self.change(claim, &change).await
    }

    async fn wait(&self, claim: &Claim, reason: &str, answer: Option<&RawValue>) -> Result<Next> {
        let step_state =
            if claim.action == StepAction::Do { StepState::Waiting } else { StepState::Undoing };
        let mut change = claim.to(claim.working_state(), step_state);
        change.error = Some(reason);
        change.reason = Some(claim.reason.as_deref().unwrap_or(reason));
        if claim.action == StepAction::Do {
            change.reason = Some(reason);
            change.result = answer;
        }
        change.seconds = Some(WAITING_PAUSE.as_secs_f64());
        self.count(claim, "waiting");
        self.change(claim, &change).await
    }

    async fn mark_unknown(&self, claim: &Claim, reason: &str) -> Result<Next> {
        let mut change = claim.to(SagaState::Unknown, StepState::Unknown);
        change.error = Some(reason);
        change.seconds = Some(self.settings.unknown_interval.as_secs_f64());
        self.count(claim, "unknown");
        tracing::warn!(
            event = "saga.unknown",
            saga = claim.id.0,
            saga_step = change.step_name,
            reason,
            "the outcome of a call is unknown; the money stays held, and the other system is asked again"
        );
        self.change(claim, &change).await
    }

    async fn mark_stuck(&self, claim: &Claim, reason: &str) -> Result<Next> {
        let step_state =
            if claim.action == StepAction::Do { StepState::Waiting } else { StepState::Undoing };
        let mut change = claim.to(SagaState::Stuck, step_state);
        change.error = Some(reason);
        change.reason = Some(claim.reason.as_deref().unwrap_or(reason));
        self.count(claim, "stuck");
        tracing::warn!(
            event = "saga.stuck",
            saga = claim.id.0,
            saga_step = change.step_name,
            reason,
            "a saga is stuck; retry, skip or abort it with `revwallet order`"
        );
        self.change(claim, &change).await
    }

    async fn change(&self, claim: &Claim, change: &Move<'_>) -> Result<Next> {
        if !self.move_on(change).await? {
            self.note_overtaken(claim);
        }
        Ok(Next::End)
    }

    fn note_overtaken(&self, claim: &Claim) {
        self.metrics.wallet_saga_claims_lost_total.increment(1);
        tracing::info!(
            event = "saga.claim_lost",
            saga = claim.id.0,
            "a worker was too slow: another one has claimed its saga; nothing was changed"
        );
    }

    fn count(&self, claim: &Claim, outcome: &'static str) {
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

    /// Tells the owner that the saga is over. A failure never ends the attempts.
    async fn notify(
        &self,
        row: ClaimedRow,
        definition: &'static Definition,
        state: SagaState,
    ) -> Result<()> {
        let input =
            RawValue::from_string(row.input).map_err(|cause| Error::Internal(cause.into()))?;
        let ended = Ended {
            saga: row.saga,
            owner: row.owner,
            kind: definition.kind,
            state,
            reason: row.reason.as_deref(),
            input: &input,
            reference: row.reference,
        };
        let sent = self.in_time(self.handler.notify(&ended)).await;
        let (outcome, pause) = match sent {
            Ok(()) => ("ok", None),
            Err(why) => {
                tracing::warn!(
                    event = "saga.notification_failed",
                    saga = row.saga.0,
                    error.message = why,
                    "a notification failed; it is retried"
                );
                let pause = self.settings.backoff_min
                    * 2_u32.pow(u32::from(row.notifications.clamp(0, 20).unsigned_abs()));
                ("failed", Some(pause.min(NOTIFICATION_PAUSE_MAX).as_secs_f64()))
            }
        };
        self.metrics.wallet_saga_notifications_total.with([outcome]).increment(1);
        let mut db = self.db.acquire("saga.notified").await?;
        sql::end_notification(&mut db, row.saga, row.fence, pause).await?;
        Ok(())
    }
}

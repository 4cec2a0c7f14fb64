//! Handling of steps that do not succeed: a worker records that the step is given up, retried, waiting or stuck, or
//! that its outcome is unknown; or the worker notices that it has lost its claim.

use std::time::Duration;

use serde_json::value::RawValue;

use super::Sagas;
use super::claim::Claim;
use super::handler::{SagaHandler, StepAction};
use super::sql::{self, ClaimedRow, Move};
use super::step_state::StepState;
use super::steps::Next;
use super::transitions::SagaState;
use crate::error::Result;

/// Pause after which a worker may again claim a saga whose version this program does not know.
const UNKNOWN_VERSION_PAUSE: Duration = Duration::from_secs(30);

/// Pause before a worker retries a step whose transfers the ledger refused, for example because of insufficient funds.
const WAITING_PAUSE: Duration = Duration::from_secs(1);

impl<H: SagaHandler> Sagas<H> {
    /// Releases a saga that this version of the program cannot run, so that a worker of another version can claim it.
    pub(super) async fn park(&self, row: &ClaimedRow) -> Result<()> {
        let reason = format!("version {} of {} is unknown to this program", row.version, row.kind);
        tracing::warn!(
            event = "saga.unknown_version",
            saga.version = row.version,
            "another version of the program began a saga; the saga is waiting for a worker of that version"
        );
        self.metrics.wallet_saga_unknown_versions_total.increment(1);
        let mut db = self.db.acquire("saga.park").await?;
        let pause = UNKNOWN_VERSION_PAUSE.as_secs_f64();
        sql::release(&mut db, row.saga, row.fence, pause, Some(&reason)).await?;
        Ok(())
    }

    /// Gives up the current step and begins to undo the steps before it. If `answer` shows that the call of the current
    /// step took effect, that step is undone too, although its transfers are not in the ledger.
    pub(super) async fn give_up(
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
            saga.step = change.step_name,
            reason,
            "a worker gave up on a step of a saga; undoing the steps that took effect"
        );
        self.change(&change).await
    }

    pub(super) async fn retry_later(&self, claim: &Claim, reason: &str) -> Result<Next> {
        let mut change = claim.to(claim.working_state(), claim.trying_state());
        change.error = Some(reason);
        change.seconds = Some(self.settings.backoff(claim.attempt).as_secs_f64());
        self.count(claim, "retry");
        self.change(&change).await
    }

    pub(super) async fn wait(
        &self,
        claim: &Claim,
        reason: &str,
        answer: Option<&RawValue>,
    ) -> Result<Next> {
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
        self.change(&change).await
    }

    pub(super) async fn mark_unknown(&self, claim: &Claim, reason: &str) -> Result<Next> {
        let mut change = claim.to(SagaState::Unknown, StepState::Unknown);
        change.error = Some(reason);
        change.seconds = Some(self.settings.unknown_interval.as_secs_f64());
        self.count(claim, "unknown");
        tracing::warn!(
            event = "saga.unknown",
            saga.step = change.step_name,
            reason,
            "the outcome of a call to an external system is unknown; the money stays held, and a worker will ask the system again"
        );
        self.change(&change).await
    }

    pub(super) async fn mark_stuck(&self, claim: &Claim, reason: &str) -> Result<Next> {
        let step_state =
            if claim.action == StepAction::Do { StepState::Waiting } else { StepState::Undoing };
        let mut change = claim.to(SagaState::Stuck, step_state);
        change.error = Some(reason);
        change.reason = Some(claim.reason.as_deref().unwrap_or(reason));
        self.count(claim, "stuck");
        tracing::warn!(
            event = "saga.stuck",
            saga.step = change.step_name,
            reason,
            "a saga is stuck; retry, skip or abort it with `revwallet order`"
        );
        self.change(&change).await
    }

    async fn change(&self, change: &Move<'_>) -> Result<Next> {
        if !self.move_on(change).await? {
            self.note_overtaken();
        }
        Ok(Next::End)
    }

    pub(super) fn note_overtaken(&self) {
        self.metrics.wallet_saga_claims_lost_total.increment(1);
        tracing::info!(
            event = "saga.claim_lost",
            "another worker or an operator took over a saga; this worker leaves the saga unchanged"
        );
    }
}

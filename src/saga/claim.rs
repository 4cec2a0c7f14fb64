//! A saga that this worker has claimed, with its current step.

use serde_json::value::RawValue;
use uuid::Uuid;

use super::definition::{Definition, StepDefinition};
use super::handler::{Call, StepAction};
use super::sql::{ClaimedRow, Move};
use super::step_state::StepState;
use super::transitions::SagaState;
use crate::error::{Error, Result};
use crate::ids::{SagaId, UserId};

/// A saga that this worker has claimed, with its current step.
#[derive(Debug)]
pub(super) struct Claim {
    pub id: SagaId,
    pub fence: i64,
    pub owner: UserId,
    pub trace: Option<Uuid>,
    pub reference: Uuid,
    pub definition: &'static Definition,
    pub state: SagaState,
    pub input: Box<RawValue>,
    pub is_late: bool,
    /// Reason for the state of the saga: for example, why it is waiting or being undone; `None` if there is none.
    pub reason: Option<String>,
    pub step: usize,
    pub action: StepAction,
    pub attempt: i32,
    /// Whether it is certain that no worker has sent the call of this step before.
    pub is_first: bool,
    pub round: i16,
    pub result: Option<Box<RawValue>>,
    pub is_booked: bool,
    pub resolution: Option<String>,
}

impl Claim {
    pub(super) fn from_row(row: ClaimedRow, definition: &'static Definition) -> Result<Self> {
        let raw = |text: String| {
            RawValue::from_string(text).map_err(|cause| Error::Internal(cause.into()))
        };
        let state: StepState = row.step_state.parse()?;
        let is_first = if row.undoing {
            matches!(state, StepState::Done | StepState::Waiting)
        } else {
            state == StepState::Ready
        };
        Ok(Self {
            id: row.saga,
            fence: row.fence,
            owner: row.owner,
            trace: row.trace,
            reference: row.reference,
            definition,
            state: row.state.parse()?,
            input: raw(row.input)?,
            is_late: row.is_late,
            reason: row.reason,
            step: usize::try_from(row.step).unwrap_or(usize::MAX),
            action: if row.undoing { StepAction::Undo } else { StepAction::Do },
            attempt: row.attempts,
            is_first,
            round: row.round,
            result: row.result.map(raw).transpose()?,
            is_booked: row.transfer.is_some(),
            resolution: row.resolution,
        })
    }

    pub(super) fn step(&self) -> Result<&'static StepDefinition> {
        self.definition.steps.get(self.step).ok_or_else(|| {
            Error::Internal(anyhow::anyhow!("saga {} is at step {}", self.id, self.step))
        })
    }

    pub(super) fn call(&self) -> Result<Call<'_>> {
        let step = self.step()?;
        let (action, round) = (self.action.name(), self.round);
        Ok(Call {
            saga: self.id,
            owner: self.owner,
            step,
            action: self.action,
            reference: format!("{}-{}-{action}-{round}", self.reference.simple(), step.name),
            input: &self.input,
            result: self.result.as_deref(),
            is_booked: self.is_booked,
            trace: self.trace,
        })
    }

    /// Returns the state of the saga while a worker runs its current step.
    pub(super) fn working_state(&self) -> SagaState {
        match self.action {
            StepAction::Do => SagaState::Processing,
            StepAction::Undo => SagaState::Compensating,
        }
    }

    /// Returns the state of the current step while a worker tries it.
    pub(super) fn trying_state(&self) -> StepState {
        match self.action {
            StepAction::Do => StepState::Running,
            StepAction::Undo => StepState::Undoing,
        }
    }

    /// Creates the change that moves the saga to `state`, and its current step to `step_state`. The caller fills in the
    /// other fields.
    pub(super) fn to(&self, state: SagaState, step_state: StepState) -> Move<'_> {
        debug_assert!(self.state.may_become(state), "{:?} to {state:?}", self.state);
        Move {
            saga: self.id,
            fence: self.fence,
            state: state.name(),
            undoing: self.action == StepAction::Undo,
            reason: self.reason.as_deref(),
            seconds: None,
            notification: None,
            step: i16::try_from(self.step).unwrap_or(i16::MAX),
            undid: self.action == StepAction::Undo,
            step_name: self.definition.steps.get(self.step).map_or("", |step| step.name),
            step_state: step_state.name(),
            error: None,
            result: None,
            first: None,
            next: None,
            next_name: None,
        }
    }
}

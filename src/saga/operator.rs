//! Commands with which operators control sagas: approve, retry, skip, abort and resolve.

use sqlx::PgConnection;

use super::sql::{self, LockedSaga, OperatorChange};
use super::step_state::StepState;
use super::transitions::SagaState;
use crate::error::{Error, ExchangeRefusal, Result};
use crate::ids::SagaId;

/// A command that an operator gives to a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SagaCommand {
    /// Starts a saga that is waiting for approval.
    Approve,
    /// Tries the current step, or its undo, again immediately.
    Retry,
    /// Skips the failed undo of a step, because the operator has undone the step by hand.
    Skip,
    /// Gives up a saga, so that its steps are undone. If the undo of a step has failed, skips that undo.
    Abort,
    /// Sets the outcome of a call, because the external system could not report it.
    Resolve { is_done: bool },
}

impl SagaCommand {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Retry => "retry",
            Self::Skip => "skip",
            Self::Abort => "abort",
            Self::Resolve { .. } => "resolve",
        }
    }
}

/// Applies a command to a saga in the caller's transaction. A worker that is running the saga loses its claim.
pub async fn command(
    db: &mut PgConnection,
    saga: SagaId,
    command: SagaCommand,
    reason: &str,
) -> Result<()> {
    let found = sql::lock(db, saga).await?.ok_or(Error::NotFound("order"))?;
    let state: SagaState = found.state.parse()?;
    let reason = format!("operator: {reason}");
    let change = plan(saga, &found, state, command, &reason)?;
    debug_assert!(state.may_become(change.state), "{state:?} to {:?}", change.state);
    sql::change(db, &change).await
}

/// Makes a worker retry the current step of a saga now, if the step is one of `steps` and an attempt has failed. If
/// `steps` is empty, makes a worker send the due notification of a saga that has ended. Returns false if the saga is at
/// another step or no notification is due.
pub async fn wake(db: &mut PgConnection, saga: SagaId, steps: &[&str]) -> Result<bool> {
    sql::wake(db, saga, steps).await
}

fn plan<'a>(
    saga: SagaId,
    found: &LockedSaga,
    state: SagaState,
    command: SagaCommand,
    reason: &'a str,
) -> Result<OperatorChange<'a>> {
    let refused = |why| Err(ExchangeRefusal::OrderFixed(why).into());
    let working = if found.undoing { SagaState::Compensating } else { SagaState::Processing };
    let base = OperatorChange {
        saga,
        state: working,
        undoing: found.undoing,
        // `None` keeps the reason why the saga is being undone.
        reason: None,
        ends: false,
        step: found.step,
        step_state: None,
        renews: false,
        resolution: None,
    };
    match (command, state) {
        (_, SagaState::Completed | SagaState::Failed) => refused("it is over"),
        (SagaCommand::Resolve { is_done }, _) if found.is_unknown => Ok(OperatorChange {
            resolution: Some(if is_done { "done" } else { "not-done" }),
            step_state: Some(trying(found).name()),
            ..base
        }),
        (SagaCommand::Resolve { .. }, _) => refused("its outcome is not unknown"),
        // The call may have taken effect, so any other command could pay twice.
        (_, SagaState::Unknown) => refused("its outcome is unknown: resolve it"),
        (SagaCommand::Approve, _) if found.approves => {
            Ok(OperatorChange { state: SagaState::Pending, ..base })
        }
        (SagaCommand::Approve, _) => refused("it does not wait for approval"),
        (SagaCommand::Retry, _) if found.approves => refused("it waits for approval"),
        (SagaCommand::Retry, SagaState::Stuck) if found.undoing => {
            Ok(OperatorChange { renews: true, step_state: Some(StepState::Done.name()), ..base })
        }
        (SagaCommand::Retry, _) => Ok(base),
        (SagaCommand::Skip | SagaCommand::Abort, SagaState::Stuck)
            if found.undoing && 0 < found.step =>
        {
            let step_state = Some(StepState::Skipped.name());
            Ok(OperatorChange { step: found.step - 1, step_state, ..base })
        }
        (SagaCommand::Skip, _) => refused("only the undo of a stuck order can be skipped"),
        (SagaCommand::Abort, SagaState::Stuck | SagaState::Compensating) => {
            refused("it can no longer be aborted")
        }
        (SagaCommand::Abort, _) => {
            // The deadline moves to now, so the worker gives up the step.
            Ok(OperatorChange { reason: Some(reason), ends: true, ..base })
        }
    }
}

/// Returns the state of the current step while a worker runs or undoes it.
fn trying(found: &LockedSaga) -> StepState {
    if found.undoing { StepState::Undoing } else { StepState::Running }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_saga_accepts_a_resolution_only() {
        let found = LockedSaga {
            state: "unknown".to_owned(),
            step: 1,
            undoing: false,
            approves: false,
            is_unknown: true,
        };
        for command in
            [SagaCommand::Approve, SagaCommand::Retry, SagaCommand::Skip, SagaCommand::Abort]
        {
            let planned = plan(SagaId(1), &found, SagaState::Unknown, command, "because");

            assert!(planned.is_err(), "{}", command.name());
        }
        let resolve = SagaCommand::Resolve { is_done: true };
        let planned = plan(SagaId(1), &found, SagaState::Unknown, resolve, "because").unwrap();

        assert_eq!((planned.state, planned.resolution), (SagaState::Processing, Some("done")));
    }
}

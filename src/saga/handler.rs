//! The interface to the slice whose sagas the engine runs.

use std::future::Future;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::definition::{Definition, StepDefinition};
use super::transitions::SagaState;
use crate::error::Result;
use crate::ids::{SagaId, TransferId, UserId};
use crate::ledger::companion::Companion;

/// Direction of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepAction {
    Do,
    Undo,
}

impl StepAction {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

/// A step to be done or undone.
#[derive(Debug)]
pub struct Call<'a> {
    pub saga: SagaId,
    pub owner: UserId,
    pub step: &'static StepDefinition,
    pub action: StepAction,
    /// Reference by which the other system identifies this call; the same in every attempt.
    pub reference: String,
    /// The facts that were given when the saga was created.
    pub input: &'a RawValue,
    /// For an undo: the answer of the other system to the step.
    pub result: Option<&'a RawValue>,
    /// For an undo: whether the step was booked.
    pub is_booked: bool,
    /// Trace of the request that began the saga.
    pub trace: Option<Uuid>,
}

/// Outcome of a call, as the other system reports it for a reference.
#[derive(Debug)]
pub enum CallOutcome {
    /// The call took effect, once.
    Done(Box<RawValue>),
    /// The call will never take effect.
    Refused(String),
    /// The call was accepted, and may yet take effect.
    Pending,
    /// The other system does not know the reference.
    Absent,
}

/// Outcome of booking a step.
#[derive(Debug)]
pub enum Booked {
    /// The posting of the step is in the book; `None` if there is no money to move.
    Done(Option<TransferId>),
    /// The step cannot be booked now, for this reason.
    Waiting(String),
    /// Another worker has claimed the saga meanwhile.
    Overtaken,
}

/// A saga that is over, for its notification.
#[derive(Debug)]
pub struct Ended<'a> {
    pub saga: SagaId,
    pub owner: UserId,
    pub state: SagaState,
    /// Reason that the saga failed.
    pub reason: Option<&'a str>,
    pub input: &'a RawValue,
    /// Identifies this notification; the same in every attempt.
    pub reference: Uuid,
}

/// Interface of a slice whose sagas the engine runs.
///
/// The other system must treat a reference as an idempotency key: however often and late a call arrives, it takes
/// effect at most once, and never after `cancel` was answered with [`CallOutcome::Refused`].
pub trait SagaHandler: Send + Sync + 'static {
    /// Every definition that sagas may still run under, including old versions.
    fn definitions() -> &'static [Definition];

    /// Asks the other system to make the call. The answer does not decide the outcome; `find` does.
    fn submit(&self, call: &Call<'_>) -> impl Future<Output = Result<()>> + Send;

    /// Asks the other system about the reference of the call. An error leaves the outcome open.
    fn find(&self, call: &Call<'_>) -> impl Future<Output = Result<CallOutcome>> + Send;

    /// Asks the other system to refuse the reference from now on, unless the call has taken effect.
    fn cancel(&self, call: &Call<'_>) -> impl Future<Output = Result<CallOutcome>> + Send;

    /// Books a step. `answer` is the answer of the other system, if the step calls a system. `settle` makes the
    /// companion of the posting from the index of the leg whose transfer is recorded for the step.
    fn book<'a>(
        &'a self,
        call: &'a Call<'_>,
        answer: Option<&'a RawValue>,
        settle: &'a (dyn Fn(usize) -> Result<Companion> + Sync),
    ) -> impl Future<Output = Result<Booked>> + Send + 'a;

    /// Tells the owner that the saga is over.
    fn notify(&self, ended: &Ended<'_>) -> impl Future<Output = Result<()>> + Send;
}

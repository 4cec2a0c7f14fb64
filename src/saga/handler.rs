//! The interface between the saga engine and the module whose sagas it runs, such as the exchange.

use std::future::Future;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::definition::{Definition, StepDefinition};
use super::transitions::SagaState;
use crate::error::Result;
use crate::ids::{SagaId, TransferId, UserId};
use crate::ledger::companion::Companion;

/// Whether a step is to be done, or to be undone after a failure.
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

/// A step of a saga that is to be done or undone, with the data that the handler needs.
#[derive(Debug)]
pub struct Call<'a> {
    pub saga: SagaId,
    pub owner: UserId,
    pub step: &'static StepDefinition,
    pub action: StepAction,
    /// Reference by which the external system identifies this call; the same in every attempt.
    pub reference: String,
    /// Data that the steps need, stored when the saga was created.
    pub input: &'a RawValue,
    /// For an undo: the result that the external system reported when the step was done.
    pub result: Option<&'a RawValue>,
    /// For an undo: whether the transfers of the step are in the ledger.
    pub is_booked: bool,
    /// Trace of the request that began the saga.
    pub trace: Option<Uuid>,
}

/// Outcome of a call, as the external system reports it when the engine asks for it.
#[derive(Debug)]
pub enum CallOutcome {
    /// The call took effect exactly once, with this result.
    Done(Box<RawValue>),
    /// The call will never take effect.
    Refused(String),
    /// The external system has accepted the call, which may still take effect.
    Pending,
    /// The external system does not know the reference, because the call has not arrived.
    Absent,
}

/// Outcome of writing the transfers of a step to the ledger.
#[derive(Debug)]
pub enum Booked {
    /// The ledger has recorded the step. Contains the transfer of the step, or `None` if the step moves no money.
    Done(Option<TransferId>),
    /// The ledger refused the transfers, but may accept them later. Contains the reason.
    Waiting(String),
    /// Another worker has claimed the saga in the meantime, so the ledger has changed nothing.
    Overtaken,
}

/// A saga that has ended, with the data for the notification of its owner.
#[derive(Debug)]
pub struct Ended<'a> {
    pub saga: SagaId,
    pub owner: UserId,
    pub state: SagaState,
    /// Reason why the saga failed.
    pub reason: Option<&'a str>,
    pub input: &'a RawValue,
    /// Identifier of this notification; the same in every attempt, so that the recipient can recognize a duplicate.
    pub reference: Uuid,
}

/// The calls and postings that a module implements so that the engine can run its sagas.
///
/// The external system must treat a reference as an idempotency key. However often and however late a call arrives, it
/// takes effect at most once, and never after the external system has responded to `cancel` with
/// [`CallOutcome::Refused`].
pub trait SagaHandler: Send + Sync + 'static {
    /// Returns every definition under which a saga may still be running, including old versions.
    fn definitions() -> &'static [Definition];

    /// Sends a call to an external system. The engine learns the outcome from `find`, not from the response.
    fn submit(&self, call: &Call<'_>) -> impl Future<Output = Result<()>> + Send;

    /// Asks the external system for the outcome of the call with this reference. After an error, the outcome is still
    /// unknown.
    fn find(&self, call: &Call<'_>) -> impl Future<Output = Result<CallOutcome>> + Send;

    /// Asks the external system to refuse the call from now on, unless the call has already taken effect.
    fn cancel(&self, call: &Call<'_>) -> impl Future<Output = Result<CallOutcome>> + Send;

    /// Writes the transfers of a step to the ledger, as a posting. `answer` is the result of the call, if the step
    /// calls an external system. The function `settle` creates the SQL statement that advances the saga in the same
    /// transaction as the posting. The argument of `settle` selects the movement of money (leg) that the saga records
    /// as the transfer of the step, by its index within the posting.
    fn book<'a>(
        &'a self,
        call: &'a Call<'_>,
        answer: Option<&'a RawValue>,
        settle: &'a (dyn Fn(usize) -> Result<Companion> + Sync),
    ) -> impl Future<Output = Result<Booked>> + Send + 'a;

    /// Notifies the owner that the saga has ended.
    fn notify(&self, ended: &Ended<'_>) -> impl Future<Output = Result<()>> + Send;
}

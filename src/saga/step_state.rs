//! States of a step of a saga.

use std::str::FromStr;

use crate::error::{Error, Result};

/// State of a step of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(as = SagaStepState, rename_all = "snake_case")]
pub enum StepState {
    /// The step is the next to run.
    Ready,
    /// A worker is running the step, and may have called an external system.
    Running,
    /// The ledger cannot record the step now, for example because of insufficient funds. A worker retries the step.
    Waiting,
    Unknown,
    Done,
    /// The step was given up and had no effect.
    Failed,
    /// A worker is undoing the step, and may have asked an external system to undo it.
    Undoing,
    Undone,
    /// An operator has undone the step by hand.
    Skipped,
}

impl StepState {
    const ALL: [Self; 9] = [
        Self::Ready,
        Self::Running,
        Self::Waiting,
        Self::Unknown,
        Self::Done,
        Self::Failed,
        Self::Undoing,
        Self::Undone,
        Self::Skipped,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Unknown => "unknown",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::Skipped => "skipped",
        }
    }
}

impl FromStr for StepState {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| Error::Internal(anyhow::anyhow!("unknown state of a step: {name}")))
    }
}

//! States of a step.

use std::str::FromStr;

use crate::error::{Error, Result};

/// State of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, utoipa::ToSchema)]
#[schema(as = SagaStepState, rename_all = "snake_case")]
pub enum StepState {
    /// It is next.
    Ready,
    /// A worker may have called the other system.
    Running,
    /// Its effect cannot be booked now.
    Waiting,
    Unknown,
    Done,
    /// It was given up without an effect.
    Failed,
    /// A worker may have asked the other system to undo it.
    Undoing,
    Undone,
    /// An operator has undone it by hand.
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

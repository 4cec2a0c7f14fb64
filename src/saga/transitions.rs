//! States of a saga, the transitions between them, and a diagram of the transitions.

use std::fmt::Write;
use std::str::FromStr;

use crate::error::{Error, Result};

/// State of a saga.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(rename_all = "snake_case")]
pub enum SagaState {
    /// No worker has claimed the saga yet, or the saga waits for an operator's approval.
    Pending,
    Processing,
    /// The saga was given up, and its steps are being undone.
    Compensating,
    /// The external system cannot say at present whether a call took effect. The money stays on hold.
    Unknown,
    /// An undo failed permanently, or a step that took effect cannot be recorded in the ledger. An operator must
    /// decide.
    Stuck,
    Completed,
    /// The saga failed, and all its effects were undone.
    Failed,
}

impl SagaState {
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Processing,
        Self::Compensating,
        Self::Unknown,
        Self::Stuck,
        Self::Completed,
        Self::Failed,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Compensating => "compensating",
            Self::Unknown => "unknown",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }

    /// Whether the saga has ended. Only the notification of its owner can still follow.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Completed | Self::Failed)
    }

    /// Whether `next` can follow this state, or is the same state.
    pub fn may_become(self, next: Self) -> bool {
        self == next || self.transitions().iter().any(|(state, _)| *state == next)
    }

    /// Returns the states that can follow this state, each with the event that leads to it.
    pub const fn transitions(self) -> &'static [(Self, &'static str)] {
        match self {
            Self::Pending => &[(
                Self::Processing,
                "a worker claims it, after the approval if one is required, or an operator aborts it",
            )],
            Self::Processing => &[
                (Self::Completed, "the last step is done"),
                (Self::Compensating, "a step fails permanently, or the deadline passes"),
                (Self::Unknown, "the outcome of a call cannot be learned"),
                (Self::Stuck, "a step that cannot be undone took effect but cannot be booked"),
            ],
            Self::Compensating => &[
                (Self::Failed, "the first step is undone"),
                (Self::Unknown, "the outcome of a call cannot be learned"),
                (Self::Stuck, "an undo fails permanently"),
            ],
            Self::Unknown => &[
                (Self::Processing, "the step turns out to be done, is tried again, or is resolved"),
                (Self::Completed, "the last step turns out to be done"),
                (Self::Compensating, "the step turns out to be refused, or its undo to be done"),
                (Self::Stuck, "the undo turns out to be refused"),
            ],
            Self::Stuck => &[
                (Self::Processing, "an operator retries the step"),
                (Self::Compensating, "an operator retries, skips or aborts it"),
            ],
            Self::Completed | Self::Failed => &[],
        }
    }
}

impl FromStr for SagaState {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| Error::Internal(anyhow::anyhow!("unknown state of a saga: {name}")))
    }
}

/// Renders the states of a saga and their transitions as a Mermaid diagram, followed by a table of the events.
pub fn mermaid() -> String {
    let mut picture = String::from("```mermaid\nstateDiagram-v2\n  [*] --> pending\n");
    let mut table = String::from("\n| from | to | when |\n|---|---|---|\n");
    for state in SagaState::ALL {
        for (next, event) in state.transitions() {
            let (from, to) = (state.name(), next.name());
            writeln!(picture, "  {from} --> {to}").expect("writing to a string never fails");
            writeln!(table, "| `{from}` | `{to}` | {event} |").expect("as above");
        }
        if state.is_over() {
            writeln!(picture, "  {} --> [*]", state.name()).expect("as above");
        }
    }
    picture + "```\n" + &table
}

//! Sagas: steps with effects in the book and in other systems, which run one after another. If a step fails permanently,
//! the steps before it are undone in reverse.
//!
//! | part | does |
//! |---|---|
//! | [`definition`] | the steps of a saga, by version |
//! | [`handler`] | what the slice above implements: the calls of a step, and the posting that books it |
//! | [`transitions`] | the states of a saga, their transitions, and the picture of them |
//! | [`step_state`] | the states of a step |
//! | [`worker`] | claims the sagas that are due, and runs each in a task of its own |
//! | [`claim`] | a claimed saga at its step |
//! | [`steps`] | one claimed saga: do, undo, book |
//! | [`setback`] | a step that is given up, tried again, waits, is unknown or stuck |
//! | [`notification`] | telling the owner that the saga is over |
//! | [`calls`] | calls to another system, whose outcome is found by the reference of the call |
//! | [`operator`] | retry, skip, abort, resolve, approve |
//!
//! The state of a saga, the record of its step and what is to run next commit together with the money of the step, as a
//! companion of its posting. A saga is claimed with a lease; each write names the fence of the claim, so a worker that
//! lost its lease changes nothing. Before a worker calls another system, the claim has recorded that the worker may do
//! so. Therefore the worker that claims the saga next asks that system first.

mod calls;
mod claim;
mod definition;
mod handler;
mod notification;
pub mod operator;
mod setback;
mod sql;
mod step_state;
mod steps;
mod transitions;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::combiner::Combiner;
use crate::db::Database;
use crate::error::Result;
use crate::ids::SagaId;
use crate::telemetry::Metrics;

pub use self::definition::{Definition, StepDefinition};
pub use self::handler::{Booked, Call, CallOutcome, Ended, SagaHandler, StepAction};
pub use self::sql::{MOVED, NewSaga, StepRow, steps as steps_of};
pub use self::step_state::StepState;
pub use self::transitions::{SagaState, mermaid};
pub use self::worker::start;

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct SagaSettings {
    /// Attempts at a call before it is given up, or its outcome counts as unknown.
    pub attempts_max: i32,
    /// First pause after a failed attempt; the pause doubles with each attempt.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Time between two questions about a call whose outcome is unknown.
    pub unknown_interval: Duration,
    /// Longest time that a call may take.
    pub call_timeout: Duration,
    /// Lease of a claim. A step that follows in the same claim may find only three quarters of it left, in which its
    /// calls must end.
    pub lease: Duration,
    /// Whether the owner is notified when a saga is over.
    pub notifies: bool,
}

impl SagaSettings {
    /// Pause after an attempt with this number.
    fn backoff(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt.clamp(1, 20) - 1).unwrap_or_default();
        (self.backoff_min * 2_u32.pow(doublings)).min(self.backoff_max)
    }
}

/// The engine of the sagas of one handler. Cheap to clone.
pub struct Sagas<H>(Arc<SagasParts<H>>);

pub struct SagasParts<H> {
    db: Database,
    handler: H,
    settings: SagaSettings,
    metrics: Arc<Metrics>,
    ids: Combiner<(), SagaId>,
    /// Wakes the worker after an attempt was delayed, because no event announces the delay.
    put_off: Notify,
}

impl<H> Clone for Sagas<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> std::ops::Deref for Sagas<H> {
    type Target = SagasParts<H>;

    fn deref(&self) -> &SagasParts<H> {
        &self.0
    }
}

impl<H: Send + Sync> Sagas<H> {
    /// Draws the id of a new saga. Concurrent callers share a query.
    pub async fn next_id(&self) -> Result<SagaId> {
        let draw = |callers: Vec<()>| async move {
            let mut db = self.db.acquire("saga.next_id").await?;
            let count = i32::try_from(callers.len()).unwrap_or(i32::MAX);
            Ok(sql::next_ids(&mut db, count).await?.into_iter().map(Ok).collect())
        };
        self.ids.run((), draw).await
    }
}

impl<H: SagaHandler> Sagas<H> {
    pub fn new(db: Database, handler: H, settings: SagaSettings, metrics: Arc<Metrics>) -> Self {
        for definition in H::definitions() {
            let saga = definition.kind;
            metrics.wallet_saga_started_total.preregister([saga]);
            for outcome in ["completed", "compensated"] {
                metrics.wallet_saga_finished_total.preregister([saga, outcome]);
            }
            for step in definition.steps {
                for outcome in ["done", "undone", "refused", "retry", "unknown", "waiting", "stuck"]
                {
                    metrics.wallet_saga_steps_total.preregister([saga, step.name, outcome]);
                }
            }
        }
        for outcome in ["ok", "failed"] {
            metrics.wallet_saga_notifications_total.preregister([outcome]);
        }
        Self(Arc::new(SagasParts {
            db,
            handler,
            settings,
            metrics,
            ids: Combiner::default(),
            put_off: Notify::default(),
        }))
    }
}

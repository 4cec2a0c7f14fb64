//! Sagas: sequences of steps that move money in the ledger or call external systems. If a step fails permanently, the
//! engine undoes the earlier steps in reverse order.
//!
//! | part | does |
//! |---|---|
//! | [`definition`] | the steps of a saga, by version |
//! | [`handler`] | the interface that a module implements: the calls of a step, and its ledger posting |
//! | [`transitions`] | the states of a saga, their transitions, and a diagram of them |
//! | [`step_state`] | the states of a step |
//! | [`worker`] | claims the sagas that are due, and runs each in its own task |
//! | [`claim`] | a saga that a worker has claimed, with its current step |
//! | [`steps`] | runs a claimed saga: does or undoes its steps, and writes them to the ledger |
//! | [`setback`] | records that a step is given up, retried, waiting or stuck, or that its outcome is unknown |
//! | [`notification`] | notifies the owner of a saga that the saga has ended |
//! | [`calls`] | makes calls to external systems, and asks for their outcomes |
//! | [`operator`] | commands of operators: approve, retry, skip, abort and resolve |
//!
//! A single transaction writes the transfers of a step, the result of the step, and the new state of the saga. A worker
//! claims a saga with a lease and a fencing token. Each write includes the token, so a worker that has lost its lease
//! changes nothing. Before a worker calls an external system, the database records that the call may have been made. If
//! the worker then dies, the next worker asks the external system for the outcome before it calls again.

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

/// Settings of the saga engine.
#[derive(Debug, Clone)]
pub struct SagaSettings {
    /// Maximum number of attempts at a call. If all fail, the engine gives up the call or treats its outcome as
    /// unknown.
    pub attempts_max: i32,
    /// Pause after the first failed attempt at a step; the pause doubles with each attempt.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Interval at which the engine asks the external system about a call whose outcome is unknown.
    pub unknown_interval: Duration,
    /// Longest time that a call to an external system may take.
    pub call_timeout: Duration,
    /// Time for which a worker holds a claimed saga. When a worker begins the next step under the same claim, a quarter
    /// of this time may have passed, so the calls of that step must end within three quarters of this time.
    pub lease: Duration,
    /// Whether the owner is notified when a saga has ended.
    pub notifies: bool,
}

impl SagaSettings {
    /// Returns the pause after the failed attempt with this number.
    fn backoff(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt.clamp(1, 20) - 1).unwrap_or_default();
        (self.backoff_min * 2_u32.pow(doublings)).min(self.backoff_max)
    }
}

/// The engine that runs the sagas of a module; `H` is the module's handler. Cheap to clone.
pub struct Sagas<H>(Arc<SagasParts<H>>);

pub struct SagasParts<H> {
    db: Database,
    handler: H,
    settings: SagaSettings,
    metrics: Arc<Metrics>,
    ids: Combiner<(), SagaId>,
    /// Wakes the worker when an attempt has been postponed, so that the worker learns the new due time. No database
    /// event announces this time.
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
    /// Reserves the id of a new saga. Concurrent callers share a database query.
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

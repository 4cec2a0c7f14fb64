//! Operations: health checks, metrics, runbooks, the receiver of Alertmanager's notifications, and the canary.

pub mod alertmanager;
pub mod canary;
pub mod health;
pub mod health_client;
pub mod runbooks;
pub mod status;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use self::alertmanager::Watchdog;
use crate::db::Database;
use crate::ledger::Ledger;
use crate::telemetry::{Exposition, Metrics};

/// State that the handlers of the internal routes share. Cheap to clone.
#[derive(Clone)]
pub struct Ops(Arc<OpsParts>);

struct OpsParts {
    db: Database,
    ledger: Ledger,
    exposition: Exposition,
    watchdog: Arc<Watchdog>,
    metrics: Arc<Metrics>,
    /// Token that is canceled when the program begins to shut down.
    stopping: CancellationToken,
}

impl Ops {
    pub fn new(
        db: Database,
        ledger: Ledger,
        metrics: Arc<Metrics>,
        exposition: Exposition,
        stopping: CancellationToken,
    ) -> Self {
        let watchdog = Arc::default();
        Self(Arc::new(OpsParts { db, ledger, exposition, watchdog, metrics, stopping }))
    }

    pub fn watchdog(&self) -> &Arc<Watchdog> {
        &self.0.watchdog
    }

    /// Updates the histograms of all metrics, and the gauges of the readiness checks. Must be called regularly:
    /// Prometheus scrapes and orchestrator probes do the same work, but may be too infrequent.
    pub async fn upkeep(&self) {
        self.0.exposition.upkeep();
        self.failed_checks().await;
    }
}

//! The health service of gRPC, which reports "serving" while `/readyz` would report that the server is ready.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::MESSAGE_BYTES_MAX;

/// Interval between two checks.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Names whose health is reported: the whole server, and the wallet service.
const SERVICES: [&str; 2] = ["", "revwallet.v1.WalletService"];

/// The health service. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
}

impl Default for Health {
    fn default() -> Self {
        Self { reporter: HealthReporter::new() }
    }
}

impl Health {
    pub(super) fn service(&self) -> HealthServer<HealthService> {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        HealthServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    async fn set(&self, is_ready: bool) {
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in SERVICES {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Runs `check` at every interval and reports changes of the result. Shutdown is reported at once.
    pub async fn follow<F>(self, check: impl Fn() -> F, stopping: CancellationToken)
    where
        F: Future<Output = bool>,
    {
        let mut was_ready = None;
        while let Some(is_ready) = stopping.run_until_cancelled(check()).await {
            // Only changes are reported, because each report is sent to the clients that watch.
            if was_ready.replace(is_ready) != Some(is_ready) {
                self.set(is_ready).await;
            }
            let pause = tokio::time::sleep(CHECK_INTERVAL);
            if stopping.run_until_cancelled(pause).await.is_none() {
                break;
            }
        }
        self.set(false).await;
    }
}

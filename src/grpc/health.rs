//! The gRPC health service, which reports "serving" as long as `/readyz` reports that the server is ready.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::MESSAGE_BYTES_MAX;

/// Interval at which the server checks whether it is ready.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Names of the services whose health a client can ask for. The empty name stands for the whole server.
const SERVICES: [&str; 2] = ["", "revwallet.v1.WalletService"];

/// The gRPC health service of this server. Cheap to clone.
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

    /// Runs `check` every few seconds to find out whether the server is ready, and reports each change to clients.
    /// Reports "not serving" as soon as `stopping` is canceled.
    pub async fn follow<F>(self, check: impl Fn() -> F, stopping: CancellationToken)
    where
        F: Future<Output = bool>,
    {
        let mut was_ready = None;
        while let Some(is_ready) = stopping.run_until_cancelled(check()).await {
            // Only changes are reported, because each report is sent to every client that watches the service.
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

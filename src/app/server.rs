//! The running server: starts all parts in the order of their dependencies, and shuts them down in reverse.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tracing::{info, warn};

use super::config::{Config, ProcessPart};
use super::state::App;
use super::{router, worker};
use crate::audit_log;
use crate::db::Database;
use crate::grpc;
use crate::http::CorsOrigins;
use crate::http::listener::{self, Listener};
use crate::http::middleware::{PipelineOptions, RequestPipeline};
use crate::http::rpc::RpcMethods;
use crate::jobs;
use crate::ledger;
use crate::ops::alertmanager;
use crate::tasks::{FirstFailure, Tasks};
use crate::telemetry::{Metrics, UPKEEP_INTERVAL};

/// Maximum number of concurrent requests on the internal listener, which serves probes, metrics scrapers, operators,
/// and other processes of the program.
const INTERNAL_REQUESTS_MAX: usize = 256;

/// A running server.
pub struct Running {
    /// Address of the public listener; `None` in a process that only runs the worker.
    pub address: Option<SocketAddr>,
    pub internal_address: SocketAddr,
    app: App,
    config: Config,
    failure: FirstFailure,
    /// Tasks of the listeners and connections. They stop first.
    edge: Tasks,
    /// Tasks that accepted requests rely on. They stop second.
    core: Tasks,
    /// The supervisor of the embedded Postgres, which stops last.
    base: Tasks,
}

impl App {
    /// Starts every part of the program, and returns when the server accepts requests.
    pub async fn start(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Running> {
        // The listeners are bound first. If another server already uses a port, this process fails before it changes
        // the database.
        let mut socket = None;
        if config.lifecycle.runs(ProcessPart::Api) {
            socket = Some(listener::bind("--listen", config.http.listen).await?);
        }
        let internal = listener::bind("--internal-listen", config.http.internal_listen).await?;
        preregister(metrics);
        let db = open_database(config, metrics).await?;
        let failure = FirstFailure::default();
        let core = Tasks::new(failure.clone());
        let app = match Self::open(config, &db, address_of(&internal)?, &core, metrics).await {
            Ok(app) => app,
            Err(cause) => {
                db.close().await;
                return Err(cause);
            }
        };
        let running = Running {
            address: socket.as_ref().map(address_of).transpose()?,
            internal_address: address_of(&internal)?,
            config: config.clone(),
            edge: Tasks::new(failure.clone()),
            core,
            base: Tasks::new(failure.clone()),
            failure,
            app,
        };
        running.supervise_database();
        running.watch_replica();
        running.keep_metrics();
        running.watch_alertmanager();
        running.report_health();
        if config.lifecycle.runs(ProcessPart::Worker) {
            worker::start(&running.app, config, &running.core);
        }
        if let Some(socket) = socket {
            running.listen("public", socket, router::public(running.app.clone())?);
        }
        running.listen("internal", internal, router::internal(running.app.clone()));
        running.log_addresses();
        Ok(running)
    }
}

/// Connects to the database of the server. Creates and migrates the database; with `--no-migrate`, requires the current
/// schema instead of migrating.
async fn open_database(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Database> {
    if !config.database.no_migrate {
        return migrate_database(config, metrics).await;
    }
    let db = Database::open(&config.database, &config.embedded, metrics).await?;
    let checked = db.require_current().await;
    closed_on_failure(db, checked).await
}

/// Connects to the database and migrates it. Creates the embedded database if it does not exist yet.
pub async fn migrate_database(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Database> {
    let db = Database::open(&config.database, &config.embedded, metrics).await?;
    let migrated = db.migrate(jobs::migrate).await;
    closed_on_failure(db, migrated).await
}

/// Connects to an existing database, and returns an error if its schema is not current. Never creates or migrates a
/// database.
pub async fn open_existing_database(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Database> {
    let db = Database::open_existing(&config.database, &config.embedded, metrics).await?;
    let checked = db.require_current().await;
    closed_on_failure(db, checked).await
}

async fn closed_on_failure(db: Database, outcome: anyhow::Result<()>) -> anyhow::Result<Database> {
    match outcome {
        Ok(()) => Ok(db),
        Err(cause) => {
            db.close().await;
            Err(cause)
        }
    }
}

impl Running {
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Waits for the first task that ends unexpectedly, and returns the name of the task.
    pub async fn failed(&self) -> &'static str {
        self.failure.wait().await
    }

    /// Stops accepting connections, waits for open requests, then stops all other tasks and closes the database.
    /// Returns whether the requests and tasks ended in time.
    pub async fn stop(self) -> bool {
        let Self { app, config, edge, core, base, .. } = self;
        let limit = config.lifecycle.shutdown_timeout;
        app.stopping.cancel();
        app.metrics.wallet_shutdown_state.set(1.0);
        tokio::time::sleep(config.lifecycle.shutdown_delay).await;
        let drained = edge.stop(limit).await;
        app.metrics.wallet_shutdown_state.set(2.0);
        let done = core.stop(limit).await;
        if !drained || !done {
            warn!(
                event = "serve.cut_off",
                "the shutdown canceled the work that did not end within {} s",
                limit.as_secs()
            );
        }
        base.stop(Duration::from_secs(1)).await;
        app.db.close().await;
        info!(event = "serve.stopped", "the server has stopped");
        drained && done
    }

    /// Logs the addresses of the listeners. With the embedded database, also logs which pages to open, to help
    /// first-time users.
    fn log_addresses(&self) {
        let internal = self.internal_address;
        if let Some(address) = self.address {
            info!(
                event = "serve.listening",
                address = %address,
                internal_address = %internal,
                "listening on http://{address} (internal: http://{internal})"
            );
            if self.app.db.embedded().is_some() {
                info!("open http://{address}/ for the wallets, http://{address}/docs for the API");
            }
        } else {
            info!(
                event = "serve.listening",
                internal_address = %internal,
                "worker started (internal: http://{internal})"
            );
        }
    }

    fn listen(&self, name: &'static str, socket: TcpListener, router: Router) {
        let http = &self.config.http;
        // Probes succeed every few seconds, so the internal listener logs no successful requests.
        let (requests_max, log_success_ratio, cors_origins, rpc_methods) = match name {
            "internal" => {
                let methods = RpcMethods::new(ledger::INTERNAL_METHODS.map(str::to_owned));
                (INTERNAL_REQUESTS_MAX, 0.0, CorsOrigins::default(), methods)
            }
            _ => (
                http.http_requests_max,
                self.config.telemetry.log_success_ratio,
                http.cors_origins.clone(),
                grpc::methods(),
            ),
        };
        let options = PipelineOptions {
            requests_max,
            timeout: http.http_timeout,
            cors_origins,
            money: http.money,
            log_success_ratio,
            rpc_methods,
        };
        let metrics = Arc::clone(&self.app.metrics);
        let trusted = self.config.access.trusted_proxies.clone();
        let listener = Listener {
            name,
            socket,
            pipeline: Arc::new(RequestPipeline::new(router, &options, metrics)),
            connections_max: http.http_connections_max,
            connections_per_address: http.http_connections_per_address,
            is_trusted: Box::new(move |address| trusted.contain(address.to_canonical())),
            header_timeout: http.http_header_timeout,
        };
        self.edge.spawn(name, listener.run(self.edge.clone()));
    }

    fn supervise_database(&self) {
        let Some(embedded) = self.app.db.embedded().cloned() else { return };
        let stopping = self.base.stopping().clone();
        self.base.spawn("embedded-postgres", async move {
            embedded.supervise(stopping).await;
            Ok(())
        });
    }

    fn watch_replica(&self) {
        let (db, stopping) = (self.app.db.clone(), self.core.stopping().clone());
        self.core.spawn_short_lived(async move { db.watch_replica(stopping).await });
    }

    fn watch_alertmanager(&self) {
        let stopping = self.core.stopping().clone();
        self.core.spawn("watchdog", Arc::clone(self.app.ops.watchdog()).watch(stopping));
    }

    fn report_health(&self) {
        let (health, ops) = (self.app.rpc_health.clone(), self.app.ops.clone());
        let (stopping, ends) = (self.app.stopping.clone(), self.core.stopping().clone());
        self.core.spawn("grpc-health", async move {
            let check = || {
                let ops = ops.clone();
                async move { ops.is_ready().await }
            };
            health.follow(check, stopping).await;
            // The health service stops early in a shutdown. This task waits until `core` stops, because a task that
            // ends earlier counts as a failure.
            ends.cancelled().await;
            Ok(())
        });
    }

    fn keep_metrics(&self) {
        let (ops, stopping) = (self.app.ops.clone(), self.core.stopping().clone());
        self.core.spawn("metrics", async move {
            while stopping.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some()
            {
                ops.upkeep().await;
            }
            Ok(())
        });
    }
}

fn address_of(socket: &TcpListener) -> anyhow::Result<SocketAddr> {
    socket.local_addr().context("cannot read the address of the socket")
}

/// Sets the build info metric, and registers counters with the value zero. Otherwise a counter would be missing from
/// the metrics until its first event.
fn preregister(metrics: &Metrics) {
    let labels = [env!("CARGO_PKG_VERSION"), env!("REVWALLET_REVISION"), env!("REVWALLET_RUSTC")];
    metrics.wallet_build_info.with(labels).set(1.0);
    audit_log::preregister(metrics);
    alertmanager::preregister(metrics);
    for place in ["http", "process"] {
        metrics.wallet_panics_total.preregister([place]);
    }
    for reason in ["load_shed", "timeout", "body_limit", "client_gone", "malformed"] {
        metrics.wallet_http_rejected_total.preregister([reason]);
    }
    for outcome in ["pushed", "lost"] {
        metrics.wallet_loki_lines_total.preregister([outcome]);
    }
    for level in ["error", "warn", "info"] {
        metrics.wallet_log_events_total.preregister([level]);
    }
}

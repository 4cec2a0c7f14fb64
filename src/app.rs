//! The program put together: every part is made here, in the order in which it depends on others.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, Part};
use crate::db::Database;
use crate::http::auth::{Access, Policy, TrustedProxies};
use crate::http::edge::Edge;
use crate::http::heard::{self, Watchdog};
use crate::http::serve::{self, Listener};
use crate::http::{self, health};
use crate::keys::Keys;
use crate::ledger::tail::{self, Tail};
use crate::ledger::{self, Failpoints, Ledger};
use crate::tasks::{Died, Tasks};
use crate::telemetry::{Exposition, Metrics, UPKEEP_INTERVAL};
use crate::trail;
use crate::users::Users;
use crate::wallet::{self, Wallets};
use crate::webhook::Webhooks;
use crate::work;

/// Requests on the internal listener at once: probes, one scraper, an operator.
const INTERNAL_REQUESTS_MAX: usize = 64;

/// What handlers reach: a cheap handle.
#[derive(Clone)]
pub struct App(Arc<Parts>);

pub struct Parts {
    pub db: Database,
    pub wallets: Wallets,
    pub tail: Tail,
    pub webhooks: Webhooks,
    pub users: Users,
    pub keys: Keys,
    pub policy: Policy,
    pub trusted_proxies: TrustedProxies,
    pub watchdog: Arc<Watchdog>,
    pub metrics: Arc<Metrics>,
    pub exposition: Exposition,
    /// Cancelled when the program begins to stop.
    pub stopping: CancellationToken,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// A program that serves.
pub struct Running {
    /// None where only the work behind the API is done.
    pub address: Option<SocketAddr>,
    pub internal_address: SocketAddr,
    app: App,
    config: Config,
    died: Died,
    /// Listeners and connections: they stop first.
    edge: Tasks,
    /// What does the work that the edge has promised: stops second.
    core: Tasks,
    /// The embedded server's keeper: stops last.
    base: Tasks,
}

impl App {
    /// Starts everything; returns when the program can be used.
    pub async fn start(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Running> {
        // The addresses come first: a second program on the same port should not touch the data.
        let mut socket = None;
        if config.lifecycle.does(Part::Api) {
            socket = Some(serve::bind("--listen", config.http.listen).await?);
        }
        let internal = serve::bind("--internal-listen", config.http.internal_listen).await?;
        describe_build(metrics);
        let db = Database::open(config, metrics).await?;
        if let Err(cause) = db.migrate(&config.database).await {
            db.close().await;
            return Err(cause);
        }
        let died = Died::default();
        let core = Tasks::new(died.clone());
        let app = match Self::open(config, &db, &core, metrics).await {
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
            edge: Tasks::new(died.clone()),
            core,
            base: Tasks::new(died.clone()),
            died,
            app,
        };
        running.keep_database();
        running.keep_metrics();
        running.mind_watchdog();
        if config.lifecycle.does(Part::Worker) {
            work::start(&running.app, config, &running.core);
        }
        if let Some(socket) = socket {
            running.listen("public", socket, http::public(running.app.clone()));
        }
        running.listen("internal", internal, http::internal(running.app.clone()));
        running.tell_where();
        Ok(running)
    }

    /// Makes every part, and starts those that work by themselves.
    async fn open(
        config: &Config,
        db: &Database,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let default = if db.embedded().is_some() { Access::Open } else { Access::Closed };
        let policy = Policy::new(&config.access, default);
        if policy.access == Access::Open {
            warn!(
                event = "serve.open",
                "access is open: whoever reaches the port may use wallets that belong to no user; --access closed asks for credentials"
            );
        }
        let users = Users::open(db, &config.users, metrics).await?;
        let wallets = open_book(config, db, tasks, metrics).await?;
        let tail = follow_book(config, db, tasks, metrics);
        let webhooks = Webhooks::new(
            db.clone(),
            wallets.clone(),
            policy,
            &config.webhook,
            Arc::clone(metrics),
        )?;
        Ok(Self(Arc::new(Parts {
            wallets,
            tail,
            webhooks,
            users,
            keys: Keys::new(db.clone(), Arc::clone(metrics)),
            policy,
            watchdog: Arc::default(),
            trusted_proxies: config.access.trusted_proxies.clone(),
            exposition: Exposition::new(Arc::clone(metrics)),
            metrics: Arc::clone(metrics),
            stopping: CancellationToken::new(),
            db: db.clone(),
        })))
    }
}

impl Running {
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Waits until a task that should not end has ended.
    pub async fn died(&self) -> &'static str {
        self.died.wait().await
    }

    /// Stops accepting, lets what was begun end, stops the rest. Says whether all ended in time.
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
            warn!(event = "serve.cut_off", "some work did not end within {} s", limit.as_secs());
        }
        base.stop(Duration::from_secs(1)).await;
        app.db.close().await;
        info!(event = "serve.stopped", "stopped");
        drained && done
    }

    fn tell_where(&self) {
        let internal = self.internal_address;
        if let Some(address) = self.address {
            info!(
                event = "serve.listening",
                address = %address,
                internal_address = %internal,
                "listening on http://{address} (internal: http://{internal})"
            );
        } else {
            info!(
                event = "serve.listening",
                internal_address = %internal,
                "working (internal: http://{internal})"
            );
        }
    }

    fn listen(&self, name: &'static str, socket: TcpListener, router: Router) {
        let http = &self.config.http;
        // A probe every few seconds that succeeds is not news.
        let (requests_max, log_success_ratio) = match name {
            "internal" => (INTERNAL_REQUESTS_MAX, 0.0),
            _ => (http.http_requests_max, self.config.telemetry.log_success_ratio),
        };
        let edge = Edge {
            router,
            metrics: Arc::clone(&self.app.metrics),
            admission: Semaphore::new(requests_max),
            timeout: http.http_timeout,
            log_success_ratio,
        };
        let listener = Listener {
            name,
            socket,
            edge: Arc::new(edge),
            connections_max: http.http_connections_max,
            header_timeout: http.http_header_timeout,
        };
        self.edge.spawn(name, listener.run(self.edge.clone()));
    }

    fn keep_database(&self) {
        let Some(embedded) = self.app.db.embedded().cloned() else { return };
        let stopping = self.base.stopping().clone();
        self.base.spawn("embedded-postgres", async move {
            embedded.supervise(stopping).await;
            Ok(())
        });
    }

    fn mind_watchdog(&self) {
        let stopping = self.core.stopping().clone();
        self.core.spawn("watchdog", Arc::clone(&self.app.watchdog).mind(stopping));
    }

    fn keep_metrics(&self) {
        let (app, stopping) = (self.app.clone(), self.core.stopping().clone());
        self.core.spawn("metrics", async move {
            while stopping.run_until_cancelled(tokio::time::sleep(UPKEEP_INTERVAL)).await.is_some()
            {
                app.exposition.upkeep();
                health::failures(&app).await;
            }
            Ok(())
        });
    }
}

async fn open_book(
    config: &Config,
    db: &Database,
    tasks: &Tasks,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Wallets> {
    let options = ledger::Options {
        database: db.pipelined().clone(),
        pool: db.pool().clone(),
        settings: config.ledger.settings(),
        rules: config.ledger.rules()?,
        companions: wallet::COMPANIONS.to_vec(),
        failpoints: Failpoints::default(),
        metrics: Arc::clone(metrics),
    };
    let ledger = Ledger::start(options, tasks).await?;
    Ok(Wallets::new(ledger, db.clone(), config.ledger.currencies()?, Arc::clone(metrics)))
}

fn follow_book(config: &Config, db: &Database, tasks: &Tasks, metrics: &Arc<Metrics>) -> Tail {
    let book = config.ledger.settings().book;
    let options = tail::Options {
        pool: db.pool().clone(),
        listener: db.options().clone(),
        book,
        metrics: Arc::clone(metrics),
    };
    Tail::start(options, tasks)
}

fn address_of(socket: &TcpListener) -> anyhow::Result<SocketAddr> {
    socket.local_addr().context("the socket was just bound")
}

fn describe_build(metrics: &Metrics) {
    let labels = [env!("CARGO_PKG_VERSION"), env!("REVWALLET_REVISION"), env!("REVWALLET_RUSTC")];
    metrics.wallet_build_info.with(labels).set(1.0);
    trail::announce(metrics);
    heard::announce(metrics);
    for place in ["http", "process"] {
        metrics.wallet_panics_total.announce([place]);
    }
    for reason in ["load_shed", "timeout", "body_limit", "client_gone"] {
        metrics.wallet_http_rejected_total.announce([reason]);
    }
    for outcome in ["pushed", "lost"] {
        metrics.wallet_loki_lines_total.announce([outcome]);
    }
    for level in ["error", "warn", "info"] {
        metrics.wallet_log_events_total.announce([level]);
    }
}

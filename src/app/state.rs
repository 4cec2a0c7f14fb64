//! The state that all routes share. Each module takes its own part of the state through `FromRef`.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::FromRef;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::config::{Config, ProcessPart};
use crate::api_keys::{self, ApiKeys};
use crate::audit_log::AuditLog;
use crate::auth::{Access, Authenticate, Authenticator, Caller, Policy, TrustedProxies};
use crate::db::Database;
use crate::error::Result;
use crate::exchange::feed::OrderTopics;
use crate::exchange::{self, Exchange};
use crate::games::import::GameImporter;
use crate::games::{self, Games};
use crate::grpc;
use crate::ledger::tail::{Tail, TailOptions};
use crate::ledger::{Candidacy, Failpoints, Ledger, LedgerOptions, currency_store};
use crate::ops::Ops;
use crate::play;
use crate::play::events::GameEvents;
use crate::play::feed::Players;
use crate::play::leaderboards::{self, Leaderboards};
use crate::realtime::feed::Feed;
use crate::realtime::{Realtime, RealtimeOptions, sockets_runtime};
use crate::secret::Secret;
use crate::tasks::Tasks;
use crate::telemetry::{Exposition, Metrics};
use crate::users::Users;
use crate::wallet::{self, Wallets};
use crate::webhook::Webhooks;

/// State of all parts of the program. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<AppParts>);

pub struct AppParts {
    pub db: Database,
    pub wallets: Wallets,
    pub tail: Tail,
    pub webhooks: Webhooks,
    pub leaderboards: Leaderboards,
    pub games: Games,
    pub exchange: Exchange,
    pub users: Users,
    pub api_keys: ApiKeys,
    pub audit_log: AuditLog,
    pub authenticator: Authenticator,
    pub trusted_proxies: TrustedProxies,
    pub players: Players,
    pub game_events: GameEvents,
    pub realtime: Realtime,
    pub ops: Ops,
    pub rpc_health: grpc::Health,
    pub metrics: Arc<Metrics>,
    /// Token that is canceled when the program begins to shut down.
    pub stopping: CancellationToken,
}

impl Deref for App {
    type Target = AppParts;

    fn deref(&self) -> &AppParts {
        &self.0
    }
}

macro_rules! from_app {
    ($($part:ty: $field:ident),+ $(,)?) => {
        $(impl FromRef<App> for $part {
            fn from_ref(app: &App) -> Self {
                app.$field.clone()
            }
        })+
    };
}

from_app! {
    Wallets: wallets,
    Webhooks: webhooks,
    Leaderboards: leaderboards,
    Games: games,
    Exchange: exchange,
    Users: users,
    ApiKeys: api_keys,
    AuditLog: audit_log,
    Authenticator: authenticator,
    TrustedProxies: trusted_proxies,
    GameEvents: game_events,
    Realtime: realtime,
    Ops: ops,
}

impl App {
    /// Creates every part of the program, and starts the ledger writer and the tasks that pass new transfers and events
    /// to other modules.
    pub async fn open(
        config: &Config,
        db: &Database,
        internal_address: SocketAddr,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let policy = policy(config, db);
        let users = Users::open(db, &config.users, policy, metrics).await?;
        let api_keys = ApiKeys::new(db.clone(), Arc::clone(metrics));
        let has_api = config.lifecycle.runs(ProcessPart::Api);
        let stopping = CancellationToken::new();
        let candidacy = config.ledger.candidacy(internal_address, has_api, &stopping);
        let wallets = open_book(config, db, candidacy, tasks, metrics).await?;
        let tail = follow_ledger(db, wallets.ledger().books(), tasks, metrics);
        let webhooks = Webhooks::new(
            db.clone(),
            wallets.clone(),
            policy,
            &config.webhook,
            Arc::clone(metrics),
        )?;
        let leaderboards =
            Leaderboards::start(db.clone(), wallets.clone(), policy, Arc::clone(metrics), tasks);
        let games =
            Games::new(db.clone(), wallets.clone(), &tail, &config.games, Arc::clone(metrics))?;
        let exchange =
            Exchange::new(db.clone(), wallets.clone(), &config.exchange, Arc::clone(metrics))?;
        let credentials = Credentials { users: users.clone(), api_keys: api_keys.clone(), policy };
        let authenticator = Authenticator::new(Arc::new(credentials), policy);
        let players = Players::new(db.clone(), policy.access);
        let options = RealtimeOptions {
            tail: &tail,
            feeds: feeds(db, &wallets, &players),
            authenticator: authenticator.clone(),
            args: &config.realtime,
            cors_origins: config.http.cors_origins.clone(),
            metrics,
        };
        let realtime = Realtime::start(options, tasks);
        let ledger = wallets.ledger().clone();
        let runtimes = [("main", Handle::current()), ("sockets", sockets_runtime().clone())];
        let exposition = Exposition::new(Arc::clone(metrics), runtimes);
        let ops = Ops::new(db.clone(), ledger, Arc::clone(metrics), exposition, stopping.clone());
        Ok(Self(Arc::new(AppParts {
            wallets,
            tail,
            webhooks,
            leaderboards,
            games,
            exchange,
            users,
            api_keys,
            audit_log: AuditLog::new(db.clone()),
            authenticator,
            players,
            game_events: GameEvents::new(db.clone()),
            realtime,
            trusted_proxies: config.access.trusted_proxies.clone(),
            ops,
            rpc_health: grpc::Health::default(),
            metrics: Arc::clone(metrics),
            stopping,
            db: db.clone(),
        })))
    }
}

/// Checks a credential: either a user's token or an API key.
struct Credentials {
    users: Users,
    api_keys: ApiKeys,
    policy: Policy,
}

impl Authenticate for Credentials {
    fn authenticate<'a>(&'a self, credential: &'a Secret) -> BoxFuture<'a, Result<Caller>> {
        self.identify(credential, None).boxed()
    }

    fn confirm<'a>(
        &'a self,
        credential: &'a Secret,
        not_before: Instant,
    ) -> BoxFuture<'a, Result<Caller>> {
        self.identify(credential, Some(not_before)).boxed()
    }
}

impl Credentials {
    async fn identify(&self, credential: &Secret, not_before: Option<Instant>) -> Result<Caller> {
        if api_keys::is_key(credential) {
            let (id, grant) = self.api_keys.identify(credential, not_before).await?;
            return Ok(Caller::api_key(id, grant, self.policy));
        }
        Ok(Caller::user(self.users.identify(credential).await?, self.policy))
    }
}

fn policy(config: &Config, db: &Database) -> Policy {
    let default = if db.embedded().is_some() { Access::Open } else { Access::Closed };
    let policy = Policy::new(&config.access, default);
    // No warning if only this machine can connect: open access is meant for trying out the program.
    if policy.access == Access::Open && !config.http.listen.ip().is_loopback() {
        warn!(
            event = "serve.open",
            "access is open: any client that reaches the port may use wallets that belong to no user; --access closed requires credentials"
        );
    }
    policy
}

/// Opens only the leaderboards, for a command-line command. The command runs its own ledger writer.
pub async fn open_leaderboards(
    config: &Config,
    db: &Database,
    tasks: &Tasks,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Leaderboards> {
    let wallets = open_book(config, db, None, tasks, metrics).await?;
    let default = if db.embedded().is_some() { Access::Open } else { Access::Closed };
    let policy = Policy::new(&config.access, default);
    Ok(Leaderboards::start(db.clone(), wallets, policy, Arc::clone(metrics), tasks))
}

/// Opens only the exchange, for a command-line command. The command runs its own ledger writer.
pub async fn open_exchange(
    config: &Config,
    db: &Database,
    tasks: &Tasks,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Exchange> {
    let wallets = open_book(config, db, None, tasks, metrics).await?;
    Exchange::new(db.clone(), wallets, &config.exchange, Arc::clone(metrics))
}

/// Returns the feeds of all modules. A feed defines topics that clients can subscribe to, and supplies their events.
fn feeds(db: &Database, wallets: &Wallets, players: &Players) -> Vec<Arc<dyn Feed>> {
    let mut feeds = play::feed::feeds(wallets, players);
    feeds.push(Arc::new(OrderTopics(db.clone())));
    feeds
}

/// Opens only the game importer, for a command-line command.
pub async fn open_game_importer(config: &Config, db: &Database) -> anyhow::Result<GameImporter> {
    let currencies = currency_store::load(db, &config.ledger.currency).await?;
    let default_currency = config.wallet.default_currency(&currencies)?;
    Ok(GameImporter::new(db.clone(), currencies, default_currency))
}

async fn open_book(
    config: &Config,
    db: &Database,
    candidacy: Option<Candidacy>,
    tasks: &Tasks,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Wallets> {
    let currencies = currency_store::load(db, &config.ledger.currency).await?;
    let default_currency = config.wallet.default_currency(&currencies)?;
    let options = LedgerOptions {
        database: db.pipelined().clone(),
        pool: db.pool().clone(),
        settings: config.ledger.settings(db.pool()).await?,
        rules: config.ledger.rules(currencies.clone()),
        companions: [
            &wallet::COMPANIONS as &[_],
            &leaderboards::COMPANIONS,
            &games::COMPANIONS,
            &exchange::COMPANIONS,
        ]
        .concat(),
        candidacy,
        failpoints: Failpoints::default(),
        metrics: Arc::clone(metrics),
    };
    let ledger = Ledger::start(options, tasks).await?;
    let grafana_url = config.telemetry.grafana_url.clone();
    let (db, metrics) = (db.clone(), Arc::clone(metrics));
    Ok(Wallets::new(ledger, db, currencies, default_currency, grafana_url, metrics))
}

fn follow_ledger(db: &Database, books: i32, tasks: &Tasks, metrics: &Arc<Metrics>) -> Tail {
    let options = TailOptions {
        pool: db.pool().clone(),
        listener: db.options().clone(),
        books,
        metrics: Arc::clone(metrics),
    };
    Tail::start(options, tasks)
}

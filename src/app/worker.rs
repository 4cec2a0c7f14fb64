//! Background work that no request waits for, such as webhook deliveries and the expiry of holds.
//!
//! Any number of processes may run the background work. Each work item is done once, by the process that claims it
//! first.

use std::time::Duration;

use super::config::Config;
use super::state::App;
use crate::games::publisher;
use crate::jobs::{self, Registry};
use crate::ledger::{auditor, partition};
use crate::ops::canary;
use crate::play::leaderboards;
use crate::tasks::Tasks;
use crate::wallet::hold;
use crate::webhook::{self, DeliverWebhook};
use crate::{play, realtime, saga};

/// Starts every background task. The tasks end when `tasks` stops.
pub(super) fn start(app: &App, config: &Config, tasks: &Tasks) {
    let stopping = tasks.stopping();
    auditor::start(&app.tail, &app.metrics, tasks);
    let (pool, metrics) = (app.tail.pool().clone(), app.metrics.clone());
    let rows = config.ledger.ledger_partition_rows;
    tasks.spawn("partitions", partition::run(pool, rows, metrics, stopping.clone()));
    webhook::fan_out::start(&app.tail, &app.webhooks, tasks);
    tasks.spawn("webhook-log", webhook::retention::run(app.webhooks.clone(), stopping.clone()));
    leaderboards::season::start(app.leaderboards.clone(), tasks);
    leaderboards::balances::start(&app.tail, tasks);
    start_jobs(app, config.lifecycle.shutdown_timeout / 2, tasks);
    tasks.spawn("hold-expiry", hold::expiry::run(app.wallets.clone(), stopping.clone()));
    tasks.spawn("users", app.users.clone().run_upkeep(stopping.clone()));
    play::leader::start(&app.tail, &app.wallets, &app.players, tasks);
    let (tail, retention) = (app.tail.clone(), config.realtime.event_retention);
    tasks.spawn("events", realtime::retention::run(tail, retention, stopping.clone()));
    let events = app.game_events.clone();
    tasks.spawn("event-keys", play::events::retention::run(events, stopping.clone()));
    let games = app.games.clone();
    tasks.spawn("publisher-debts", publisher::debt::run(games, stopping.clone()));
    saga::start(app.exchange.sagas(), &app.tail, tasks);
    let exchange = app.exchange.clone();
    tasks.spawn("hot-wallets", exchange.run_upkeep(stopping.clone()));
    canary::start(&config.canary, &app.metrics, tasks);
}

/// Starts the job queue, and registers a handler for each kind of job.
fn start_jobs(app: &App, grace: Duration, tasks: &Tasks) {
    let registry =
        Registry::new().job::<DeliverWebhook>(DeliverWebhook::QUEUE).context(app.webhooks.clone());
    let registry = leaderboards::jobs::register(registry, app.leaderboards.clone());
    jobs::start(app.db.options(), registry, &app.metrics, tasks, grace);
}

//! The work behind the API: what nobody waits for, done by every process that is not told to serve only.
//!
//! Any number of processes may do it: each piece is done once, by whoever comes first.

use crate::app::App;
use crate::config::Config;
use crate::jobs;
use crate::ledger::audit;
use crate::probe;
use crate::tasks::Tasks;
use crate::wallet::hold;
use crate::webhook;

/// Works until the tasks stop.
pub fn start(app: &App, config: &Config, tasks: &Tasks) {
    let stopping = tasks.stopping();
    audit::start(&app.tail, config.ledger.settings().book, &app.metrics, tasks);
    webhook::feed::start(&app.tail, app.webhooks.clone(), tasks);
    tasks.spawn("webhook-log", webhook::keep::run(app.webhooks.clone(), stopping.clone()));
    let grace = config.lifecycle.shutdown_timeout / 2;
    jobs::start(app.db.options(), app.webhooks.clone(), &app.metrics, tasks, grace);
    tasks.spawn("hold-expiry", hold::expiry::run(app.wallets.clone(), stopping.clone()));
    tasks.spawn("users", app.users.clone().keep(stopping.clone()));
    probe::start(&config.probe, &app.metrics, tasks);
}

//! The whole configuration. Every module declares its own settings; this file combines them.

use std::time::Duration;

use crate::auth::AccessArgs;
use crate::db::DatabaseArgs;
use crate::db::embedded::EmbeddedArgs;
use crate::exchange::ExchangeArgs;
use crate::games::GamesArgs;
use crate::http::HttpArgs;
use crate::ledger::LedgerArgs;
use crate::ops::canary::CanaryArgs;
use crate::realtime::RealtimeArgs;
use crate::settings;
use crate::telemetry::TelemetryArgs;
use crate::users::UsersArgs;
use crate::wallet::WalletArgs;
use crate::webhook::WebhookArgs;

/// Every setting of the program, one group per module.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    #[command(flatten)]
    pub http: HttpArgs,
    #[command(flatten)]
    pub database: DatabaseArgs,
    #[command(flatten)]
    pub embedded: EmbeddedArgs,
    #[command(flatten)]
    pub ledger: LedgerArgs,
    #[command(flatten)]
    pub wallet: WalletArgs,
    #[command(flatten)]
    pub access: AccessArgs,
    #[command(flatten)]
    pub users: UsersArgs,
    #[command(flatten)]
    pub webhook: WebhookArgs,
    #[command(flatten)]
    pub games: GamesArgs,
    #[command(flatten)]
    pub exchange: ExchangeArgs,
    #[command(flatten)]
    pub realtime: RealtimeArgs,
    #[command(flatten)]
    pub canary: CanaryArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    #[command(flatten)]
    pub lifecycle: LifecycleArgs,
}

/// Part of the program: the API or the worker. A process runs either a single part or both parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ProcessPart {
    /// Serves the API.
    Api,
    /// Runs background work: webhooks, the auditor, the expiry of holds.
    Worker,
}

/// Settings for the parts and the threads that a process runs, and for its shutdown.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Lifecycle")]
pub struct LifecycleArgs {
    /// Run only this part of the program, so that API and worker can scale separately [default: both].
    #[arg(long, env = "REVWALLET_ONLY", global = true)]
    pub only: Option<ProcessPart>,
    /// Number of threads that serve requests and run background work [default: half of the cores]. WebSocket connections
    /// and password hashes have threads of their own.
    #[arg(long, env = "REVWALLET_THREADS", global = true, value_parser = settings::threads())]
    pub threads: Option<usize>,
    /// Longest time that shutdown waits for open requests and queued work after SIGTERM or SIGINT.
    #[arg(long, env = "REVWALLET_SHUTDOWN_TIMEOUT", global = true, default_value = "25s", value_parser = settings::duration)]
    pub shutdown_timeout: Duration,
    /// Time for which the program still accepts requests after SIGTERM, while `/readyz` already responds with 503.
    #[arg(long, env = "REVWALLET_SHUTDOWN_DELAY", global = true, default_value = "0s", value_parser = settings::duration)]
    pub shutdown_delay: Duration,
}

impl LifecycleArgs {
    /// Number of threads that serve requests and run background work.
    pub fn thread_count(&self) -> usize {
        self.threads.unwrap_or_else(settings::half_of_the_cores)
    }

    /// Whether this process runs the given part of the program.
    pub fn runs(&self, part: ProcessPart) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

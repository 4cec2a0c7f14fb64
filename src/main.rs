//! The program: runs the command of the command line; an error is one sentence on standard error.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, CommandFactory, Parser};
use indicatif::ProgressBar;
use revwallet::api_keys::{self, ApiKeys};
use revwallet::app::config::Config;
use revwallet::app::server::open_database;
use revwallet::app::signals::Signals;
use revwallet::app::{
    App, after_restore, open_exchange, open_game_importer, open_leaderboards, router,
};
use revwallet::audit_log::{self, AuditLog};
use revwallet::cli::{Cli, Command};
use revwallet::db::Database;
use revwallet::exchange::{self, Exchange};
use revwallet::games::{self, cli::GameCommand};
use revwallet::ledger::verify::{self, Anchor};
use revwallet::ops::health_client;
use revwallet::play::leaderboards::{self, cli::PrizeAccountCommand};
use revwallet::tasks::Tasks;
use revwallet::telemetry::Telemetry;
use revwallet::users;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit code for an invalid command line.
const USAGE: u8 = 2;

/// Exit code for every other failure.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(invalid) if invalid.use_stderr() => return fail(USAGE, &usage_error(&invalid)),
        Err(help) => help.exit(),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => fail(FAILURE, &format!("{cause:#}")),
    }
}

fn fail(code: u8, sentence: &str) -> ExitCode {
    // Standard error may be closed, and then there is no other place to report to.
    let _ignored = writeln!(std::io::stderr(), "revwallet: {sentence}");
    ExitCode::from(code)
}

/// The error of the command line in one sentence, without secret values; clap would write a paragraph.
fn usage_error(invalid: &clap::Error) -> String {
    let mut text = invalid.to_string();
    if let Some(ContextValue::String(argument)) = invalid.get(ContextKind::InvalidArg)
        && let Some(ContextValue::String(value)) = invalid.get(ContextKind::InvalidValue)
        && is_secret(argument)
    {
        text = text.replace(&format!(" '{value}'"), "");
    }
    let line = text.lines().next().unwrap_or_default();
    format!(
        "{}; `revwallet --help` lists commands and settings",
        line.trim_start_matches("error: ")
    )
}

/// Whether the value of an argument is secret. `argument` is written as clap does: `--name <NAME>`.
fn is_secret(argument: &str) -> bool {
    let name = argument.split(' ').next().unwrap_or_default().trim_start_matches('-');
    let command = Cli::command();
    let known = command.get_arguments().find(|known| known.get_long() == Some(name));
    known.is_none_or(Arg::is_hide_env_values_set)
}

#[tokio::main]
async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(cli.config).await,
        Command::Migrate => migrate(cli.config).await,
        Command::Verify { anchor } => verify(cli.config, anchor).await,
        Command::ApiKey(command) => {
            with_database(&cli.config, async |db, telemetry| {
                let keys = ApiKeys::new(db.clone(), Arc::clone(&telemetry.metrics));
                api_keys::cli::run(&keys, command).await
            })
            .await
        }
        Command::User(command) => {
            with_database(&cli.config, async |db, telemetry| {
                users::cli::run_user(db, &telemetry.metrics, command).await
            })
            .await
        }
        Command::Jwt(command) => {
            with_database(&cli.config, async |db, telemetry| {
                users::cli::run_jwt(db, &telemetry.metrics, &cli.config.users, &command).await
            })
            .await
        }
        Command::Game(command) => game(&cli.config, command).await,
        Command::PrizeAccount(command) => prize_account(cli.config, command).await,
        Command::Order(command) => {
            with_exchange(cli.config, async |exchange| {
                exchange::cli::run_order(exchange, command).await
            })
            .await
        }
        Command::Exchange(command) => {
            with_exchange(cli.config, async |exchange| {
                exchange::cli::run_exchange(exchange, command).await
            })
            .await
        }
        Command::Audit(args) => {
            with_database(&cli.config, async |db, _| {
                audit_log::cli::print(&AuditLog::new(db.clone()), &args).await
            })
            .await
        }
        Command::Health => health_client::health(cli.config.http.internal_listen).await,
        Command::Restored => {
            with_database(&cli.config, async |db, telemetry| {
                after_restore::run(db, &telemetry.metrics).await
            })
            .await
        }
        Command::Openapi => print_openapi(&cli.config),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = Telemetry::install(&config.telemetry)?;
    let outcome = serve_until_signal(&config, &telemetry).await;
    tokio::task::spawn_blocking(|| drop(telemetry)).await?;
    outcome
}

/// Serves until a signal arrives or a task fails, then shuts down.
async fn serve_until_signal(config: &Config, telemetry: &Telemetry) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let running = tokio::select! {
        running = App::start(config, &telemetry.metrics) => running?,
        _ = signals.next() => return Ok(()),
    };
    let failed = tokio::select! {
        _ = signals.next() => None,
        name = running.failed() => Some(name),
    };
    tokio::select! {
        in_time = running.stop() => match (in_time, failed) {
            (_, Some(name)) => anyhow::bail!("the task `{name}` ended unexpectedly; the log has the cause"),
            (false, None) => anyhow::bail!("shutdown did not finish in time; raise --shutdown-timeout"),
            (true, None) => Ok(()),
        },
        _ = signals.next() => anyhow::bail!("stopped immediately on a second signal"),
    }
}

async fn migrate(config: Config) -> anyhow::Result<()> {
    with_database(&config, async |_, _| Ok(())).await
}

/// Runs a short command on a migrated database.
async fn with_database(
    config: &Config,
    work: impl AsyncFnOnce(&Database, &Telemetry) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let telemetry = Telemetry::install(&config.telemetry)?;
    let db = open_database(config, &telemetry.metrics).await?;
    let outcome = work(&db, &telemetry).await;
    db.close().await;
    outcome
}

/// Runs a command on the prize accounts, with a writer of its own: any process may write to the book.
async fn prize_account(config: Config, command: PrizeAccountCommand) -> anyhow::Result<()> {
    with_database(&config, async |db, telemetry| {
        let tasks = Tasks::default();
        let leaderboards = open_leaderboards(&config, db, &tasks, &telemetry.metrics).await?;
        let outcome = leaderboards::cli::run(&leaderboards, command).await;
        let is_stopped = tasks.stop(config.lifecycle.shutdown_timeout).await;
        anyhow::ensure!(is_stopped, "the writer of the ledger did not stop in time");
        outcome
    })
    .await
}

/// Runs a command on the exchange, with a writer of its own.
async fn with_exchange(
    config: Config,
    command: impl AsyncFnOnce(&Exchange) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_database(&config, async |db, telemetry| {
        let tasks = Tasks::default();
        let exchange = open_exchange(&config, db, &tasks, &telemetry.metrics).await?;
        let outcome = command(&exchange).await;
        let is_stopped = tasks.stop(config.lifecycle.shutdown_timeout).await;
        anyhow::ensure!(is_stopped, "the writer of the ledger did not stop in time");
        outcome
    })
    .await
}

/// Runs a command on the catalog until a signal arrives; what was committed by then stays.
async fn game(config: &Config, command: GameCommand) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    with_database(config, async |db, _| {
        let importer = open_game_importer(config, db).await?;
        tokio::select! {
            outcome = games::cli::run(&importer, command) => outcome,
            name = signals.next() => {
                anyhow::bail!("interrupted by {name}; import the file again to continue")
            }
        }
    })
    .await
}

async fn verify(config: Config, anchor: Option<Anchor>) -> anyhow::Result<()> {
    let telemetry = Telemetry::install(&config.telemetry)?;
    let db = Database::open(&config.database, &config.embedded, &telemetry.metrics).await?;
    let bar = ProgressBar::new(0);
    let report = verify::run_on(&db, anchor.as_ref(), |reached, end| {
        bar.set_length(end.unsigned_abs());
        bar.set_position(reached.unsigned_abs());
    });
    let report = report.await;
    bar.finish_and_clear();
    db.close().await;
    let report = report?;
    writeln!(std::io::stdout(), "{report}").context("cannot write the report")?;
    match report.faults.first() {
        None => Ok(()),
        Some(fault) => anyhow::bail!("the book has faults, the first one is: {fault}"),
    }
}

fn print_openapi(config: &Config) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&router::document(config.http.money))?;
    writeln!(std::io::stdout(), "{text}").context("cannot write the document")
}

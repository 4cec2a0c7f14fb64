//! Entry point of the program: runs the command that the command line names, and prints the cause to standard error if
//! the command fails.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, CommandFactory, Parser};
use indicatif::ProgressBar;
use revwallet::api_keys::{self, ApiKeys};
use revwallet::app::config::Config;
use revwallet::app::server::{migrate_database, open_existing_database};
use revwallet::app::signals::Signals;
use revwallet::app::{
    App, after_restore, open_exchange, open_game_importer, open_leaderboards, router,
};
use revwallet::audit_log::{self, AuditLog};
use revwallet::cli::{Cli, Command};
use revwallet::client;
use revwallet::db::Database;
use revwallet::exchange::{self, Exchange};
use revwallet::games::{self, cli::GameCommand};
use revwallet::ledger::partition;
use revwallet::ledger::verify::{self, Anchor};
use revwallet::ops::health_client;
use revwallet::output::{OutputArgs, print_text};
use revwallet::play::leaderboards::{self, cli::PrizeAccountCommand};
use revwallet::tasks::Tasks;
use revwallet::telemetry::{LogStream, Metrics, Telemetry};
use revwallet::users;
use tokio::runtime::Builder;

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
    // If standard error is closed, there is no other place to report the failure, so the write error is ignored.
    let _ignored = writeln!(std::io::stderr(), "revwallet: {sentence}");
    ExitCode::from(code)
}

/// Returns clap's complete message about an invalid command line, with the values of secret arguments removed.
fn usage_error(invalid: &clap::Error) -> String {
    let mut text = invalid.render().to_string();
    if let Some(ContextValue::String(argument)) = invalid.get(ContextKind::InvalidArg)
        && let Some(ContextValue::String(value)) = invalid.get(ContextKind::InvalidValue)
        && is_secret(argument)
    {
        text = text.replace(&format!(" '{value}'"), "");
    }
    text.trim_start_matches("error: ").trim_end().to_owned()
}

/// Returns whether the value of a command-line argument is secret, and so must not be printed. `argument` is in clap's
/// notation, `--name <NAME>`. An unknown argument counts as secret, because its name may be the misspelled name of a
/// secret argument.
fn is_secret(argument: &str) -> bool {
    let is_named = |known: &&Arg| known.to_string() == argument;
    let mut program = Cli::command();
    // clap prints an argument in full, with its value name, only after the command is built.
    program.build();
    let mut commands = vec![&program];
    let mut is_known = false;
    while let Some(command) = commands.pop() {
        let mut arguments = command.get_arguments().filter(is_named).peekable();
        is_known |= arguments.peek().is_some();
        if arguments.any(Arg::is_hide_env_values_set) {
            return true;
        }
        commands.extend(command.get_subcommands());
    }
    !is_known
}

/// Runs the command on as many threads as the settings say.
fn run(cli: Cli) -> anyhow::Result<()> {
    let threads = cli.config.lifecycle.thread_count();
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    runtime.context("cannot start threads")?.block_on(execute(cli))
}

async fn execute(cli: Cli) -> anyhow::Result<()> {
    let Cli { command, output, config } = cli;
    match command.unwrap_or(Command::Serve) {
        Command::Serve => serve(config).await,
        Command::Migrate { citus: false } => migrate(config).await,
        Command::Migrate { citus: true } => {
            with_database(&config, async |db, _| db.distribute().await).await
        }
        Command::Verify { anchor } => verify(config, anchor, output).await,
        Command::Partition(command) => {
            with_database(&config, async |db, _| partition::cli::run(db, command, output).await)
                .await
        }
        Command::ApiKey(command) => {
            with_database(&config, async |db, metrics| {
                let keys = ApiKeys::new(db.clone(), Arc::clone(metrics));
                api_keys::cli::run(&keys, command, output).await
            })
            .await
        }
        Command::User(command) => {
            with_database(&config, async |db, metrics| {
                users::cli::run_user(db, metrics, command, output).await
            })
            .await
        }
        Command::Jwt(command) => {
            with_database(&config, async |db, metrics| {
                users::cli::run_jwt(db, metrics, &config.users, &command, output).await
            })
            .await
        }
        Command::Game(command) => game(&config, command, output).await,
        Command::PrizeAccount(command) => prize_account(config, command, output).await,
        Command::Order(command) => {
            with_exchange(config, async |exchange| {
                exchange::cli::run_order(exchange, command, output).await
            })
            .await
        }
        Command::Exchange(command) => {
            with_exchange(config, async |exchange| {
                exchange::cli::run_exchange(exchange, command, output).await
            })
            .await
        }
        Command::Audit(args) => {
            with_database(&config, async |db, _| {
                audit_log::cli::print(&AuditLog::new(db.clone()), &args, output).await
            })
            .await
        }
        Command::Wallet(args) => client::run_wallet(args, output).await,
        Command::Transfer(args) => client::run_transfer(args, output).await,
        Command::Webhook(args) => client::run_webhook(args, output).await,
        Command::Health => health_client::health(config.http.internal_listen, output).await,
        Command::Restored => {
            with_database(&config, async |db, metrics| {
                after_restore::run(db, metrics, output).await
            })
            .await
        }
        Command::Openapi => print_text(&openapi(&config)?),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = Telemetry::install(&config.telemetry, LogStream::Stdout)?;
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
    let telemetry = Telemetry::install(&config.telemetry, LogStream::Stderr)?;
    migrate_database(&config, &telemetry.metrics).await?.close().await;
    Ok(())
}

/// Connects to the database, runs a command on it, and closes the connections. The server or `revwallet migrate` must
/// have created and migrated the database before.
async fn with_database(
    config: &Config,
    work: impl AsyncFnOnce(&Database, &Arc<Metrics>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let telemetry = Telemetry::install(&config.telemetry, LogStream::Stderr)?;
    let db = open_existing_database(config, &telemetry.metrics).await?;
    let outcome = work(&db, &telemetry.metrics).await;
    db.close().await;
    outcome
}

/// Runs a command on the prize accounts. The command starts its own ledger writer, which is safe even while servers
/// write to the same ledger.
async fn prize_account(
    config: Config,
    command: PrizeAccountCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    with_database(&config, async |db, metrics| {
        let tasks = Tasks::default();
        let leaderboards = open_leaderboards(&config, db, &tasks, metrics).await?;
        let outcome = leaderboards::cli::run(&leaderboards, command, output).await;
        let is_stopped = tasks.stop(config.lifecycle.shutdown_timeout).await;
        anyhow::ensure!(is_stopped, "the ledger writer did not stop in time");
        outcome
    })
    .await
}

/// Runs a command on the exchange. The command starts its own ledger writer, which is safe even while servers write to
/// the same ledger.
async fn with_exchange(
    config: Config,
    command: impl AsyncFnOnce(&Exchange) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    with_database(&config, async |db, metrics| {
        let tasks = Tasks::default();
        let exchange = open_exchange(&config, db, &tasks, metrics).await?;
        let outcome = command(&exchange).await;
        let is_stopped = tasks.stop(config.lifecycle.shutdown_timeout).await;
        anyhow::ensure!(is_stopped, "the ledger writer did not stop in time");
        outcome
    })
    .await
}

/// Runs a command on the catalog of games until the command ends or a signal interrupts it. An interrupted import keeps
/// the changes that it has already committed.
async fn game(config: &Config, command: GameCommand, output: OutputArgs) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    with_database(config, async |db, _| {
        let importer = open_game_importer(config, db).await?;
        tokio::select! {
            outcome = games::cli::run(&importer, command, output) => outcome,
            name = signals.next() => {
                anyhow::bail!("interrupted by {name}; import the file again to continue")
            }
        }
    })
    .await
}

async fn verify(config: Config, anchors: Vec<Anchor>, output: OutputArgs) -> anyhow::Result<()> {
    let telemetry = Telemetry::install(&config.telemetry, LogStream::Stderr)?;
    let (database, metrics) = (&config.database, &telemetry.metrics);
    let db = Database::open_existing(database, &config.embedded, metrics).await?;
    let bar = ProgressBar::new(0);
    let report = verify::run_on(&db, anchors, |reached, end| {
        bar.set_length(end.unsigned_abs());
        bar.set_position(reached.unsigned_abs());
    });
    let report = report.await;
    bar.finish_and_clear();
    db.close().await;
    let report = report?;
    output.print(&report, Ok, |report| Ok(report.to_string()))?;
    match report.faults.first() {
        None => Ok(()),
        Some(fault) => anyhow::bail!("the ledger has faults; the first fault is: {fault}"),
    }
}

fn openapi(config: &Config) -> anyhow::Result<String> {
    let document = serde_json::to_string_pretty(&router::document(config.http.money));
    Ok(document?)
}

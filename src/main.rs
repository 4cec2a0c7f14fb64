//! The program: reads the command line, does one of its commands, says in one sentence what failed.

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
use revwallet::app::{App, after_restore, router};
use revwallet::audit_log::{self, AuditLog};
use revwallet::bench::BenchArgs;
use revwallet::cli::{Cli, Command};
use revwallet::db::Database;
use revwallet::ledger::verify::{self, Anchor};
use revwallet::ops::health_client;
use revwallet::telemetry::Telemetry;
use revwallet::users;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The command line cannot be used.
const USAGE: u8 = 2;
/// Anything else.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(unusable) if unusable.use_stderr() => return fail(USAGE, &first_line(&unusable)),
        Err(help) => help.exit(),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => fail(FAILURE, &format!("{cause:#}")),
    }
}

fn fail(code: u8, sentence: &str) -> ExitCode {
    // Standard error may be closed; there is nobody left to tell then.
    let _unread = writeln!(std::io::stderr(), "revwallet: {sentence}");
    ExitCode::from(code)
}

/// One sentence, where clap would write a paragraph.
fn first_line(unusable: &clap::Error) -> String {
    let mut text = unusable.to_string();
    if let Some(ContextValue::String(argument)) = unusable.get(ContextKind::InvalidArg)
        && let Some(ContextValue::String(value)) = unusable.get(ContextKind::InvalidValue)
        && is_secret(argument)
    {
        text = text.replace(&format!(" '{value}'"), "");
    }
    let line = text.lines().next().unwrap_or_default();
    format!("{}; `revwallet --help` lists what there is", line.trim_start_matches("error: "))
}

/// Whether what was given for it is nobody's business: `argument` is as clap writes it, `--name <NAME>`.
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
        Command::Bench(args) => Box::pin(bench(args, cli.config)).await,
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
        Command::Openapi => print_openapi(),
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let telemetry = Telemetry::install(&config.telemetry)?;
    let outcome = serve_until_told(&config, &telemetry).await;
    tokio::task::spawn_blocking(|| drop(telemetry)).await?;
    outcome
}

async fn serve_until_told(config: &Config, telemetry: &Telemetry) -> anyhow::Result<()> {
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
            (_, Some(name)) => anyhow::bail!("the task `{name}` ended; the log says why"),
            (false, None) => anyhow::bail!("not everything ended in time; raise --shutdown-timeout"),
            (true, None) => Ok(()),
        },
        _ = signals.next() => anyhow::bail!("stopped at once, as a second signal asked"),
    }
}

async fn migrate(config: Config) -> anyhow::Result<()> {
    with_database(&config, async |_, _| Ok(())).await
}

/// Does something short with a database that is up to date.
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
        Some(fault) => anyhow::bail!("the book is not as it must be: {fault}"),
    }
}

async fn bench(args: BenchArgs, config: Config) -> anyhow::Result<()> {
    let _telemetry = Telemetry::install(&config.telemetry)?;
    let report = revwallet::bench::run(args).await?;
    writeln!(std::io::stdout(), "{report}").context("cannot write the report")
}

fn print_openapi() -> anyhow::Result<()> {
    let text = router::document().to_pretty_json()?;
    writeln!(std::io::stdout(), "{text}").context("cannot write the document")
}

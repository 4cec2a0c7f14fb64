//! The command line and its environment: each slice declares its own part.

use std::time::Duration;

use crate::db::DatabaseArgs;
use crate::db::embedded::EmbeddedArgs;
use crate::http::HttpArgs;
use crate::http::auth::AccessArgs;
use crate::keys::cli::KeyCommand;
use crate::ledger::LedgerArgs;
use crate::ledger::verify::Anchor;
use crate::probe::ProbeArgs;
use crate::telemetry::TelemetryArgs;
use crate::trail::cli::AuditArgs;
use crate::users::UsersArgs;
use crate::users::cli::{JwtCommand, UserCommand};
use crate::webhook::WebhookArgs;

/// A wallet backend you can see through: exact money, double entry, everything observable.
#[derive(Debug, clap::Parser)]
#[command(name = "revwallet", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub config: Config,
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Serve the API and do the work behind it (the default).
    Serve,
    /// Bring the database to this version, then exit.
    Migrate,
    /// Read the whole book and hold every line against what must be; exit with 1 if something is off.
    Verify {
        /// A seal's hash that was noted earlier, as SEQ:HASH: proves that nothing before it was rewritten.
        #[arg(long)]
        anchor: Option<Anchor>,
    },
    /// Measure how fast it is here, beside Postgres called directly.
    Bench(crate::bench::BenchArgs),
    /// Make, list, rotate and revoke API keys.
    #[command(subcommand)]
    ApiKey(KeyCommand),
    /// Give users roles.
    #[command(subcommand)]
    User(UserCommand),
    /// Rotate what tokens are signed with.
    #[command(subcommand)]
    Jwt(JwtCommand),
    /// Print what happened around users and keys.
    Audit(AuditArgs),
    /// Ask the server at --internal-listen whether it is ready; exit with 1 if it is not.
    Health,
    /// Make a database ready that was put back to an earlier moment; `scripts/restore` does it.
    Restored,
    /// Print the OpenAPI document.
    Openapi,
}

/// Every setting, by slice.
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
    pub access: AccessArgs,
    #[command(flatten)]
    pub users: UsersArgs,
    #[command(flatten)]
    pub webhook: WebhookArgs,
    #[command(flatten)]
    pub probe: ProbeArgs,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    #[command(flatten)]
    pub lifecycle: LifecycleArgs,
}

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Answers requests.
    Api,
    /// Does what nobody waits for: webhooks, the auditor, what expires.
    Worker,
}

/// What the program does, and how it ends.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Lifecycle")]
pub struct LifecycleArgs {
    /// Be only a part of the program, so that each can have as many processes as it needs; both when not given.
    #[arg(long, env = "REVWALLET_ONLY", global = true)]
    pub only: Option<Part>,
    /// Longest that open requests and queued work may take to end after SIGTERM or SIGINT.
    #[arg(long, env = "REVWALLET_SHUTDOWN_TIMEOUT", global = true, default_value = "25s", value_parser = duration)]
    pub shutdown_timeout: Duration,
    /// How long requests are still accepted after SIGTERM, while `/readyz` already answers 503.
    #[arg(long, env = "REVWALLET_SHUTDOWN_DELAY", global = true, default_value = "0s", value_parser = duration)]
    pub shutdown_delay: Duration,
}

impl LifecycleArgs {
    /// Whether this process is there for that.
    pub fn does(&self, part: Part) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// A number and a unit: `250ms`, `30s`, `5m`, `1h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let number = number.parse::<u64>().ok().filter(|_| milliseconds > 0);
    let total = number.and_then(|number| number.checked_mul(milliseconds));
    total.map(Duration::from_millis).ok_or_else(|| "give a number and ms, s, m, h or d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_may_stand_before_and_behind_the_command() {
        for line in [
            ["revwallet", "--listen=127.0.0.1:1", "migrate"],
            ["revwallet", "migrate", "--listen=127.0.0.1:1"],
        ] {
            let cli = Cli::try_parse_from(line).expect("both are usual");

            assert_eq!(cli.config.http.listen.port(), 1);
        }
    }

    /// A setting goes for every command, so a command's own flag of that name would be taken for it, and panic.
    #[test]
    fn no_command_has_a_flag_with_the_name_of_a_setting() {
        let command = Cli::command();
        let settings: Vec<_> =
            command.get_arguments().filter(|argument| argument.is_global_set()).collect();
        assert!(settings.len() > 30);
        let mut commands: Vec<_> = command.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            for setting in &settings {
                let twice = command.get_arguments().any(|own| own.get_long() == setting.get_long());
                assert!(!twice, "{} has a --{}", command, setting.get_long().unwrap_or_default());
            }
            commands.extend(command.get_subcommands());
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for text in
            ["", "5", "s", "-1s", "1.5s", "5 s", "99999999999999999999s", "18446744073709551615d"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}

//! The command line: the commands, and the settings that each of them takes.

use crate::api_keys::cli::KeyCommand;
use crate::app::config::Config;
use crate::audit_log::cli::AuditArgs;
use crate::ledger::verify::Anchor;
use crate::users::cli::{JwtCommand, UserCommand};

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
}

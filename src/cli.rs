//! The command line: the commands, and the help text of each command.

use clap::{Args, Command as ClapCommand};

use crate::api_keys::cli::KeyCommand;
use crate::app::config::Config;
use crate::audit_log::cli::AuditArgs;
use crate::client::{ClientArgs, TransferCommand, WalletCommand, WebhookCommand};
use crate::exchange::cli::{ExchangeCommand, OrderCommand};
use crate::games::cli::GameCommand;
use crate::ledger::partition::cli::PartitionCommand;
use crate::ledger::verify::Anchor;
use crate::output::OutputArgs;
use crate::play::leaderboards::cli::PrizeAccountCommand;
use crate::users::cli::{JwtCommand, UserCommand};

/// A wallet backend with exact money, double entry and full observability.
#[derive(Debug, clap::Parser)]
#[command(name = "revwallet", version, max_term_width = 100)]
#[command(mut_subcommands(hide_settings))]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub config: Config,
}

/// Last line of the help of each command that takes the settings of the server.
const SETTINGS_HINT: &str =
    "Settings, such as --data-dir and --database-url, may follow; `revwallet --help` lists them.";

/// Commands to which `--json` does not apply. Their help hides the option.
const WITHOUT_JSON: [&str; 3] = ["serve", "migrate", "openapi"];

/// Commands that are clients of a running server. Their help omits the server's settings, which only the server reads.
const TALKING_TO_A_SERVER: [&str; 3] = ["wallet", "transfer", "webhook"];

/// Hides the server's settings in the help of a command and of its subcommands, but still accepts them. clap adds a
/// global argument only to commands without an argument of the same name, so the hidden copy that this function adds
/// takes precedence.
fn hide_settings(command: ClapCommand) -> ClapCommand {
    let mut global = Config::augment_args(ClapCommand::new(""));
    if WITHOUT_JSON.contains(&command.get_name()) {
        global = OutputArgs::augment_args(global);
    }
    let hidden: Vec<_> = global.get_arguments().map(|setting| setting.clone().hide(true)).collect();
    let command = command.args(hidden).mut_subcommands(hide_settings);
    if TALKING_TO_A_SERVER.contains(&command.get_name()) {
        return command.mut_subcommands(|command| command.after_help(""));
    }
    command.after_help(SETTINGS_HINT)
}

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Serve the API and run the background work (the default).
    Serve,
    /// Migrate the database to this version, then exit.
    Migrate {
        /// Do not migrate, but distribute the books of an already migrated ledger over its Citus cluster; needs a
        /// superuser.
        #[arg(long)]
        citus: bool,
    },
    /// Recompute the whole ledger and compare the result with every stored row; exit with 1 if there is a fault.
    Verify {
        /// Earlier seals (the records that end committed batches), as SEQ:HASH, separated by commas. The command
        /// verifies that nothing before these seals was rewritten.
        #[arg(long, value_delimiter = ',')]
        anchor: Vec<Anchor>,
    },
    /// List, archive and restore partitions of the ledger.
    #[command(subcommand)]
    Partition(PartitionCommand),
    /// Create, list, rotate and revoke API keys.
    #[command(subcommand)]
    ApiKey(KeyCommand),
    /// Change the role of a user.
    #[command(subcommand)]
    User(UserCommand),
    /// Rotate the key that signs tokens.
    #[command(subcommand)]
    Jwt(JwtCommand),
    /// Import a catalog of games.
    #[command(subcommand)]
    Game(GameCommand),
    /// Fund the accounts from which leaderboard prizes are paid.
    #[command(subcommand)]
    PrizeAccount(PrizeAccountCommand),
    /// List, show and control orders of the exchange.
    #[command(subcommand)]
    Order(OrderCommand),
    /// Fund the hot wallets, and control the simulated external exchange and blockchain.
    #[command(subcommand)]
    Exchange(ExchangeCommand),
    /// Print the audit log of security-relevant actions, such as logins and changes to API keys.
    Audit(AuditArgs),
    /// List, open, fund and freeze wallets on a server.
    Wallet(ClientArgs<WalletCommand>),
    /// Send, show and refund transfers on a server.
    Transfer(ClientArgs<TransferCommand>),
    /// Create and delete webhooks on a server, and receive their deliveries on this machine.
    Webhook(ClientArgs<WebhookCommand>),
    /// Check that the server at --internal-listen is ready; exit with 1 if it is not.
    Health,
    /// Prepare a restored database for use; `scripts/restore` runs this command.
    Restored,
    /// Print the OpenAPI document.
    Openapi,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settings_can_stand_before_and_after_the_command() {
        for line in [
            ["revwallet", "--listen=127.0.0.1:1", "migrate"],
            ["revwallet", "migrate", "--listen=127.0.0.1:1"],
        ] {
            let cli = Cli::try_parse_from(line).expect("both orders are valid");

            assert_eq!(cli.config.http.listen.port(), 1);
        }
    }

    /// Settings are global flags. If a command had its own flag with the name of a setting, clap would panic.
    #[test]
    fn no_command_has_a_flag_with_the_name_of_a_setting() {
        let command = Cli::command();
        let settings: Vec<_> =
            command.get_arguments().filter(|argument| argument.is_global_set()).collect();
        assert!(settings.len() > 30);
        let mut commands: Vec<_> = command.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            for setting in &settings {
                let mut own = command.get_arguments().filter(|own| !own.is_hide_set());
                let collides = own.any(|own| own.get_long() == setting.get_long());
                assert!(
                    !collides,
                    "{} has a --{}",
                    command,
                    setting.get_long().unwrap_or_default()
                );
            }
            commands.extend(command.get_subcommands());
        }
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expected) in [
            ("250ms", Duration::from_millis(250)),
            ("0s", Duration::ZERO),
            ("30s", Duration::from_secs(30)),
            ("5m", Duration::from_mins(5)),
            ("1h", Duration::from_hours(1)),
            ("7d", Duration::from_hours(7 * 24)),
            ("1h 30m", Duration::from_mins(90)),
            ("1.5s", Duration::from_millis(1_500)),
        ] {
            assert_eq!(shutdown_timeout(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn a_refused_duration_says_what_to_give() {
        for (text, advice) in [
            ("", "value was empty"),
            (" ", "value was empty"),
            ("5", "time unit needed, for example 5sec or 5ms"),
            ("s", "expected number at 0"),
            ("-1s", "expected number at 0"),
            (
                "5 parsecs",
                "unknown time unit \"parsecs\", supported units: ns, us/µs, ms, sec, min,",
            ),
            ("99999999999999999999s", "number is too large"),
            ("18446744073709551615d", "number is too large"),
        ] {
            let refusal = shutdown_timeout(text).expect_err(text).to_string();

            assert!(refusal.contains(advice), "{text}: {refusal}");
        }
    }

    fn shutdown_timeout(text: &str) -> Result<Duration, clap::Error> {
        let cli = Cli::try_parse_from(["revwallet", &format!("--shutdown-timeout={text}")])?;
        Ok(cli.config.lifecycle.shutdown_timeout)
    }
}

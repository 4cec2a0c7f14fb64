//! `revwallet prize-account`: funds the accounts that prizes are paid from.

use std::io::Write;

use anyhow::Context;

use super::Leaderboards;
use super::prize::PrizeAccount;
use crate::auth::Caller;
use crate::error::Error;
use crate::idempotency::IdempotencyKey;

#[derive(Debug, clap::Subcommand)]
pub enum PrizeAccountCommand {
    /// Move money from outside into the prize account of a currency.
    Deposit {
        /// Code of the currency, such as EUR.
        #[arg(long = "in")]
        code: String,
        /// A decimal with at most the decimals of the currency.
        #[arg(long)]
        amount: String,
    },
    /// List the prize accounts with money in them.
    List,
}

/// Runs a command and prints its result.
pub async fn run(leaderboards: &Leaderboards, command: PrizeAccountCommand) -> anyhow::Result<()> {
    let operator = Caller::operator();
    let accounts = match command {
        PrizeAccountCommand::Deposit { code, amount } => {
            let found = leaderboards.currencies().find(&code);
            let currency = found.with_context(|| format!("{code} is not a currency"))?;
            let key = IdempotencyKey::absent();
            let funded = leaderboards.fund_prizes(currency, &amount, &operator, &key).await;
            vec![funded.map_err(Error::into_cause)?]
        }
        PrizeAccountCommand::List => {
            leaderboards.prize_accounts(&operator).await.map_err(Error::into_cause)?
        }
    };
    let lines: Vec<String> = accounts.iter().map(format_account).collect();
    let printed =
        if lines.is_empty() { "no prize account has money".to_owned() } else { lines.join("\n") };
    writeln!(std::io::stdout(), "{printed}").context("cannot write the result")
}

fn format_account(account: &PrizeAccount) -> String {
    let PrizeAccount { currency, balance, .. } = account;
    format!("{} {}", currency.code(), balance.exact(*currency))
}

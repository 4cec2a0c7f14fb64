//! The command `revwallet prize-account`, which funds and lists the accounts from which prizes are paid.

use anyhow::Context;

use super::Leaderboards;
use super::http::prizes::PrizeAccountBody;
use super::prize::PrizeAccount;
use crate::auth::Caller;
use crate::error::Error;
use crate::idempotency_key::IdempotencyKey;
use crate::ledger::currency::Currencies;
use crate::output::OutputArgs;

#[derive(Debug, clap::Subcommand)]
pub enum PrizeAccountCommand {
    /// Deposit money into the prize account of a currency.
    Deposit {
        /// Code of the currency, such as EUR.
        #[arg(long = "in")]
        code: String,
        /// Amount to deposit, a decimal number with at most as many decimal places as the currency has.
        #[arg(long)]
        amount: String,
    },
    /// List the prize accounts that have money.
    List,
}

/// Runs a command and prints its result.
pub async fn run(
    leaderboards: &Leaderboards,
    command: PrizeAccountCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let operator = Caller::operator();
    match command {
        PrizeAccountCommand::Deposit { code, amount } => {
            let found = leaderboards.currencies().find(&code);
            let currency = found.with_context(|| format!("{code} is not a currency"))?;
            let amount = Currencies::written_amount(&amount);
            let amount = amount.map_err(|why| anyhow::anyhow!("--amount {why}"))?;
            let key = IdempotencyKey::absent();
            let funded = leaderboards.fund_prizes(currency, amount, &operator, &key).await;
            let account = funded.map_err(Error::into_cause)?;
            output.print(account, body, |account| Ok(format_account(account)))
        }
        PrizeAccountCommand::List => {
            let accounts =
                leaderboards.prize_accounts(&operator).await.map_err(Error::into_cause)?;
            let bodies = |accounts: Vec<_>| {
                accounts.into_iter().map(body).collect::<anyhow::Result<Vec<_>>>()
            };
            output.print(accounts, bodies, |accounts| Ok(format_accounts(accounts)))
        }
    }
}

fn body(account: PrizeAccount) -> anyhow::Result<PrizeAccountBody> {
    account.try_into().map_err(Error::into_cause)
}

fn format_accounts(accounts: &[PrizeAccount]) -> String {
    if accounts.is_empty() {
        return "no prize account has money".to_owned();
    }
    accounts.iter().map(format_account).collect::<Vec<_>>().join("\n")
}

fn format_account(account: &PrizeAccount) -> String {
    let PrizeAccount { currency, balance, .. } = account;
    format!("{} {}", currency.code(), balance.exact(*currency))
}

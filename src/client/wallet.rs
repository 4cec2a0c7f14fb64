//! Command `revwallet wallet`, which lists, opens, funds and freezes wallets on a server.

use http::Method;
use serde_json::{Value, json};

use super::api::{Api, print_list, print_object, with_member};
use crate::output::OutputArgs;

/// Columns of the printed wallet list.
const WALLET_COLUMNS: [&str; 4] = ["id", "owner", "balance", "currency"];

/// Columns of the printed wallet history.
const HISTORY_COLUMNS: [&str; 7] =
    ["id", "at", "kind", "direction", "counterparty", "amount", "balance"];

#[derive(Debug, Clone, clap::Subcommand)]
pub enum WalletCommand {
    /// List open wallets.
    List {
        /// List only wallets with this owner label.
        #[arg(long)]
        owner: Option<String>,
        /// List only wallets in the currency with this code.
        #[arg(long = "in", value_name = "CURRENCY")]
        code: Option<String>,
        /// List closed wallets too.
        #[arg(long)]
        closed: bool,
        /// Maximum number of wallets to list.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show a wallet with its available and held balance.
    Show { id: i64 },
    /// Open a wallet.
    Open {
        /// Label of the owner, 1 to 200 characters.
        #[arg(long)]
        owner: String,
        /// Code of the currency, such as EUR.
        #[arg(long = "in", value_name = "CURRENCY")]
        code: String,
        /// Amount of an initial deposit, as a decimal number.
        #[arg(long)]
        initial_balance: Option<String>,
        #[command(flatten)]
        once: OnceArgs,
    },
    /// List the history of a wallet, newest first.
    History {
        id: i64,
        /// Maximum number of entries to list.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Deposit money into a wallet, from outside the system.
    Deposit(MoveArgs),
    /// Withdraw money from a wallet, to outside the system.
    Withdraw(MoveArgs),
    /// Freeze a wallet: money can enter it, but cannot leave it.
    Freeze { id: i64 },
    /// Unfreeze a wallet, so that money can leave it again.
    Unfreeze { id: i64 },
    /// Close an empty wallet for good.
    Close { id: i64 },
}

/// The wallet and the amount of a deposit or withdrawal.
#[derive(Debug, Clone, clap::Args)]
pub struct MoveArgs {
    id: i64,
    /// Amount as a decimal number, with at most as many decimal places as the currency has.
    #[arg(long)]
    amount: String,
    #[command(flatten)]
    once: OnceArgs,
}

/// Idempotency key of a request, by which the server recognizes a repeated request.
#[derive(Debug, Clone, clap::Args)]
pub struct OnceArgs {
    /// Idempotency key of the request: a repetition with the same key has no further effect [default: random].
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Runs a `wallet` command and prints its result.
pub(super) async fn run(
    api: &Api,
    command: WalletCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    match command {
        WalletCommand::List { owner, code, closed, limit } => {
            let mut query = Vec::new();
            query.extend(owner.map(|owner| ("owner", owner)));
            query.extend(code.map(|code| ("currency", code)));
            query.extend(closed.then(|| ("closed", "true".to_owned())));
            let wallets = api.list("wallet", &query, limit as usize).await?;
            print_list(wallets, &WALLET_COLUMNS, output)
        }
        WalletCommand::Show { id } => print_object(api.get(&format!("wallet/{id}")).await?, output),
        WalletCommand::Open { owner, code, initial_balance, once } => {
            let body = json!({ "owner": owner, "currency": code });
            let body = with_member(body, "initial_balance", initial_balance);
            post(api, "wallet", &body, once, output).await
        }
        WalletCommand::History { id, limit } => {
            let entries = api.list(&format!("wallet/{id}/history"), &[], limit as usize).await?;
            print_list(entries, &HISTORY_COLUMNS, output)
        }
        WalletCommand::Deposit(args) => move_money(api, "wallet/deposit", args, output).await,
        WalletCommand::Withdraw(args) => move_money(api, "wallet/withdraw", args, output).await,
        WalletCommand::Freeze { id } => set_frozen(api, id, true, output).await,
        WalletCommand::Unfreeze { id } => set_frozen(api, id, false, output).await,
        WalletCommand::Close { id } => close(api, id, output).await,
    }
}

async fn move_money(
    api: &Api,
    path: &str,
    args: MoveArgs,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let MoveArgs { id, amount, once } = args;
    post(api, path, &json!({ "id": id.to_string(), "amount": amount }), once, output).await
}

async fn post(
    api: &Api,
    path: &str,
    body: &Value,
    once: OnceArgs,
    output: OutputArgs,
) -> anyhow::Result<()> {
    print_object(api.post_once(path, body, once.idempotency_key).await?, output)
}

async fn set_frozen(api: &Api, id: i64, freeze: bool, output: OutputArgs) -> anyhow::Result<()> {
    let body = json!({ "freeze": freeze });
    let wallet = api.change(Method::PATCH, &format!("wallet/{id}"), Some(&body)).await?;
    print_object(serde_json::from_str(&wallet)?, output)
}

/// Closes a wallet, and prints the closed wallet.
async fn close(api: &Api, id: i64, output: OutputArgs) -> anyhow::Result<()> {
    let path = format!("wallet/{id}");
    api.change(Method::DELETE, &path, None).await?;
    print_object(api.get(&path).await?, output)
}

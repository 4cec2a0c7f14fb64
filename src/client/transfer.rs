//! Command `revwallet transfer`, which sends, shows and refunds transfers on a server.

use serde_json::json;

use super::api::{Api, print_object, with_member};
use super::wallet::OnceArgs;
use crate::output::OutputArgs;

#[derive(Debug, Clone, clap::Subcommand)]
pub enum TransferCommand {
    /// Move money from one wallet to another.
    Send {
        /// Id of the paying wallet.
        #[arg(long)]
        from: i64,
        /// Id of the receiving wallet.
        #[arg(long)]
        to: i64,
        /// Amount as a decimal number, with at most as many decimal places as the currency has.
        #[arg(long)]
        amount: String,
        /// A fee for the operator, on top of the amount.
        #[arg(long)]
        fee: Option<String>,
        /// Memo of the transfer, at most 500 characters.
        #[arg(long)]
        memo: Option<String>,
        #[command(flatten)]
        once: OnceArgs,
    },
    /// Show a transfer.
    Show { id: i64 },
    /// Refund a transfer: return its money to the payer.
    Refund {
        id: i64,
        /// Amount to refund [default: everything that has not been refunded yet].
        #[arg(long)]
        amount: Option<String>,
        #[command(flatten)]
        once: OnceArgs,
    },
}

/// Runs a `transfer` command and prints its result.
pub(super) async fn run(
    api: &Api,
    command: TransferCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let transfer = match command {
        TransferCommand::Send { from, to, amount, fee, memo, once } => {
            let body = json!({ "from": from.to_string(), "to": to.to_string(), "amount": amount });
            let body = with_member(with_member(body, "fee", fee), "memo", memo);
            api.post_once("wallet/transfer", &body, once.idempotency_key).await?
        }
        TransferCommand::Show { id } => api.get(&format!("wallet/transfer/{id}")).await?,
        TransferCommand::Refund { id, amount, once } => {
            let body = with_member(json!({ "transfer": id.to_string() }), "amount", amount);
            api.post_once("wallet/refund", &body, once.idempotency_key).await?
        }
    };
    print_object(transfer, output)
}

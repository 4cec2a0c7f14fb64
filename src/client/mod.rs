//! Commands that talk to a server over its HTTP API: `revwallet wallet`, `transfer` and `webhook`.
//!
//! These commands need no database. A profile file, the environment or flags name the server ([`server`]). Amounts are
//! never parsed, but sent and printed as text. A request that moves money always has an idempotency key.

mod api;
mod document;
mod listen;
mod server;
mod transfer;
mod wallet;
mod webhook;

pub use self::server::ServerArgs;
pub use self::transfer::TransferCommand;
pub use self::wallet::WalletCommand;
pub use self::webhook::WebhookCommand;

use self::api::Api;
use crate::output::OutputArgs;

/// Arguments of a command that talks to a server.
#[derive(Debug, Clone, clap::Args)]
pub struct ClientArgs<C: clap::Subcommand> {
    #[command(subcommand)]
    command: C,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs a command on wallets and prints its result.
pub async fn run_wallet(args: ClientArgs<WalletCommand>, output: OutputArgs) -> anyhow::Result<()> {
    wallet::run(&Api::new(args.server.resolve()?)?, args.command, output).await
}

/// Runs a command on transfers and prints its result.
pub async fn run_transfer(
    args: ClientArgs<TransferCommand>,
    output: OutputArgs,
) -> anyhow::Result<()> {
    transfer::run(&Api::new(args.server.resolve()?)?, args.command, output).await
}

/// Runs a command on webhooks and prints its result.
pub async fn run_webhook(
    args: ClientArgs<WebhookCommand>,
    output: OutputArgs,
) -> anyhow::Result<()> {
    webhook::run(&Api::new(args.server.resolve()?)?, args.command, output).await
}

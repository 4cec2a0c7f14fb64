//! Command `revwallet webhook`, which lists, creates and deletes webhooks on a server, and receives their deliveries.

use http::Method;
use serde::Serialize;
use serde_json::json;
use url::Url;

use super::api::{Api, print_list, print_object};
use super::listen::{self, ListenArgs};
use super::wallet::OnceArgs;
use crate::output::OutputArgs;

/// Columns of the printed webhook list.
const COLUMNS: [&str; 4] = ["id", "url", "events", "created_at"];

#[derive(Debug, Clone, clap::Subcommand)]
pub enum WebhookCommand {
    /// List webhooks.
    List,
    /// Create a webhook and print its signing secret, which cannot be shown again.
    Create {
        /// URL of the receiver.
        receiver: Url,
        /// Events to send, separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "*")]
        events: Vec<String>,
        #[command(flatten)]
        once: OnceArgs,
    },
    /// Delete a webhook and its log of deliveries.
    Delete { id: i64 },
    /// Receive deliveries on this machine until Ctrl-C: verify, print and forward each delivery.
    Listen(ListenArgs),
}

/// Output of `revwallet webhook delete`: the id of the deleted webhook.
#[derive(Serialize)]
struct DeletedBody {
    id: String,
}

/// Runs a `webhook` command and prints its result.
pub(super) async fn run(
    api: &Api,
    command: WebhookCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    match command {
        WebhookCommand::List => print_list(api.get_list("wallet/webhook").await?, &COLUMNS, output),
        WebhookCommand::Create { receiver, events, once } => {
            let body = json!({ "url": receiver.as_str(), "events": events });
            let webhook = api.post_once("wallet/webhook", &body, once.idempotency_key).await?;
            print_object(webhook, output)
        }
        WebhookCommand::Delete { id } => {
            api.change(Method::DELETE, &format!("wallet/webhook/{id}"), None).await?;
            let body = DeletedBody { id: id.to_string() };
            output.print(body, Ok, |_| Ok(format!("webhook {id} is deleted")))
        }
        WebhookCommand::Listen(args) => listen::run(api, &args, output).await,
    }
}

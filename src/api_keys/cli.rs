//! `revwallet api-key`: manages API keys from the command line.

use std::io::Write;

use anyhow::{Context, ensure};
use time::format_description::well_known::Rfc3339;

use super::{ApiKeys, NAME_MAX, NewApiKey};
use crate::auth::{Caller, Scope};
use crate::error::Error;
use crate::ids::{ApiKeyId, PublisherId};

/// Keys per query.
const PAGE: i64 = 1_000;

#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Create a key and print it, once.
    Create {
        /// Name of the program that uses it.
        #[arg(long)]
        name: String,
        /// A scope; may be given several times.
        #[arg(long = "scope", required = true, value_enum)]
        scopes: Vec<Scope>,
        /// Id of a publisher: the scopes, games:read and games:write, hold for its games only.
        #[arg(long)]
        publisher: Option<i64>,
    },
    /// List all keys with their last use.
    List,
    /// Revoke a key.
    Revoke { id: i64 },
    /// Give a key a new secret; the old one works for another day.
    Rotate { id: i64 },
}

/// Runs a command and prints its result.
pub async fn run(keys: &ApiKeys, command: KeyCommand) -> anyhow::Result<()> {
    let operator = Caller::operator();
    let printed = match command {
        KeyCommand::Create { name, scopes, publisher } => {
            ensure!(
                (1..=NAME_MAX).contains(&name.chars().count()),
                "--name must have 1 to {NAME_MAX} characters"
            );
            let publisher = publisher.map(PublisherId);
            let new = keys.create(&operator, None, &name, &scopes, publisher).await;
            format_new(&new.map_err(Error::into_cause)?)
        }
        KeyCommand::List => list(keys, &operator).await?,
        KeyCommand::Revoke { id } => {
            keys.revoke(&operator, None, ApiKeyId(id)).await.map_err(Error::into_cause)?;
            format!("key {id} is revoked")
        }
        KeyCommand::Rotate { id } => {
            let new = keys.rotate(&operator, None, ApiKeyId(id)).await;
            format_new(&new.map_err(Error::into_cause)?)
        }
    };
    writeln!(std::io::stdout(), "{printed}").context("cannot write the result")
}

fn format_new(new: &NewApiKey) -> String {
    let NewApiKey { row, key } = new;
    format!(
        "{}\n\nThis is key {} ({}). It is not shown again.",
        key.reveal(),
        row.id,
        row.scopes.join(", ")
    )
}

async fn list(keys: &ApiKeys, operator: &Caller) -> anyhow::Result<String> {
    let mut lines =
        vec![format!("{:<6} {:<24} {:<28} {:<32} state", "id", "name", "scopes", "last use")];
    let mut after = 0;
    loop {
        let page = keys.list(operator, after, PAGE).await.map_err(Error::into_cause)?;
        let Some(last) = page.last() else { break };
        after = last.id.0;
        for row in page {
            let used = row.last_used_at.map(|at| at.format(&Rfc3339)).transpose()?;
            let used = used.unwrap_or_else(|| "never".to_owned());
            let state = if row.revoked_at.is_some() { "revoked" } else { "valid" };
            let publisher = row.publisher.map(|id| format!(" (publisher {id})"));
            let scopes = row.scopes.join(",") + &publisher.unwrap_or_default();
            lines.push(format!("{:<6} {:<24} {scopes:<28} {used:<32} {state}", row.id.0, row.name));
        }
    }
    Ok(lines.join("\n"))
}

//! `revwallet api-key`: manages API keys from the command line.

use anyhow::ensure;
use time::format_description::well_known::Rfc3339;

use super::http::ApiKeyBody;
use super::{ApiKeyRow, ApiKeys, NAME_MAX, NewApiKey};
use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::ids::{ApiKeyId, PublisherId};
use crate::output::OutputArgs;

/// Number of keys that `api-key list` reads from the database in each query.
const PAGE: i64 = 1_000;

#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Create a key and print it. The key cannot be shown again.
    Create {
        /// Name of the program that uses the key.
        #[arg(long)]
        name: String,
        /// Permission of the key. Repeat the flag to give several permissions.
        #[arg(long = "scope", required = true, value_enum)]
        scopes: Vec<Scope>,
        /// Limit the key to the games of the publisher with this id. The key may then have only the scopes games:read
        /// and games:write.
        #[arg(long)]
        publisher: Option<i64>,
    },
    /// List all keys, with the time when each was last used.
    List,
    /// Revoke a key.
    Revoke { id: i64 },
    /// Give a key a new secret. The current secret stays valid for a day.
    Rotate { id: i64 },
}

/// Runs an `api-key` command and prints its result.
pub async fn run(keys: &ApiKeys, command: KeyCommand, output: OutputArgs) -> anyhow::Result<()> {
    let operator = Caller::operator();
    match command {
        KeyCommand::Create { name, scopes, publisher } => {
            ensure!(
                (1..=NAME_MAX).contains(&name.chars().count()),
                "--name must have 1 to {NAME_MAX} characters"
            );
            let publisher = publisher.map(PublisherId);
            let new = keys.create(&operator, None, &name, &scopes, publisher).await;
            print_new(new, output)
        }
        KeyCommand::List => {
            let rows = list(keys, &operator).await.map_err(Error::into_cause)?;
            output.print(rows, bodies, |rows| format_list(rows))
        }
        KeyCommand::Revoke { id } => {
            let revoked = revoke(keys, &operator, ApiKeyId(id)).await.map_err(Error::into_cause)?;
            output.print(revoked, body, |_| Ok(format!("key {id} is revoked")))
        }
        KeyCommand::Rotate { id } => {
            print_new(keys.rotate(&operator, None, ApiKeyId(id)).await, output)
        }
    }
}

fn print_new(new: Result<NewApiKey>, output: OutputArgs) -> anyhow::Result<()> {
    output.print(new.map_err(Error::into_cause)?, body, |new| {
        let NewApiKey { row, key } = new;
        let (id, scopes) = (row.id, row.scopes.join(", "));
        Ok(format!("{}\n\nThis is key {id} ({scopes}). It is not shown again.", key.reveal()))
    })
}

fn body(key: impl TryInto<ApiKeyBody, Error = Error>) -> anyhow::Result<ApiKeyBody> {
    key.try_into().map_err(Error::into_cause)
}

fn bodies(rows: Vec<ApiKeyRow>) -> anyhow::Result<Vec<ApiKeyBody>> {
    rows.into_iter().map(body).collect()
}

/// Revokes a key and returns its updated row.
async fn revoke(keys: &ApiKeys, operator: &Caller, id: ApiKeyId) -> Result<ApiKeyRow> {
    keys.revoke(operator, None, id).await?;
    let found = keys.list(operator, id.0 - 1, 1).await?.into_iter().next();
    found.ok_or(Error::NotFound("key"))
}

async fn list(keys: &ApiKeys, operator: &Caller) -> Result<Vec<ApiKeyRow>> {
    let mut rows: Vec<ApiKeyRow> = Vec::new();
    loop {
        let after = rows.last().map_or(0, |last| last.id.0);
        let page = keys.list(operator, after, PAGE).await?;
        if page.is_empty() {
            return Ok(rows);
        }
        rows.extend(page);
    }
}

fn format_list(rows: &[ApiKeyRow]) -> anyhow::Result<String> {
    let mut lines =
        vec![format!("{:<6} {:<24} {:<28} {:<32} state", "id", "name", "scopes", "last use")];
    for row in rows {
        let used = row.last_used_at.map(|at| at.format(&Rfc3339)).transpose()?;
        let used = used.unwrap_or_else(|| "never".to_owned());
        let state = if row.revoked_at.is_some() { "revoked" } else { "valid" };
        let publisher = row.publisher.map(|id| format!(" (publisher {id})"));
        let scopes = row.scopes.join(",") + &publisher.unwrap_or_default();
        lines.push(format!("{:<6} {:<24} {scopes:<28} {used:<32} {state}", row.id.0, row.name));
    }
    Ok(lines.join("\n"))
}

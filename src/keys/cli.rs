//! `revwallet api-key`: keys at the command line.

use std::io::Write;

use anyhow::{Context, ensure};
use time::format_description::well_known::Rfc3339;

use super::{Keys, NAME_MAX, New};
use crate::error::Error;
use crate::http::auth::Scope;
use crate::trail::By;

/// Keys of one read.
const PAGE: i64 = 1_000;

#[derive(Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Make a key and show it, once.
    Create {
        /// What it is for.
        #[arg(long)]
        name: String,
        /// What it may be used for; may be given several times.
        #[arg(long = "scope", required = true, value_enum)]
        scopes: Vec<Scope>,
    },
    /// List all keys, with their last use.
    List,
    /// End a key.
    Revoke { id: i64 },
    /// Give a key another secret; the old one works for a day.
    Rotate { id: i64 },
}

/// Does what was asked and prints what came of it.
pub async fn run(keys: &Keys, command: KeyCommand) -> anyhow::Result<()> {
    let printed = match command {
        KeyCommand::Create { name, scopes } => {
            ensure!(
                (1..=NAME_MAX).contains(&name.chars().count()),
                "--name must have 1 to {NAME_MAX} characters"
            );
            shown(&keys.create(&name, &scopes, By::OPERATOR).await.map_err(Error::into_cause)?)
        }
        KeyCommand::List => list(keys).await?,
        KeyCommand::Revoke { id } => {
            keys.revoke(id, By::OPERATOR).await.map_err(Error::into_cause)?;
            format!("key {id} is revoked")
        }
        KeyCommand::Rotate { id } => {
            shown(&keys.rotate(id, By::OPERATOR).await.map_err(Error::into_cause)?)
        }
    };
    writeln!(std::io::stdout(), "{printed}").context("cannot write the answer")
}

fn shown(new: &New) -> String {
    let New { row, key } = new;
    format!(
        "{}\n\nThis is key {} ({}). It is not shown again.",
        key.reveal(),
        row.id,
        row.scopes.join(", ")
    )
}

async fn list(keys: &Keys) -> anyhow::Result<String> {
    let mut lines =
        vec![format!("{:<6} {:<24} {:<28} {:<32} state", "id", "name", "scopes", "last use")];
    let mut after = 0;
    loop {
        let page = keys.list(after, PAGE).await.map_err(Error::into_cause)?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for row in page {
            let used = row.last_used_at.map(|at| at.format(&Rfc3339)).transpose()?;
            let used = used.unwrap_or_else(|| "never".to_owned());
            let state = if row.revoked_at.is_some() { "revoked" } else { "good" };
            let scopes = row.scopes.join(",");
            lines.push(format!("{:<6} {:<24} {scopes:<28} {used:<32} {state}", row.id, row.name));
        }
    }
    Ok(lines.join("\n"))
}

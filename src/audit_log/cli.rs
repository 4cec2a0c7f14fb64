//! `revwallet audit`: prints the audit log.

use time::format_description::well_known::Rfc3339;

use super::http::AuditEntryBody;
use super::{AuditEntry, AuditLog};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::output::{OutputArgs, print_json, print_text};

/// Number of entries that `revwallet audit` reads from the database in each query.
const PAGE: i64 = 1_000;

/// Options that select the entries to print.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// Number of entries to print, newest first.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub lines: i64,
    /// Print only the entries about this subject, such as `user:5` or `key:2`.
    #[arg(long)]
    pub subject: Option<String>,
}

/// Prints the audit log, one line per entry.
pub async fn print(log: &AuditLog, args: &AuditArgs, output: OutputArgs) -> anyhow::Result<()> {
    let caller = Caller::operator();
    let (mut before, mut left) = (i64::MAX, args.lines);
    let mut bodies = Vec::new();
    while left > 0 {
        let page = log.list(&caller, args.subject.as_deref(), before, left.min(PAGE)).await;
        let page = page.map_err(Error::into_cause)?;
        let Some(last) = page.last() else { break };
        (before, left) = (last.id, left - PAGE);
        if output.json {
            let page = page.into_iter().map(AuditEntryBody::try_from);
            bodies.extend(page.collect::<Result<Vec<_>>>().map_err(Error::into_cause)?);
        } else {
            let lines: anyhow::Result<Vec<String>> = page.iter().map(format_entry).collect();
            print_text(&lines?.join("\n"))?;
        }
    }
    if output.json { print_json(&bodies) } else { Ok(()) }
}

fn format_entry(entry: &AuditEntry) -> anyhow::Result<String> {
    let at = entry.at.format(&Rfc3339)?;
    let subject = entry.subject.as_deref().unwrap_or("-");
    let address = entry.address.as_deref().unwrap_or("-");
    let AuditEntry { actor, action, outcome, .. } = entry;
    Ok(format!("{at}  {action:<22} {outcome:<8} by {actor:<12} to {subject:<12} from {address}"))
}

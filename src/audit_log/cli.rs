//! `revwallet audit`: prints the audit log.

use std::io::Write;

use anyhow::Context;
use time::format_description::well_known::Rfc3339;

use super::AuditLog;
use crate::auth::Caller;
use crate::error::Error;

/// Entries per query.
const PAGE: i64 = 1_000;

/// Selection of the entries to print.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// Number of entries to print, newest first.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..))]
    pub lines: i64,
    /// Print only the entries about this subject: `user:5`, `key:2`.
    #[arg(long)]
    pub subject: Option<String>,
}

/// Prints the audit log, one line per entry.
pub async fn print(log: &AuditLog, args: &AuditArgs) -> anyhow::Result<()> {
    let caller = Caller::operator();
    let (mut before, mut left) = (i64::MAX, args.lines);
    while left > 0 {
        let page = log.list(&caller, args.subject.as_deref(), before, left.min(PAGE)).await;
        let page = page.map_err(Error::into_cause)?;
        let Some(last) = page.last() else { break };
        (before, left) = (last.id, left - PAGE);
        let mut out = std::io::stdout().lock();
        for entry in page {
            let at = entry.at.format(&Rfc3339)?;
            let subject = entry.subject.as_deref().unwrap_or("-");
            let address = entry.address.as_deref().unwrap_or("-");
            let (actor, action, outcome) = (entry.actor, entry.action, entry.outcome);
            writeln!(
                out,
                "{at}  {action:<22} {outcome:<8} by {actor:<12} to {subject:<12} from {address}"
            )
            .context("cannot write the audit log")?;
        }
    }
    Ok(())
}

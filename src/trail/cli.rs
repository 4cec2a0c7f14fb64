//! `revwallet audit`: the trail at the command line.

use std::io::Write;

use anyhow::Context;
use time::format_description::well_known::Rfc3339;

use super::sql;
use crate::db::Database;
use crate::error::Error;

/// Lines of one read.
const PAGE: i64 = 1_000;

/// Which lines are wanted.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// Most lines, newest first.
    #[arg(long, default_value_t = 100)]
    pub lines: i64,
    /// Only what was done to this: `user:5`, `key:2`.
    #[arg(long)]
    pub subject: Option<String>,
}

/// Prints the trail, one line an entry.
pub async fn print(db: &Database, args: &AuditArgs) -> anyhow::Result<()> {
    let mut db = db.acquire("trail.print").await.map_err(Error::into_cause)?;
    let (mut before, mut left) = (i64::MAX, args.lines);
    while left > 0 {
        let page = sql::list(&mut db, args.subject.as_deref(), before, left.min(PAGE)).await;
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
            .context("cannot write the trail")?;
        }
    }
    Ok(())
}

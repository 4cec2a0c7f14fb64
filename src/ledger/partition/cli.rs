//! `revwallet partition`: lists, archives and restores partitions of the ledger's table of transfers.

use std::time::Duration;

use anyhow::Context;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{
    ArchivedPartition, Partition, archive_next, connect_as_owner, is_lock_timeout, list, lock,
    restore,
};
use crate::db::Database;
use crate::output::OutputArgs;
use crate::settings;

#[derive(Debug, clap::Subcommand)]
pub enum PartitionCommand {
    /// List the partitions with their size and the time of their last transfer.
    List,
    /// Archive every complete partition whose last transfer is old enough, oldest first.
    Archive {
        /// Minimum age of the last transfer of a partition.
        #[arg(long, default_value = "90d", value_parser = settings::duration)]
        older_than: Duration,
    },
    /// Put the most recently archived partition back into the ledger.
    Restore {
        /// First seq of the partition, as `list` prints it.
        first_seq: i64,
    },
}

/// Runs a command and prints its result.
pub async fn run(
    db: &Database,
    command: PartitionCommand,
    output: OutputArgs,
) -> anyhow::Result<()> {
    let mut db = connect_as_owner(db).await?;
    if !matches!(command, PartitionCommand::List) {
        lock(&mut db).await?;
    }
    match command {
        PartitionCommand::List => {
            output.print(list(&mut db).await?, Ok, |partitions| format_list(partitions))
        }
        PartitionCommand::Archive { older_than } => {
            let before = OffsetDateTime::now_utc() - older_than;
            let mut archived = Vec::new();
            while let Some(next) = archive_next(&mut db, before).await.map_err(explain)? {
                archived.push(next);
            }
            output.print(archived, Ok, |archived| Ok(format_archived(archived)))
        }
        PartitionCommand::Restore { first_seq } => {
            restore(&mut db, first_seq).await.map_err(explain)?;
            let partitions = list(&mut db).await?;
            let restored =
                partitions.into_iter().find(|partition| partition.first_seq == first_seq);
            let restored = restored.context("the restored partition is not listed")?;
            output
                .print(restored, Ok, |_| Ok(format!("partition {first_seq} is in the book again")))
        }
    }
}

/// Turns a database error into an error text that says what to do.
fn explain(error: sqlx::Error) -> anyhow::Error {
    match error.as_database_error() {
        Some(refusal) if refusal.code().as_deref() == Some("RW003") => {
            anyhow::anyhow!(refusal.message().to_owned())
        }
        _ if is_lock_timeout(&error) => {
            anyhow::anyhow!(
                "a long-running query is reading the book; try again when it has finished"
            )
        }
        _ => error.into(),
    }
}

fn format_list(partitions: &[Partition]) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for partition in partitions {
        let Partition { first_seq, last_seq, state, bytes, newest, table, is_in_database } =
            partition;
        let newest = match newest {
            Some(at) => format!(", last transfer {}", at.format(&Rfc3339)?),
            None => ", empty".to_owned(),
        };
        let verb = if *is_in_database { "in" } else { "was in" };
        let size = indicatif::HumanBytes(bytes.unsigned_abs());
        let state = state.name();
        lines.push(format!(
            "{first_seq} to {last_seq}: {state}, {size}{newest}, {verb} ledger.{table}"
        ));
    }
    Ok(lines.join("\n"))
}

fn format_archived(archived: &[ArchivedPartition]) -> String {
    if archived.is_empty() {
        return "no complete partition is old enough".to_owned();
    }
    let lines = archived.iter().map(|ArchivedPartition { first_seq, table, kept }| {
        format!(
            "partition {first_seq} is archived: its transfers are in the table ledger.{table}, and {kept} of them stay in the book"
        )
    });
    let mut lines: Vec<String> = lines.collect();
    lines.push("to move a table elsewhere, dump it with pg_dump --table, keep the file, and drop the table".to_owned());
    lines.join("\n")
}

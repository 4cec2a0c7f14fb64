//! `revwallet restored`: prepares a database that was restored to an earlier moment, before it is used.
//!
//! | step | why |
//! |---|---|
//! | sequences of ids of wallets, users, keys, webhooks and deliveries skip ahead | ids assigned since that moment are known outside: a deposit to a lost wallet must not reach another customer, and a receiver of webhooks must not mistake a new delivery for a duplicate |
//! | every session ends | a sign-out or a changed password since then is lost |
//! | the installation gets a new id | the logs distinguish this copy from the lost one |
//! | an entry in the audit log | an auditor sees that there is a gap |
//!
//! Ids of transfers are positions in the book and cannot be skipped: those since that moment are assigned again.

use std::io::Write;

use anyhow::Context;
use sqlx::{Connection, PgConnection};

use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::db::{self, Database};
use crate::error::{Error, Result};
use crate::telemetry::Metrics;
use crate::users;

/// Number of ids to skip: more than are assigned between two backups. Ids of accounts end at 2^40.
const IDS_SKIPPED: i64 = 100_000_000;

/// Prepares the database and prints a summary.
pub async fn run(db: &Database, metrics: &Metrics) -> anyhow::Result<()> {
    // As the owner of the tables: the role of the application may not change a sequence.
    let mut connection = PgConnection::connect_with(db.options()).await?;
    let (installation, sessions) =
        prepare(&mut connection, metrics).await.map_err(Error::into_cause)?;
    connection.close().await?;
    writeln!(
        std::io::stdout(),
        "installation {installation}, {sessions} sessions ended, {IDS_SKIPPED} ids skipped"
    )
    .context("cannot write the summary")
}

async fn prepare(db: &mut PgConnection, metrics: &Metrics) -> Result<(uuid::Uuid, u64)> {
    let mut tx = db.begin().await?;
    db::skip_ids(&mut tx, IDS_SKIPPED).await?;
    let sessions = users::end_all_sessions(&mut tx).await?;
    let installation = db::renew_installation(&mut tx).await?;
    let subject = installation.to_string();
    audit_log::append(
        &mut tx,
        metrics,
        Actor::OPERATOR,
        AuditAction::Restored,
        Some(&subject),
        Outcome::Done,
    )
    .await?;
    tx.commit().await?;
    Ok((installation, sessions))
}

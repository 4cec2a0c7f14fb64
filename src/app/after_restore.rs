//! `revwallet restored`: prepares a database for use after a restore to an earlier point in time.
//!
//! | step | why |
//! |---|---|
//! | the id sequences (wallets, users, keys, webhooks, deliveries) skip ahead | clients and webhook receivers may know ids that were assigned after that point: a deposit to a lost wallet must not reach another customer, and a receiver must not mistake a new delivery for a duplicate |
//! | every session ends | the restore has undone every sign-out and password change since that point |
//! | the installation gets a new id | the logs distinguish the restored database from the lost database |
//! | the audit log gets an entry | an auditor sees that there is a gap |
//!
//! Transfer ids cannot be skipped, because they are positions in the ledger. New transfers therefore reuse the ids of
//! the transfers that the restore lost.

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::audit_log::{self, Actor, AuditAction, Outcome};
use crate::db::{self, Database};
use crate::error::{Error, Result};
use crate::output::OutputArgs;
use crate::telemetry::Metrics;
use crate::users;

/// Number of ids that each sequence skips: more than the program assigns between two backups, but few enough not to
/// exhaust the account numbers, which end at 2^44.
const IDS_SKIPPED: i64 = 100_000_000;

/// Summary of the changes that `revwallet restored` has made to the database. The command prints it.
#[derive(Debug, Serialize)]
pub struct RestoreSummary {
    installation: uuid::Uuid,
    sessions_ended: u64,
    ids_skipped: i64,
}

/// Prepares a restored database for use, and prints a summary of the changes.
pub async fn run(db: &Database, metrics: &Metrics, output: OutputArgs) -> anyhow::Result<()> {
    output.print(prepare(db, metrics).await?, Ok, |summary| {
        let RestoreSummary { installation, sessions_ended, ids_skipped } = summary;
        Ok(format!(
            "installation {installation}, {sessions_ended} sessions ended, {ids_skipped} ids skipped"
        ))
    })
}

/// Prepares a restored database for use, in one transaction.
pub async fn prepare(db: &Database, metrics: &Metrics) -> anyhow::Result<RestoreSummary> {
    // Connects as the owner of the tables, because the role of the application may not change a sequence.
    let mut connection = PgConnection::connect_with(db.options()).await?;
    let (installation, sessions_ended) =
        prepare_in(&mut connection, metrics).await.map_err(Error::into_cause)?;
    connection.close().await?;
    Ok(RestoreSummary { installation, sessions_ended, ids_skipped: IDS_SKIPPED })
}

async fn prepare_in(db: &mut PgConnection, metrics: &Metrics) -> Result<(uuid::Uuid, u64)> {
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

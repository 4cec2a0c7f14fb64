//! `revwallet restored`: what a database needs that was put back to an earlier moment, before anybody uses it.
//!
//! | what | why |
//! |---|---|
//! | ids of wallets, users, keys, webhooks and deliveries go on much further up | those given out since the moment are known outside: a deposit to a wallet that is gone must not reach a stranger, and a receiver of webhooks must not take news for a repetition |
//! | every session ends | a sign-out or a changed password since then is forgotten |
//! | the installation gets another id | the logs tell this copy from the one that was lost |
//! | a line in the trail | whoever reads the book later sees that there is a gap |
//!
//! Ids of transfers are places in the book and cannot be skipped: those since the moment are given out anew.

use std::io::Write;

use anyhow::Context;
use sqlx::{Connection, PgConnection};

use crate::db::{self, Database};
use crate::error::{Error, Result};
use crate::telemetry::Metrics;
use crate::trail::{self, Action, By};
use crate::users;

/// How far the ids go on: more than are given out between two backups. Ids of accounts end at 2^40.
const IDS_SKIPPED: i64 = 100_000_000;

/// Makes the database ready and prints what was done.
pub async fn run(db: &Database, metrics: &Metrics) -> anyhow::Result<()> {
    // As its owner: the program's own role may not move a sequence on.
    let mut connection = PgConnection::connect_with(db.options()).await?;
    let (installation, sessions) =
        make_ready(&mut connection, metrics).await.map_err(Error::into_cause)?;
    connection.close().await?;
    writeln!(
        std::io::stdout(),
        "installation {installation}, {sessions} sessions ended, ids go on {IDS_SKIPPED} further up"
    )
    .context("cannot write the answer")
}

async fn make_ready(db: &mut PgConnection, metrics: &Metrics) -> Result<(uuid::Uuid, u64)> {
    let mut tx = db.begin().await?;
    db::skip_ids(&mut tx, IDS_SKIPPED).await?;
    let sessions = users::end_all_sessions(&mut tx).await?;
    let installation = db::renew_installation(&mut tx).await?;
    let subject = installation.to_string();
    trail::note(&mut tx, metrics, By::OPERATOR, Action::Restored, Some(&subject), true).await?;
    tx.commit().await?;
    Ok((installation, sessions))
}

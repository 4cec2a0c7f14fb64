//! SQL statements for the audit log.

use sqlx::PgConnection;

use super::{Actor, AuditEntry, NewEntry};
use crate::error::Result;

pub(super) async fn append(
    db: &mut PgConnection,
    actor: Actor<'_>,
    entry: &NewEntry<'_>,
) -> Result<i64> {
    let address = actor.origin.and_then(|origin| origin.address).map(|address| address.to_string());
    let id = sqlx::query_scalar!(
        "insert into trail (actor, action, subject, outcome, address, trace_id, reason)
        values ($1, $2, $3, $4, $5, $6, $7) returning id",
        actor.name,
        entry.action.name(),
        entry.subject,
        entry.outcome.name(),
        address,
        actor.origin.map(|origin| origin.trace),
        entry.reason,
    );
    Ok(id.fetch_one(db).await?)
}

/// Returns at most `limit` entries with an id below `before`, newest first. If `subject` is given, returns only entries
/// about it.
pub(super) async fn list(
    db: &mut PgConnection,
    subject: Option<&str>,
    before: i64,
    limit: i64,
) -> Result<Vec<AuditEntry>> {
    let rows = if let Some(subject) = subject {
        let rows = sqlx::query_as!(
            AuditEntry,
            "select id, at, actor, action, subject, outcome, address, trace_id, reason
                from trail where subject = $1 and id < $2 order by id desc limit $3",
            subject,
            before,
            limit
        );
        rows.fetch_all(db).await?
    } else {
        let rows = sqlx::query_as!(
            AuditEntry,
            "select id, at, actor, action, subject, outcome, address, trace_id, reason
                from trail where id < $1 order by id desc limit $2",
            before,
            limit
        );
        rows.fetch_all(db).await?
    };
    Ok(rows)
}

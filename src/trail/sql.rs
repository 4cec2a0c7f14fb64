//! The statements of the trail.

use sqlx::PgConnection;

use super::{By, Entry};
use crate::error::Result;

pub(super) async fn add(
    db: &mut PgConnection,
    by: By<'_>,
    action: &str,
    subject: Option<&str>,
    outcome: &str,
) -> Result<i64> {
    let address = by.origin.and_then(|origin| origin.address).map(|address| address.to_string());
    let id = sqlx::query_scalar!(
        "insert into trail (actor, action, subject, outcome, address, trace_id)
        values ($1, $2, $3, $4, $5, $6) returning id",
        by.actor,
        action,
        subject,
        outcome,
        address,
        by.origin.map(|origin| origin.trace),
    );
    Ok(id.fetch_one(db).await?)
}

/// Lines with an id below `before`, newest first.
pub(super) async fn list(
    db: &mut PgConnection,
    subject: Option<&str>,
    before: i64,
    limit: i64,
) -> Result<Vec<Entry>> {
    let rows = if let Some(subject) = subject {
        let rows = sqlx::query_as!(
            Entry,
            "select id, at, actor, action, subject, outcome, address, trace_id
                from trail where subject = $1 and id < $2 order by id desc limit $3",
            subject,
            before,
            limit
        );
        rows.fetch_all(db).await?
    } else {
        let rows = sqlx::query_as!(
            Entry,
            "select id, at, actor, action, subject, outcome, address, trace_id
                from trail where id < $1 order by id desc limit $2",
            before,
            limit
        );
        rows.fetch_all(db).await?
    };
    Ok(rows)
}

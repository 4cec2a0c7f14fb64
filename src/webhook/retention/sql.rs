//! SQL statements for the upkeep of deliveries.

use std::time::Duration;

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::WebhookId;
use crate::webhook::queue::Subject;

/// Deletes finished deliveries that are older than `age`. Returns the number of deleted deliveries.
pub(super) async fn delete_finished(
    db: &mut PgConnection,
    age: Duration,
    limit: i64,
) -> Result<u64> {
    let done = sqlx::query!(
        "delete from delivery where id in (
            select id from delivery
            where state <> 'pending' and created_at < now() - make_interval(secs => $1)
            order by created_at
            limit $2
        )",
        age.as_secs_f64(),
        limit,
    );
    Ok(done.execute(db).await?.rows_affected())
}

/// Deletes pending deliveries of webhooks whose owner no longer exists. Returns the number of deleted deliveries.
pub(super) async fn delete_pending_of_inactive(db: &mut PgConnection, limit: i64) -> Result<u64> {
    let done = sqlx::query!(
        "delete from delivery where id in (
            select d.id from webhook w
            join delivery d on d.webhook = w.id and d.state = 'pending'
            where not webhook_owner_is_active(w.caller)
            limit $1
        )",
        limit,
    );
    Ok(done.execute(db).await?.rows_affected())
}

/// Deletes webhooks whose owner no longer exists and whose delivery log is empty.
pub(super) async fn delete_inactive(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        "delete from webhook w
        where not webhook_owner_is_active(w.caller)
            and not exists (select from delivery d where d.webhook = w.id)"
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A stalled delivery: its webhook, the owner of the webhook, and the subject (such as a wallet) that its event is
/// about.
pub(super) struct Stalled {
    pub webhook: WebhookId,
    pub subject: Subject,
    pub owner: String,
}

/// Returns the pairs of a webhook and a subject (such as a wallet) with a delivery that has been pending for at least
/// `age` without an attempt. Omits paused webhooks. If there are more than 1000, returns a random selection of 1000, so
/// that each pair is eventually found.
pub(super) async fn stalled(db: &mut PgConnection, age: Duration) -> Result<Vec<Stalled>> {
    let rows = sqlx::query_as!(
        Stalled,
        r#"select webhook as "webhook: WebhookId", subject as "subject!: Subject", owner from (
            select distinct d.webhook, delivery_subject(d.wallet, d.app_user) as subject, w.caller as owner
            from delivery d
            join webhook w on w.id = d.webhook
            where d.state = 'pending'
                and coalesce(d.attempted_at, d.created_at) < now() - make_interval(secs => $1)
                and coalesce(w.paused_until, '-infinity') < now()
                and webhook_owner_is_active(w.caller)
        ) found
        order by random()
        limit 1000"#,
        age.as_secs_f64(),
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns the number of deliveries that were given up and not replayed.
pub(super) async fn count_dead(db: &mut PgConnection) -> Result<i64> {
    let count =
        sqlx::query_scalar!(r#"select count(*) as "count!" from delivery where state = 'dead'"#);
    Ok(count.fetch_one(db).await?)
}

/// Returns the number of webhooks that are currently paused.
pub(super) async fn count_paused(db: &mut PgConnection) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from webhook where paused_until > now()"#
    );
    Ok(count.fetch_one(db).await?)
}

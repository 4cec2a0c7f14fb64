//! SQL statements for webhooks and the events that they subscribe to.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Result;
use crate::idempotency_key::HashedKey;
use crate::ids::{UserId, WebhookId};
use crate::ledger::book::{book_of, index_of};

/// Whether any webhook or alert exists. If none exists, transfers need not be turned into events.
pub(super) async fn has_webhooks_or_alerts(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from webhook) or exists (select from alert) as "there!""#
    )
    .fetch_one(db)
    .await
}

/// The events that a webhook subscribes to, and the rights of its owner.
pub(super) struct Subscription {
    pub id: WebhookId,
    /// Name of the caller that owns the webhook.
    pub owner: String,
    /// Sequence number of the last transfer in each part (book) of the ledger when the webhook was created. The webhook
    /// receives only later transfers.
    from_seqs: Vec<i64>,
    /// First database transaction whose events the webhook receives. All earlier transactions had ended when the
    /// webhook was created.
    pub from_xid: i64,
    pub events: Vec<String>,
    /// The user that owns the webhook; `None` if the owner is not a user.
    pub app_user: Option<UserId>,
    /// Whether the owner currently has the right to see every wallet.
    pub sees_all: bool,
}

impl Subscription {
    /// Whether the webhook is older than the transfer with this sequence number.
    pub(super) fn is_before(&self, seq: i64) -> bool {
        // A book without an entry was created after the webhook.
        self.from_seqs.get(index_of(book_of(seq))).is_none_or(|from| *from < seq)
    }

    /// Whether the webhook subscribes to events with this name.
    pub(super) fn wants(&self, event: &str) -> bool {
        self.events.iter().any(|name| name == "*" || name == event)
    }
}

/// Returns the subscriptions of all webhooks whose owner still exists.
pub(super) async fn subscriptions(db: &mut PgConnection) -> Result<Vec<Subscription>> {
    let rows = sqlx::query_as!(
        Subscription,
        r#"
        select w.id as "id: WebhookId", w.caller as owner, w.from_seq || w.from_seqs as "from_seqs!", w.from_xid, w.events,
            u.id as "app_user?: UserId",
            coalesce(u.role = 'admin', k.revoked_at is null and k.scopes && '{wallet:read,admin}', false) as "sees_all!"
        from webhook w
        left join app_user u on u.id = case when w.caller like 'user:%' then substr(w.caller, 6)::bigint end
        left join api_key k on k.id = case when w.caller like 'key:%' then substr(w.caller, 5)::bigint end
        where webhook_owner_is_active(w.caller)
        order by w.id"#
    );
    Ok(rows.fetch_all(db).await?)
}

/// Records that a receiver has accepted a delivery, and ends the pause of its webhook. `is_prompt` tells whether the
/// attempt was quick.
pub(super) async fn record_response(
    db: &mut PgConnection,
    id: WebhookId,
    is_prompt: bool,
) -> Result<()> {
    sqlx::query!(
        "update webhook set is_prompt = $2, timeouts = 0, paused_until = null
        where id = $1 and (is_prompt <> $2 or timeouts > 0)",
        id.0,
        is_prompt,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Pauses a webhook. Returns false, and changes nothing, if a concurrent attempt has already counted this timeout.
pub(super) async fn pause(
    db: &mut PgConnection,
    id: WebhookId,
    timeouts: i32,
    pause: Duration,
) -> Result<bool> {
    let done = sqlx::query!(
        "update webhook
        set is_prompt = false, timeouts = $2, paused_until = now() + make_interval(secs => $3)
        where id = $1 and timeouts < $2",
        id.0,
        timeouts,
        pause.as_secs_f64(),
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// A row of the table `webhook`.
pub(super) struct WebhookRow {
    pub id: WebhookId,
    pub caller: String,
    pub url: String,
    pub events: Vec<String>,
    pub secret: String,
    pub created_at: OffsetDateTime,
    pub rotated_at: Option<OffsetDateTime>,
    pub content_hash: Option<Uuid>,
}

/// Locks a caller until the transaction ends, so that concurrent requests cannot create more webhooks than the caller
/// may have.
pub(super) async fn lock_owner(db: &mut PgConnection, caller: &str) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('webhook ' || $1::text, 0))",
        caller
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Inserts a webhook. Returns `None` if the idempotency key was already used.
pub(super) async fn create(
    db: &mut PgConnection,
    caller: &str,
    url: &str,
    events: &[String],
    secret: &str,
    key: Option<HashedKey>,
) -> Result<Option<WebhookRow>> {
    let row = sqlx::query_as!(
        WebhookRow,
        r#"insert into webhook (caller, url, events, secret, key_hash, content_hash, from_seq, from_seqs)
        select $1, $2, $3, $4, $5, $6, head.seqs[1], head.seqs[2:]
        from (
            select array_agg(s.seq order by b.book) as seqs
            from ledger.book b
            cross join lateral ledger.last_seal(b.book) s
        ) head
        on conflict do nothing
        returning id as "id: WebhookId", caller, url, events, secret, created_at, rotated_at, content_hash"#,
        caller,
        url,
        events,
        secret,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns the webhook that was created with this idempotency key.
pub(super) async fn find_by_key(db: &mut PgConnection, key: Uuid) -> Result<Option<WebhookRow>> {
    let row = sqlx::query_as!(
        WebhookRow,
        r#"select id as "id: WebhookId", caller, url, events, secret, created_at, rotated_at, content_hash
        from webhook where key_hash = $1"#,
        key
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns the webhooks of a caller.
pub(super) async fn list(db: &mut PgConnection, caller: &str) -> Result<Vec<WebhookRow>> {
    let rows = sqlx::query_as!(
        WebhookRow,
        r#"select id as "id: WebhookId", caller, url, events, secret, created_at, rotated_at, content_hash
        from webhook where caller = $1 order by id"#,
        caller,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns the webhook with this id if it belongs to `caller`. If `caller` is `None`, it may belong to any caller.
pub(super) async fn find(
    db: &mut PgConnection,
    caller: Option<&str>,
    id: WebhookId,
) -> Result<Option<WebhookRow>> {
    let row = sqlx::query_as!(
        WebhookRow,
        r#"select id as "id: WebhookId", caller, url, events, secret, created_at, rotated_at, content_hash
        from webhook where id = $2 and ($1::text is null or caller = $1)"#,
        caller,
        id.0,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Deletes a webhook if it belongs to `caller`. If `caller` is `None`, it may belong to any caller. Returns whether a
/// webhook was deleted.
pub(super) async fn delete(
    db: &mut PgConnection,
    caller: Option<&str>,
    id: WebhookId,
) -> Result<bool> {
    let done = sqlx::query!(
        "delete from webhook where id = $1 and ($2::text is null or caller = $2)",
        id.0,
        caller
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Replaces the secret, and keeps the previous secret for another day. Returns false, and changes nothing, if the last
/// rotation used the same idempotency key.
pub(super) async fn rotate(
    db: &mut PgConnection,
    caller: &str,
    id: WebhookId,
    secret: &str,
    key: Option<Uuid>,
) -> Result<bool> {
    let done = sqlx::query!(
        "update webhook
        set secret_before = secret, secret = $3, rotated_at = now(), rotation_key = $4
        where id = $1 and caller = $2 and ($4::uuid is null or rotation_key is distinct from $4)",
        id.0,
        caller,
        secret,
        key,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

//! Statements of webhooks and their deliveries.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::BOOK;
use super::delivery::{DeliveryState, WebhookDelivery};
use super::queue::Subject;
use crate::error::{Error, Result};
use crate::idempotency::HashedKey;
use crate::ids::{DeliveryId, TransferId, UserId, WalletId, WebhookId};

/// Hours after a rotation during which the previous secret signs as well.
const OVERLAP_HOURS: i32 = 24;

/// Whether there is a webhook or an alert, so that transfers produce events.
pub(super) async fn has_webhooks_or_alerts(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from webhook) or exists (select from alert) as "there!""#
    )
    .fetch_one(db)
    .await
}

/// Hours after which a delivery to a paused webhook is given up.
const PENDING_HOURS_MAX: i32 = 24;

/// Events that a webhook subscribes to, and the rights of its owner.
pub(super) struct Subscription {
    pub id: WebhookId,
    /// Name of the caller that it belongs to.
    pub owner: String,
    /// Head of the book when the webhook was created: it receives only later transfers.
    pub from_seq: i64,
    /// Transaction from which on it receives events: those before had ended when the webhook was created.
    pub from_xid: i64,
    pub events: Vec<String>,
    /// The user that it belongs to, if its owner is a user.
    pub app_user: Option<UserId>,
    /// Whether its owner may see every wallet now.
    pub sees_all: bool,
}

impl Subscription {
    /// Whether it subscribes to events of this name.
    pub(super) fn wants(&self, event: &str) -> bool {
        self.events.iter().any(|name| name == "*" || name == event)
    }
}

/// The subscriptions of all webhooks whose owner still exists.
pub(super) async fn subscriptions(db: &mut PgConnection) -> Result<Vec<Subscription>> {
    let rows = sqlx::query_as!(
        Subscription,
        r#"
        select w.id as "id: WebhookId", w.caller as owner, w.from_seq, w.from_xid, w.events,
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

/// An event on its way to webhooks.
pub(super) struct NewDelivery<'a> {
    pub subject: Subject,
    /// The transfer behind it.
    pub seq: Option<i64>,
    /// Trace of the request that caused it.
    pub trace_id: Option<Uuid>,
    pub event: &'a str,
    pub body: &'a str,
}

/// New deliveries, column by column.
#[derive(Default)]
pub(super) struct NewDeliveries {
    webhooks: Vec<i64>,
    wallets: Vec<Option<i64>>,
    users: Vec<Option<i64>>,
    seqs: Vec<Option<i64>>,
    traces: Vec<Option<Uuid>>,
    events: Vec<String>,
    bodies: Vec<String>,
}

impl NewDeliveries {
    pub(super) fn push(&mut self, webhook: WebhookId, new: &NewDelivery<'_>) {
        self.webhooks.push(webhook.0);
        self.wallets.push(new.subject.wallet().map(|id| id.0));
        self.users.push(new.subject.user().map(|id| id.0));
        self.seqs.push(new.seq);
        self.traces.push(new.trace_id);
        self.events.push(new.event.to_owned());
        self.bodies.push(new.body.to_owned());
    }
}

/// Inserts deliveries, except those of webhooks that were deleted in the meantime.
pub(super) async fn insert_deliveries(
    db: &mut PgConnection,
    deliveries: &NewDeliveries,
) -> Result<()> {
    let NewDeliveries { webhooks, wallets, users, seqs, traces, events, bodies } = deliveries;
    sqlx::query!(
        "insert into delivery (webhook, wallet, app_user, seq, trace_id, event, body)
        select d.webhook, d.wallet, d.app_user, d.seq, d.trace_id, d.event, d.body
        from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::text[], $7::text[])
            with ordinality as d (webhook, wallet, app_user, seq, trace_id, event, body, n)
        where exists (select from webhook w where w.id = d.webhook for key share)
        order by d.n",
        webhooks,
        wallets as &[Option<i64>],
        users as &[Option<i64>],
        seqs as &[Option<i64>],
        traces as &[Option<Uuid>],
        events,
        bodies,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The next delivery of a subject to a webhook.
pub(super) struct NextDelivery {
    pub id: DeliveryId,
    pub body: String,
    pub url: String,
    pub secret: String,
    /// The previous secret, while it still signs after a rotation.
    pub secret_before: Option<String>,
    /// Trace of the request that caused the event.
    pub trace_id: Option<Uuid>,
    /// Name of the caller that the webhook belongs to.
    pub owner: String,
    /// Whether the last attempt at the webhook ended quickly.
    pub is_prompt: bool,
    /// Attempts that timed out since the receiver last responded.
    pub timeouts: i32,
    /// Seconds until the end of a pause.
    pub pause_seconds: Option<f64>,
    /// Whether the delivery has been pending for longer than a paused webhook is waited for.
    pub is_overdue: bool,
}

/// The oldest pending delivery of a subject to a webhook whose owner still exists.
pub(super) async fn next_pending(
    db: &mut PgConnection,
    webhook: WebhookId,
    subject: Subject,
) -> Result<Option<NextDelivery>> {
    let row = sqlx::query_as!(
        NextDelivery,
        r#"
        select d.id as "id: DeliveryId", d.body, w.url, w.secret,
            case when w.rotated_at > now() - make_interval(hours => $3) then w.secret_before end as secret_before,
            coalesce(d.trace_id, t.trace_id) as trace_id, w.caller as owner, w.is_prompt, w.timeouts,
            case when w.paused_until > now() then extract(epoch from w.paused_until - now())::float8 end as pause_seconds,
            d.pending_since < now() - make_interval(hours => $5) as "is_overdue!"
        from delivery d
        join webhook w on w.id = d.webhook and webhook_owner_is_active(w.caller)
        left join ledger.transfer t on t.book = $4 and t.seq = d.seq
        where d.webhook = $1 and delivery_subject(d.wallet, d.app_user) = $2 and d.state = 'pending'
        order by d.id
        limit 1"#,
        webhook.0,
        subject as Subject,
        OVERLAP_HOURS,
        BOOK,
        PENDING_HOURS_MAX,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Records the outcome of an attempt.
pub(super) async fn record_attempt(
    db: &mut PgConnection,
    id: DeliveryId,
    state: DeliveryState,
    status: Option<i16>,
    error: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "update delivery
        set state = $2, status = $3, error = $4, attempts = attempts + 1, attempted_at = now()
        where id = $1",
        id.0,
        state.name(),
        status,
        error,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives up a delivery without an attempt.
pub(super) async fn give_up(db: &mut PgConnection, id: DeliveryId) -> Result<()> {
    sqlx::query!("update delivery set state = 'dead' where id = $1 and state = 'pending'", id.0)
        .execute(db)
        .await?;
    Ok(())
}

/// Records that a receiver responded: it is no longer paused.
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

/// Pauses a webhook. Returns `false` if a concurrent attempt has already counted this number of timeouts.
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

/// Serializes the creation of webhooks of a caller until the transaction ends, so that their number can be checked.
pub(super) async fn lock_owner(db: &mut PgConnection, caller: &str) -> Result<()> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('webhook ' || $1::text, 0))",
        caller
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Inserts a webhook; `None` if the idempotency key was used before.
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
        r#"insert into webhook (caller, url, events, secret, key_hash, content_hash, from_seq)
        values ($1, $2, $3, $4, $5, $6, (select seq from ledger.seal where book = 1 order by seq desc limit 1))
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

/// The webhook that was created with this idempotency key.
pub(super) async fn find_by_key(db: &mut PgConnection, key: Uuid) -> Result<Option<WebhookRow>> {
    let row = sqlx::query_as!(
        WebhookRow,
        r#"select id as "id: WebhookId", caller, url, events, secret, created_at, rotated_at, content_hash
        from webhook where key_hash = $1"#,
        key
    );
    Ok(row.fetch_optional(db).await?)
}

/// The webhooks of a caller.
pub(super) async fn list(db: &mut PgConnection, caller: &str) -> Result<Vec<WebhookRow>> {
    let rows = sqlx::query_as!(
        WebhookRow,
        r#"select id as "id: WebhookId", caller, url, events, secret, created_at, rotated_at, content_hash
        from webhook where caller = $1 order by id"#,
        caller,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The webhook with this id; only if it belongs to this caller, unless that is `None`.
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

/// Deletes a webhook; only if it belongs to this caller, unless that is `None`. Returns whether it existed.
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

/// Replaces the secret; the previous one signs as well for a day. Returns `false` if this key has rotated it before.
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

/// A delivery as the database has it.
struct DeliveryRow {
    id: DeliveryId,
    wallet: Option<WalletId>,
    transfer: Option<i64>,
    event: String,
    state: String,
    attempts: i32,
    status: Option<i16>,
    error: Option<String>,
    created_at: OffsetDateTime,
    attempted_at: Option<OffsetDateTime>,
}

impl TryFrom<DeliveryRow> for WebhookDelivery {
    type Error = Error;

    fn try_from(row: DeliveryRow) -> Result<Self> {
        Ok(Self {
            id: row.id,
            wallet: row.wallet,
            transfer: row.transfer.map(TransferId),
            event: row.event,
            state: row.state.parse()?,
            attempts: row.attempts,
            status: row.status,
            error: row.error,
            created_at: row.created_at,
            attempted_at: row.attempted_at,
        })
    }
}

/// The deliveries of a webhook with an id below `before`, newest first.
pub(super) async fn list_deliveries(
    db: &mut PgConnection,
    webhook: WebhookId,
    before: i64,
    limit: i64,
) -> Result<Vec<WebhookDelivery>> {
    let rows = sqlx::query_as!(
        DeliveryRow,
        r#"select d.id as "id: DeliveryId", d.wallet as "wallet: WalletId", d.seq - coalesce(t.leg, 0) as transfer,
            d.event, d.state, d.attempts, d.status, d.error, d.created_at, d.attempted_at
        from delivery d
        left join ledger.transfer t on t.book = $4 and t.seq = d.seq
        where d.webhook = $1 and d.id < $2
        order by d.id desc
        limit $3"#,
        webhook.0,
        before,
        limit,
        BOOK,
    );
    rows.fetch_all(db).await?.into_iter().map(WebhookDelivery::try_from).collect()
}

/// Makes deliveries pending again. Returns the subject of each.
pub(super) async fn replay(
    db: &mut PgConnection,
    webhook: WebhookId,
    delivery: Option<DeliveryId>,
    since: Option<OffsetDateTime>,
    limit: i64,
) -> Result<Vec<Subject>> {
    let subjects = sqlx::query_scalar!(
        r#"update delivery set state = 'pending', error = null, pending_since = now()
        where id in (
            select id from delivery
            where webhook = $1
                and ($2::bigint is null or id = $2)
                and ($3::timestamptz is null or created_at >= $3)
            order by id
            limit $4
        )
        returning delivery_subject(wallet, app_user) as "subject!: Subject""#,
        webhook.0,
        delivery.map(|id| id.0),
        since,
        limit,
    );
    Ok(subjects.fetch_all(db).await?)
}

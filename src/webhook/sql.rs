//! The statements of webhooks and alerts.

use std::time::Duration;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::BOOK;
use crate::error::Result;
use crate::idempotency::HashedKey;
use crate::ids::{AlertId, DeliveryId, UserId, WalletId, WebhookId};

/// How long the secret before a rotation signs as well.
const OVERLAP_HOURS: i32 = 24;

/// Whether anything of the book is to be told to anybody.
pub(super) async fn has_receivers(db: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from webhook) or exists (select from alert) as "there!""#
    )
    .fetch_one(db)
    .await
}

/// Which events a webhook wants.
pub(super) struct Subscription {
    pub id: WebhookId,
    pub from_seq: i64,
    pub events: Vec<String>,
    /// The user whose it is, if it is one's.
    pub app_user: Option<UserId>,
    /// Whether whose it is may look at everything, now.
    pub sees_all: bool,
}

pub(super) async fn subscriptions(db: &mut PgConnection) -> Result<Vec<Subscription>> {
    let rows = sqlx::query_as!(
        Subscription,
        r#"
        select w.id as "id: WebhookId", w.from_seq, w.events, u.id as "app_user?: UserId",
            coalesce(u.role = 'admin', k.revoked_at is null and k.scopes && '{wallet:read,admin}', false) as "sees_all!"
        from webhook w
        left join app_user u on u.id = case when w.caller like 'user:%' then substr(w.caller, 6)::bigint end
        left join api_key k on k.id = case when w.caller like 'key:%' then substr(w.caller, 5)::bigint end
        order by w.id"#
    );
    Ok(rows.fetch_all(db).await?)
}

pub(super) struct AlertRow {
    pub id: AlertId,
    pub wallet: WalletId,
    pub from_seq: i64,
    pub line: i64,
    pub direction: String,
    pub created_at: OffsetDateTime,
}

/// The alerts of these wallets.
pub(super) async fn alerts_of(
    db: &mut PgConnection,
    wallets: &[WalletId],
) -> Result<Vec<AlertRow>> {
    let ids: Vec<i64> = wallets.iter().map(|wallet| wallet.0).collect();
    let rows = sqlx::query_as!(
        AlertRow,
        r#"select id as "id: AlertId", wallet as "wallet: WalletId", from_seq, line, direction, created_at
        from alert where wallet = any ($1) order by id"#,
        &ids
    );
    Ok(rows.fetch_all(db).await?)
}

/// Deliveries, column by column.
#[derive(Default)]
pub(super) struct Deliveries {
    webhooks: Vec<i64>,
    wallets: Vec<i64>,
    seqs: Vec<i64>,
    events: Vec<String>,
    bodies: Vec<String>,
}

impl Deliveries {
    pub(super) fn push(
        &mut self,
        webhook: WebhookId,
        wallet: WalletId,
        seq: i64,
        event: &str,
        body: &str,
    ) {
        self.webhooks.push(webhook.0);
        self.wallets.push(wallet.0);
        self.seqs.push(seq);
        self.events.push(event.to_owned());
        self.bodies.push(body.to_owned());
    }
}

/// A webhook that is deleted meanwhile is told nothing.
pub(super) async fn deliver(db: &mut PgConnection, deliveries: &Deliveries) -> Result<()> {
    let Deliveries { webhooks, wallets, seqs, events, bodies } = deliveries;
    sqlx::query!(
        "insert into delivery (webhook, wallet, seq, event, body)
        select d.webhook, d.wallet, d.seq, d.event, d.body
        from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
            with ordinality as d (webhook, wallet, seq, event, body, n)
        where exists (select from webhook w where w.id = d.webhook for key share)
        order by d.n",
        webhooks,
        wallets,
        seqs,
        events,
        bodies,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What is to be delivered next.
pub(super) struct NextDelivery {
    pub id: DeliveryId,
    pub body: String,
    pub url: String,
    pub secret: String,
    pub secret_before: Option<String>,
    /// Of the request behind the transfer that it tells of.
    pub trace_id: Option<Uuid>,
}

pub(super) async fn next(
    db: &mut PgConnection,
    webhook: WebhookId,
    wallet: WalletId,
) -> Result<Option<NextDelivery>> {
    let row = sqlx::query_as!(
        NextDelivery,
        r#"
        select d.id as "id: DeliveryId", d.body, w.url, w.secret,
            case when w.rotated_at > now() - make_interval(hours => $3) then w.secret_before end as secret_before,
            t.trace_id
        from delivery d
        join webhook w on w.id = d.webhook
        left join ledger.transfer t on t.book = $4 and t.seq = d.seq
        where d.webhook = $1 and d.wallet = $2 and d.state = 'pending'
        order by d.id
        limit 1"#,
        webhook.0,
        wallet.0,
        OVERLAP_HOURS,
        BOOK,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Notes what became of an attempt.
pub(super) async fn note(
    db: &mut PgConnection,
    id: DeliveryId,
    state: &str,
    status: Option<i16>,
    error: Option<&str>,
) -> Result<()> {
    sqlx::query!(
        "update delivery
        set state = $2, status = $3, error = $4, attempts = attempts + 1, attempted_at = now()
        where id = $1",
        id.0,
        state,
        status,
        error,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A webhook as its owner sees it.
pub(super) struct WebhookRow {
    pub id: WebhookId,
    pub url: String,
    pub events: Vec<String>,
    pub secret: String,
    pub created_at: OffsetDateTime,
    pub rotated_at: Option<OffsetDateTime>,
    pub content_hash: Option<Uuid>,
}

/// A new webhook; nothing when the key was used.
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
        returning id as "id: WebhookId", url, events, secret, created_at, rotated_at, content_hash"#,
        caller,
        url,
        events,
        secret,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn of_key(db: &mut PgConnection, key: Uuid) -> Result<Option<WebhookRow>> {
    let row = sqlx::query_as!(
        WebhookRow,
        r#"select id as "id: WebhookId", url, events, secret, created_at, rotated_at, content_hash
        from webhook where key_hash = $1"#,
        key
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn list(
    db: &mut PgConnection,
    caller: &str,
    id: Option<WebhookId>,
) -> Result<Vec<WebhookRow>> {
    let rows = sqlx::query_as!(
        WebhookRow,
        r#"select id as "id: WebhookId", url, events, secret, created_at, rotated_at, content_hash
        from webhook where caller = $1 and ($2::bigint is null or id = $2) order by id"#,
        caller,
        id.map(|id| id.0),
    );
    Ok(rows.fetch_all(db).await?)
}

pub(super) async fn delete(db: &mut PgConnection, caller: &str, id: WebhookId) -> Result<bool> {
    let done = sqlx::query!("delete from webhook where id = $1 and caller = $2", id.0, caller);
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// A new secret; the one before signs as well for a day. Nothing when this key has rotated it already.
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

/// A line of the log.
pub(super) struct DeliveryRow {
    pub id: DeliveryId,
    pub wallet: WalletId,
    pub seq: i64,
    pub event: String,
    pub state: String,
    pub attempts: i32,
    pub status: Option<i16>,
    pub error: Option<String>,
    pub created_at: OffsetDateTime,
    pub attempted_at: Option<OffsetDateTime>,
}

pub(super) async fn deliveries(
    db: &mut PgConnection,
    webhook: WebhookId,
    before: i64,
    limit: i64,
) -> Result<Vec<DeliveryRow>> {
    let rows = sqlx::query_as!(
        DeliveryRow,
        r#"select id as "id: DeliveryId", wallet as "wallet: WalletId", seq, event, state, attempts, status, error,
            created_at, attempted_at
        from delivery where webhook = $1 and id < $2 order by id desc limit $3"#,
        webhook.0,
        before,
        limit,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Lets deliveries happen once more; the wallets that this is about.
pub(super) async fn replay(
    db: &mut PgConnection,
    webhook: WebhookId,
    delivery: Option<DeliveryId>,
    since: Option<OffsetDateTime>,
    limit: i64,
) -> Result<Vec<WalletId>> {
    let wallets = sqlx::query_scalar!(
        r#"update delivery set state = 'pending', error = null
        where id in (
            select id from delivery
            where webhook = $1
                and ($2::bigint is null or id = $2)
                and ($3::timestamptz is null or created_at >= $3)
            order by id
            limit $4
        )
        returning wallet as "wallet: WalletId""#,
        webhook.0,
        delivery.map(|id| id.0),
        since,
        limit,
    );
    Ok(wallets.fetch_all(db).await?)
}

/// A new alert; nothing when the key was used.
pub(super) async fn create_alert(
    db: &mut PgConnection,
    caller: &str,
    wallet: WalletId,
    direction: &str,
    line: i64,
    key: Option<HashedKey>,
) -> Result<Option<AlertRow>> {
    let row = sqlx::query_as!(
        AlertRow,
        r#"insert into alert (caller, wallet, direction, line, key_hash, content_hash, from_seq)
        values ($1, $2, $3, $4, $5, $6, (select seq from ledger.seal where book = 1 order by seq desc limit 1))
        on conflict do nothing
        returning id as "id: AlertId", wallet as "wallet: WalletId", from_seq, line, direction, created_at"#,
        caller,
        wallet.0,
        direction,
        line,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    Ok(row.fetch_optional(db).await?)
}

/// The alert of a key, and the content it came with.
pub(super) async fn alert_of_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(AlertRow, Option<Uuid>)>> {
    let row = sqlx::query!(
        "select id, wallet, from_seq, line, direction, created_at, content_hash
        from alert where key_hash = $1",
        key
    );
    let found = row.fetch_optional(db).await?;
    Ok(found.map(|row| {
        let alert = AlertRow {
            id: AlertId(row.id),
            wallet: WalletId(row.wallet),
            from_seq: row.from_seq,
            line: row.line,
            direction: row.direction,
            created_at: row.created_at,
        };
        (alert, row.content_hash)
    }))
}

pub(super) async fn delete_alert(
    db: &mut PgConnection,
    wallet: WalletId,
    id: AlertId,
) -> Result<bool> {
    let done = sqlx::query!("delete from alert where id = $1 and wallet = $2", id.0, wallet.0);
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Deletes finished deliveries that are older than `age`, and returns how many.
pub(super) async fn delete_old(db: &mut PgConnection, age: Duration, limit: i64) -> Result<u64> {
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

/// Webhooks and wallets for which something has been waiting for a while.
pub(super) async fn waiting(
    db: &mut PgConnection,
    since: Duration,
) -> Result<Vec<(WebhookId, WalletId)>> {
    let rows = sqlx::query!(
        "select distinct webhook, wallet from delivery
        where state = 'pending' and coalesce(attempted_at, created_at) < now() - make_interval(secs => $1)
        limit 1000",
        since.as_secs_f64(),
    );
    Ok(rows
        .fetch_all(db)
        .await?
        .into_iter()
        .map(|row| (WebhookId(row.webhook), WalletId(row.wallet)))
        .collect())
}

/// Number of deliveries that were given up and not replayed.
pub(super) async fn dead_letters(db: &mut PgConnection) -> Result<i64> {
    let count =
        sqlx::query_scalar!(r#"select count(*) as "count!" from delivery where state = 'dead'"#);
    Ok(count.fetch_one(db).await?)
}

//! SQL statements for deliveries.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DeliveryState, WebhookDelivery};
use crate::error::{Error, Result};
use crate::ids::{DeliveryId, TransferId, WalletId, WebhookId};
use crate::webhook::queue::Subject;

/// Number of hours after the rotation of a secret during which deliveries are also signed with the previous secret.
const OVERLAP_HOURS: i32 = 24;

/// Number of hours after which a pending delivery to a paused webhook is given up.
const PENDING_HOURS_MAX: i32 = 24;

/// An event that is to be sent to webhooks.
pub(in crate::webhook) struct NewDelivery<'a> {
    pub subject: Subject,
    /// Sequence number of the transfer that caused the event; `None` if no transfer caused it.
    pub seq: Option<i64>,
    /// Trace id of the request that caused the event.
    pub trace_id: Option<Uuid>,
    pub event: &'a str,
    pub body: &'a str,
}

/// New deliveries, as one list per column of the table.
#[derive(Default)]
pub(in crate::webhook) struct NewDeliveries {
    webhooks: Vec<i64>,
    wallets: Vec<Option<i64>>,
    users: Vec<Option<i64>>,
    seqs: Vec<Option<i64>>,
    traces: Vec<Option<Uuid>>,
    events: Vec<String>,
    bodies: Vec<String>,
}

impl NewDeliveries {
    pub(in crate::webhook) fn push(&mut self, webhook: WebhookId, new: &NewDelivery<'_>) {
        self.webhooks.push(webhook.0);
        self.wallets.push(new.subject.wallet().map(|id| id.0));
        self.users.push(new.subject.user().map(|id| id.0));
        self.seqs.push(new.seq);
        self.traces.push(new.trace_id);
        self.events.push(new.event.to_owned());
        self.bodies.push(new.body.to_owned());
    }
}

/// Inserts deliveries. Omits deliveries to webhooks that were deleted in the meantime.
pub(in crate::webhook) async fn insert_deliveries(
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

/// The next delivery about a subject (such as a wallet) to a webhook, with the webhook's data that is needed to send
/// it.
pub(in crate::webhook) struct NextDelivery {
    pub id: DeliveryId,
    pub body: String,
    pub url: String,
    pub secret: String,
    /// The previous signing secret; `None` if the secret was not rotated within the last day.
    pub secret_before: Option<String>,
    /// Trace id of the request that caused the event.
    pub trace_id: Option<Uuid>,
    /// Name of the caller that owns the webhook.
    pub owner: String,
    /// Whether the webhook counts as prompt: its last successful delivery was quick, and no attempt has been slow
    /// since.
    pub is_prompt: bool,
    /// Number of attempts that timed out or failed slowly since the last successful delivery to this webhook.
    pub timeouts: i32,
    /// Number of seconds until the webhook's pause ends; `None` if it is not paused.
    pub pause_seconds: Option<f64>,
    /// Whether the delivery has been pending for so long that it should be given up if the webhook is paused.
    pub is_overdue: bool,
}

/// Returns the oldest pending delivery about a subject (such as a wallet) to a webhook, if the owner of the webhook
/// still exists.
pub(in crate::webhook) async fn next_pending(
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
            d.pending_since < now() - make_interval(hours => $4) as "is_overdue!"
        from delivery d
        join webhook w on w.id = d.webhook and webhook_owner_is_active(w.caller)
        left join ledger.transfer t on t.book = ledger.book_of(d.seq) and t.seq = d.seq
        where d.webhook = $1 and delivery_subject(d.wallet, d.app_user) = $2 and d.state = 'pending'
        order by d.id
        limit 1"#,
        webhook.0,
        subject as Subject,
        OVERLAP_HOURS,
        PENDING_HOURS_MAX,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Records the outcome of an attempt to send a delivery.
pub(in crate::webhook) async fn record_attempt(
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

/// Marks a delivery as dead, without another attempt.
pub(in crate::webhook) async fn give_up(db: &mut PgConnection, id: DeliveryId) -> Result<()> {
    sqlx::query!("update delivery set state = 'dead' where id = $1 and state = 'pending'", id.0)
        .execute(db)
        .await?;
    Ok(())
}

/// A row of the delivery log.
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

/// Returns a page of the deliveries of a webhook, newest first. Only deliveries with an id below `before` are returned.
pub(in crate::webhook) async fn list_deliveries(
    db: &mut PgConnection,
    webhook: WebhookId,
    before: i64,
    limit: i64,
) -> Result<Vec<WebhookDelivery>> {
    let rows = sqlx::query_as!(
        DeliveryRow,
        r#"select d.id as "id: DeliveryId", d.wallet as "wallet: WalletId", coalesce(t.home, t.seq) - t.leg as transfer,
            d.event, d.state, d.attempts, d.status, d.error, d.created_at, d.attempted_at
        from delivery d
        left join ledger.transfer t on t.book = ledger.book_of(d.seq) and t.seq = d.seq
        where d.webhook = $1 and d.id < $2
        order by d.id desc
        limit $3"#,
        webhook.0,
        before,
        limit,
    );
    rows.fetch_all(db).await?.into_iter().map(WebhookDelivery::try_from).collect()
}

/// Marks deliveries as pending, so that they are sent again. Returns the subject (such as a wallet) of each delivery.
pub(in crate::webhook) async fn replay(
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

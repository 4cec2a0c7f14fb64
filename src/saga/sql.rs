//! SQL statements on sagas and their steps.

use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::transitions::SagaState;
use crate::error::{Error, Result};
use crate::ids::{SagaId, UserId};
use crate::ledger::companion::CompanionKind;

/// Statement that advances a saga in the transaction of a ledger posting, if the worker's claim is still the latest
/// claim.
pub static MOVED: CompanionKind = CompanionKind {
    name: "saga.moved",
    sql: "with took as (select n from public.move_sagas($2::text::json) n)",
};

/// A saga to create: an input row of the SQL function `create_sagas`. The module that begins the saga calls
/// `create_sagas` from its own SQL function, in the transaction of a ledger posting.
#[derive(Debug, Serialize)]
pub struct NewSaga<'a> {
    pub saga: SagaId,
    pub kind: &'a str,
    pub version: i16,
    pub owner: UserId,
    pub reference: Uuid,
    pub input: &'a RawValue,
    /// Time until the deadline, in seconds.
    pub seconds: f64,
    /// Whether the saga may begin without an operator's approval.
    pub approved: bool,
    pub first_name: &'a str,
    pub next_name: &'a str,
    pub trace: Uuid,
}

/// A change to a saga and to its current step: an input row of the SQL function `move_sagas`.
#[derive(Debug, Serialize)]
pub(super) struct Move<'a> {
    pub saga: SagaId,
    pub fence: i64,
    pub state: &'a str,
    pub undoing: bool,
    pub reason: Option<&'a str>,
    /// Time until a worker may claim the saga again, in seconds; `None` if no worker may claim it.
    pub seconds: Option<f64>,
    pub notification: Option<&'a str>,
    pub step: i16,
    /// Whether the change applies to the undo of the step instead of the step itself.
    pub undid: bool,
    pub step_name: &'a str,
    pub step_state: &'a str,
    pub error: Option<&'a str>,
    pub result: Option<&'a RawValue>,
    /// Index, within the posting, of the transfer that is recorded for the step.
    pub first: Option<usize>,
    pub next: Option<i16>,
    pub next_name: Option<&'a str>,
}

/// Advances a saga without moving money. Returns false if the worker's claim is no longer the latest claim.
pub(super) async fn move_on(db: &mut PgConnection, row: &Move<'_>) -> Result<bool> {
    #[derive(Serialize)]
    struct Numbered<'a> {
        n: i32,
        #[serde(flatten)]
        row: &'a Move<'a>,
    }
    let rows = serde_json::to_string(&[Numbered { n: 0, row }]);
    let rows = rows.map_err(|cause| Error::Internal(cause.into()))?;
    let moved =
        sqlx::query_scalar!(r#"select count(*) as "count!" from move_sagas($1::text::json)"#, rows);
    Ok(moved.fetch_one(db).await? == 1)
}

/// A saga that this worker has claimed, with its current step as it was before the claim.
#[derive(Debug)]
pub(super) struct ClaimedRow {
    pub saga: SagaId,
    pub fence: i64,
    pub owner: UserId,
    pub trace: Option<Uuid>,
    pub reference: Uuid,
    pub version: i16,
    pub step: i16,
    pub notifications: i16,
    pub undoing: bool,
    pub is_late: bool,
    pub kind: String,
    pub state: String,
    pub reason: Option<String>,
    pub input: String,
    pub step_state: String,
    pub attempts: i32,
    pub round: i16,
    pub result: Option<String>,
    pub transfer: Option<i64>,
    pub resolution: Option<String>,
}

/// Claims up to `limit` sagas that are due, for the duration of the lease.
pub(super) async fn claim(
    db: &mut PgConnection,
    limit: i32,
    lease_seconds: f64,
) -> Result<Vec<ClaimedRow>> {
    let rows = sqlx::query_as!(
        ClaimedRow,
        r#"select saga as "saga!: SagaId", fence as "fence!", owner as "owner!: UserId", trace, reference as "reference!",
            version as "version!", step as "step!", notifications as "notifications!", undoing as "undoing!",
            is_late as "is_late!", kind as "kind!", state as "state!", reason,
            input::text as "input!", step_state as "step_state!", attempts as "attempts!", round as "round!",
            result::text as result, transfer, resolution
        from claim_sagas($1, $2)"#,
        limit,
        lease_seconds,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns the seconds until the next saga is due or the next lease expires; negative if that moment has passed.
pub(super) async fn seconds_until_due(db: &mut PgConnection) -> Result<Option<f64>> {
    let seconds = sqlx::query_scalar!(
        "select extract(epoch from min(run_at) - clock_timestamp())::float8
        from saga where run_at is not null"
    );
    Ok(seconds.fetch_one(db).await?)
}

/// Marks the notification of a saga as sent, or schedules another attempt after `retry_seconds`. Returns false if the
/// worker's claim is no longer the latest claim.
pub(super) async fn end_notification(
    db: &mut PgConnection,
    saga: SagaId,
    fence: i64,
    retry_seconds: Option<f64>,
) -> Result<bool> {
    let done = sqlx::query!(
        "update saga
        set notification = case when $3::float8 is null then 'sent' else notification end,
            run_at = clock_timestamp() + make_interval(secs => $3)
        where id = $1 and fence = $2",
        saga.0,
        fence,
        retry_seconds,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Releases a claimed saga without advancing it. The saga is due again after `seconds`.
pub(super) async fn release(
    db: &mut PgConnection,
    saga: SagaId,
    fence: i64,
    seconds: f64,
    reason: Option<&str>,
) -> Result<bool> {
    let done = sqlx::query!(
        "update saga
        set run_at = clock_timestamp() + make_interval(secs => $3), reason = coalesce($4, reason)
        where id = $1 and fence = $2 and run_at is not null",
        saga.0,
        fence,
        seconds,
        reason,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Number of open sagas with the same kind and state, and the age of the oldest of these sagas.
pub(super) struct OpenSagas {
    pub kind: String,
    pub state: String,
    pub count: i64,
    /// Age of the oldest saga, in seconds.
    pub oldest: f64,
}

/// Counts the open sagas by kind and state.
pub(super) async fn open(db: &mut PgConnection) -> Result<Vec<OpenSagas>> {
    let rows = sqlx::query_as!(
        OpenSagas,
        r#"select kind, state, count(*) as "count!",
            extract(epoch from clock_timestamp() - min(created_at))::float8 as "oldest!"
        from saga where ended_at is null
        group by kind, state"#
    );
    Ok(rows.fetch_all(db).await?)
}

/// Facts about a saga that decide which commands it accepts. The saga stays locked until the transaction ends.
pub(super) struct LockedSaga {
    pub state: String,
    pub step: i16,
    pub undoing: bool,
    pub approves: bool,
    pub is_unknown: bool,
}

pub(super) async fn lock(db: &mut PgConnection, saga: SagaId) -> Result<Option<LockedSaga>> {
    let row = sqlx::query_as!(
        LockedSaga,
        r#"select s.state, s.step, is_undoing as undoing,
            s.state = 'pending' and run_at is null as "approves!", t.state = 'unknown' as "is_unknown!"
        from saga s join saga_step t on t.saga = s.id and t.step = s.step
        where s.id = $1
        for update of s"#,
        saga.0,
    );
    Ok(row.fetch_optional(db).await?)
}

/// A change that an operator makes to a saga. The change ends the claim of a worker that is running the saga.
pub(super) struct OperatorChange<'a> {
    pub saga: SagaId,
    pub state: SagaState,
    pub undoing: bool,
    /// New reason for the state of the saga. `None` keeps the current reason if the saga is being undone, and otherwise
    /// removes it.
    pub reason: Option<&'a str>,
    /// Whether the deadline moves to now. If not, the saga gets its full time again, as when it began.
    pub ends: bool,
    pub step: i16,
    /// New state of the current step, if that state changes.
    pub step_state: Option<&'a str>,
    /// Whether the call is made again under a new reference, because the external system has refused the old reference.
    pub renews: bool,
    pub resolution: Option<&'a str>,
}

pub(super) async fn change(db: &mut PgConnection, change: &OperatorChange<'_>) -> Result<()> {
    let OperatorChange { saga, state, undoing, reason, ends, step, .. } = change;
    sqlx::query!(
        "with stepped as (
            update saga_step t
            set state = coalesce($7, t.state), resolution = coalesce($8, t.resolution),
                round = t.round + case when $9 then 1 else 0 end,
                attempts = case when t.state = 'unknown' then t.attempts when s.is_undoing then t.attempts else 0 end,
                undo_attempts = case when t.state = 'unknown' then t.undo_attempts when s.is_undoing then 0 else t.undo_attempts end
            from saga s
            where s.id = $1 and t.saga = s.id and t.step = s.step
        )
        update saga
        set state = $2, is_undoing = $3, reason = case when $3 then coalesce($4, reason) else $4 end, deadline = clock_timestamp() + case when $5 then interval '0' else time_allowed end,
            step = $6, run_at = clock_timestamp(), fence = fence + 1
        where id = $1",
        saga.0,
        state.name(),
        undoing,
        *reason,
        ends,
        step,
        change.step_state,
        change.resolution,
        change.renews,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!("select pg_notify('event', '1')::text as done").fetch_one(db).await?;
    Ok(())
}

/// A step of a saga, as the API and the command line show it.
#[derive(Debug, Clone)]
pub struct StepRow {
    pub saga: SagaId,
    pub step: i16,
    pub name: String,
    pub state: String,
    pub attempts: i32,
    pub undo_attempts: i32,
    pub started_at: Option<OffsetDateTime>,
    pub ended_at: Option<OffsetDateTime>,
    pub error: Option<String>,
    pub transfer: Option<i64>,
    pub undo_transfer: Option<i64>,
}

/// Returns the steps of the given sagas, sorted by saga and then in the order in which they run.
pub async fn steps(db: &mut PgConnection, sagas: &[i64]) -> Result<Vec<StepRow>> {
    let rows = sqlx::query_as!(
        StepRow,
        r#"select saga as "saga: SagaId", step, name, state, attempts, undo_attempts, started_at, ended_at, error, transfer,
            undo_transfer
        from saga_step where saga = any ($1)
        order by saga, step"#,
        sagas,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Reserves the ids of new sagas.
pub(super) async fn next_ids(db: &mut PgConnection, count: i32) -> Result<Vec<SagaId>> {
    let ids = sqlx::query_scalar!(
        r#"select nextval(pg_get_serial_sequence('public.saga', 'id')) as "id!: SagaId"
        from generate_series(1, $1::int)"#,
        count,
    );
    Ok(ids.fetch_all(db).await?)
}

/// Makes a saga due now, if it is at one of `steps` and an attempt at the step has failed. If `steps` is empty, makes a
/// saga due now if it has ended and its notification is due. A worker that is running the saga may lose its claim.
/// Returns whether the saga is at one of `steps` or has a notification due.
pub(super) async fn wake(db: &mut PgConnection, saga: SagaId, steps: &[&str]) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"with found as (
            select s.id, s.fence from saga s join saga_step t on t.saga = s.id and t.step = s.step
            where s.id = $1 and s.run_at is not null
                and case when s.ended_at is null then t.name = any ($2) else cardinality($2) = 0 and s.notification = 'due' end
        ), woken as (
            update saga s set run_at = clock_timestamp() from found
            where s.id = found.id and s.fence = found.fence
                and (s.ended_at is not null
                    or exists (select from saga_step t where t.saga = s.id and t.step = s.step and t.error is not null))
        )
        select count(*) as "count!" from found"#,
        saga.0,
        steps as &[&str],
    );
    let is_found = found.fetch_one(&mut *db).await? == 1;
    sqlx::query!("select pg_notify('event', '1')::text as done").fetch_one(db).await?;
    Ok(is_found)
}

//! SQL statements for holds.

use sqlx::PgConnection;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Result};
use crate::ids::{HoldId, WalletId};
use crate::ledger::book::book_of;
use crate::ledger::companion::CompanionKind;
use crate::ledger::transfer::TransferKind;

/// Companion (a statement in the transaction of a posting) that inserts a new hold. The id of the hold is the id of the
/// transfer that placed it.
pub static PLACED: CompanionKind = CompanionKind {
    name: "wallet.hold_placed",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json)
        as (n int, seq bigint, wallet bigint, amount bigint, expires_at timestamptz, caller text)
), done as (
    insert into public.hold (id, wallet, amount, expires_at, caller)
    select seq, wallet, amount, expires_at, caller from input
    on conflict do nothing
    returning id
), took as (
    select n from input join done on done.id = input.seq
)",
};

/// Companion (a statement in the transaction of a posting) that updates a hold, unless its row has changed since it was
/// read. The statement compares more columns than the version, because after a restore of the database the same id and
/// version may belong to another hold.
pub static MOVED: CompanionKind = CompanionKind {
    name: "wallet.hold_moved",
    sql: "
with input as (
    select distinct on (id) * from json_to_recordset($2::text::json)
        as (n int, id bigint, wallet bigint, amount bigint, caller text, version int, was_captured bigint,
            was_released bigint, captured bigint, released bigint, state text)
    order by id, n
), done as (
    update public.hold h
    set captured = h.captured + i.captured,
        released = h.released + i.released,
        version = h.version + 1,
        state = i.state
    from input i
    where h.id = i.id and h.version = i.version and h.wallet = i.wallet and h.amount = i.amount
        and h.caller = i.caller and h.captured = i.was_captured and h.released = i.was_released
    returning h.id
), took as (
    select n from input join done using (id)
)",
};

/// Formats a moment for a companion (a statement in the transaction of a posting), which receives its input as JSON.
pub(super) fn moment(at: OffsetDateTime) -> Result<String> {
    at.format(&Rfc3339).map_err(|cause| Error::Internal(cause.into()))
}

pub(super) struct HoldRow {
    pub id: HoldId,
    pub wallet: WalletId,
    pub amount: i64,
    pub captured: i64,
    pub released: i64,
    pub expires_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub version: i32,
    pub state: String,
    pub caller: String,
    /// Metadata of the transfer that placed the hold.
    pub metadata: Option<String>,
}

pub(super) async fn find(db: &mut PgConnection, id: HoldId) -> Result<Option<HoldRow>> {
    let row = sqlx::query_as!(
        HoldRow,
        r#"select h.id as "id: HoldId", h.wallet as "wallet: WalletId", h.amount, captured, released, expires_at, t.at as created_at, version, state, caller, t.metadata::text as metadata
        from hold h join ledger.transfer t on t.book = $2 and t.seq = h.id
        where h.id = $1"#,
        id.0,
        book_of(id.0),
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn list(
    db: &mut PgConnection,
    wallet: WalletId,
    before: i64,
    limit: i64,
) -> Result<Vec<HoldRow>> {
    let rows = sqlx::query_as!(
        HoldRow,
        r#"select h.id as "id: HoldId", h.wallet as "wallet: WalletId", h.amount, captured, released, expires_at, t.at as created_at, version, state, caller, t.metadata::text as metadata
        from hold h join ledger.transfer t on t.book = $4 and t.seq = h.id
        where h.wallet = $1 and h.id < $2
        order by h.id desc
        limit $3"#,
        wallet.0,
        before,
        limit,
        book_of(wallet.0),
    );
    Ok(rows.fetch_all(db).await?)
}

/// An open hold that is past its expiry.
pub(super) struct DueHold {
    pub id: HoldId,
    pub expires_at: OffsetDateTime,
}

/// Returns the seconds until the first open hold expires; `None` if there is no open hold.
pub(super) async fn seconds_to_next_expiry(db: &mut PgConnection) -> Result<Option<f64>> {
    let seconds = sqlx::query_scalar!(
        r#"select extract(epoch from min(expires_at) - now())::float8 as "seconds"
        from hold where state = 'open'"#
    );
    Ok(seconds.fetch_one(db).await?)
}

/// Returns at most `limit` open holds that are past their expiry, oldest expiry first. Begins after the hold `after`.
pub(super) async fn expired(
    db: &mut PgConnection,
    after: Option<(OffsetDateTime, HoldId)>,
    limit: i64,
) -> Result<Vec<DueHold>> {
    let (expires_at, id) = after.unzip();
    let due = sqlx::query_as!(
        DueHold,
        r#"select id as "id: HoldId", expires_at from hold
        where state = 'open' and expires_at <= now()
            and (expires_at, id) > (coalesce($1, '-infinity'::timestamptz), coalesce($2, 0::bigint))
        order by expires_at, id limit $3"#,
        expires_at,
        id.map(|id| id.0),
        limit
    );
    Ok(due.fetch_all(db).await?)
}

/// Returns the amount that open holds reserve in each currency.
pub(super) async fn totals(db: &mut PgConnection) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"
        select w.currency, sum(h.amount - h.captured - h.released)::bigint as "held!"
        from hold h join wallet w on w.id = h.wallet
        where h.state = 'open'
        group by w.currency"#
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.currency, row.held)).collect())
}

/// Amounts that were captured and released from a hold up to a given transfer.
pub(super) struct MovedUntil {
    pub captured: i64,
    pub released: i64,
    pub last_kind: Option<i16>,
}

pub(super) async fn moved_until(
    db: &mut PgConnection,
    id: HoldId,
    last: i64,
) -> Result<MovedUntil> {
    let row = sqlx::query_as!(
        MovedUntil,
        r#"
        select
            coalesce(sum(amount) filter (where kind = $4), 0)::bigint as "captured!",
            coalesce(sum(amount) filter (where kind <> $4), 0)::bigint as "released!",
            (array_agg(kind order by seq desc))[1] as last_kind
        from ledger.transfer
        where book = $1 and linked = $2 and seq <= $3 and kind <> $5"#,
        book_of(id.0),
        id.0,
        last,
        TransferKind::Capture.code(),
        TransferKind::Refund.code(),
    );
    Ok(row.fetch_one(db).await?)
}

//! Statements that update a wallet's row.

use sqlx::PgConnection;

use super::Changed;
use crate::error::Result;
use crate::ledger::companion::CompanionKind;

/// Updates label and metadata together with a change of state.
pub static CHANGED: CompanionKind = CompanionKind {
    name: "wallet.changed",
    sql: "
with input as (
    select distinct on (id) * from json_to_recordset($2::text::json)
        as (n int, id bigint, sets_label boolean, label text, sets_metadata boolean, metadata text)
    order by id, n
), done as (
    update public.wallet w
    set label = case when i.sets_label then i.label else w.label end,
        metadata = case when i.sets_metadata then i.metadata::json else w.metadata end
    from input i
    where w.id = i.id
    returning w.id
), took as (
    select n from input join done using (id)
)",
};

/// Marks a wallet as closed.
pub static CLOSED: CompanionKind = CompanionKind {
    name: "wallet.closed",
    sql: "
with input as (
    select distinct on (id) * from json_to_recordset($2::text::json) as (n int, id bigint)
    order by id, n
), done as (
    update public.wallet w
    set closed_at = now()
    from input i
    where w.id = i.id and w.closed_at is null
    returning w.id
), took as (
    select n from input join done using (id)
)",
};

/// Updates label and metadata alone. Returns whether the wallet is open.
pub(super) async fn update(db: &mut PgConnection, changed: &Changed<'_>) -> Result<bool> {
    let Changed { id, sets_label, label, sets_metadata, metadata } = *changed;
    let done = sqlx::query!(
        "update wallet
        set label = case when $2 then $3 else label end,
            metadata = case when $4 then $5::text::json else metadata end
        where id = $1 and closed_at is null",
        id.0,
        sets_label,
        label,
        sets_metadata,
        metadata,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

//! SQL statements that update a wallet's row.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Changed;
use crate::error::Result;
use crate::idempotency_key::HashedKey;
use crate::ids::WalletId;
use crate::ledger::companion::CompanionKind;

/// Companion (a statement in the transaction of a posting) that updates the label and the metadata of a wallet. A
/// request that freezes or unfreezes the wallet uses it if the request also changes the label or the metadata.
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

/// Companion (a statement in the transaction of a posting) that marks a wallet as closed when its ledger account is
/// closed.
pub static CLOSED: CompanionKind = CompanionKind {
    name: "wallet.closed",
    sql: "
with input as (
    select distinct on (id) * from json_to_recordset($2::text::json) as (n int, id bigint)
    order by id, n
), done as (
    update public.wallet w
    set closed_at = now(), main = false
    from input i
    where w.id = i.id and w.closed_at is null
    returning w.id
), took as (
    select n from input join done using (id)
)",
};

/// Updates the label and metadata of a wallet without a posting. Returns false if the wallet is closed or does not
/// exist.
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

/// Companion (a statement in the transaction of a posting) that records the result of an update under its idempotency
/// key. It runs after [`CHANGED`] has updated the wallet's row.
pub static RECORDED: CompanionKind = CompanionKind {
    name: "wallet.update_recorded",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json)
        as (n int, seq bigint, key_hash uuid, content_hash uuid, wallet bigint, state text)
), done as (
    insert into public.wallet_update (key_hash, content_hash, wallet, seq, state, label, metadata)
    select i.key_hash, i.content_hash, i.wallet, i.seq, i.state, w.label, w.metadata
    from input i join public.wallet w on w.id = i.wallet
    on conflict do nothing
    returning key_hash
), took as (
    select n from input join done using (key_hash)
)",
};

/// Records the result of an update that makes no posting. Returns whether the idempotency key was unused.
pub(super) async fn record(
    db: &mut PgConnection,
    key: HashedKey,
    wallet: WalletId,
    seq: i64,
    state: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into wallet_update (key_hash, content_hash, wallet, seq, state, label, metadata)
        select $1, $2, w.id, $4, $5, w.label, w.metadata from wallet w where w.id = $3
        on conflict do nothing",
        key.hash,
        key.content,
        wallet.0,
        seq,
        state,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// The recorded result of an update.
pub(super) struct RecordedRow {
    pub content_hash: Uuid,
    pub wallet: WalletId,
    pub seq: i64,
    pub state: String,
    pub label: Option<String>,
    pub metadata: Option<String>,
    pub created_at: OffsetDateTime,
}

pub(super) async fn recorded(db: &mut PgConnection, key_hash: Uuid) -> Result<Option<RecordedRow>> {
    let row = sqlx::query_as!(
        RecordedRow,
        r#"select u.content_hash, u.wallet as "wallet: WalletId", u.seq, u.state, u.label,
            u.metadata::text as metadata, w.created_at
        from wallet_update u join wallet w on w.id = u.wallet
        where u.key_hash = $1"#,
        key_hash
    );
    Ok(row.fetch_optional(db).await?)
}

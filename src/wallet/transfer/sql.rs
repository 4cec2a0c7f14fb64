//! SQL statements for batches of transfers.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::Result;
use crate::ledger::companion::CompanionKind;

/// Companion (a statement in the transaction of a posting) that claims an idempotency key for a whole batch. It takes
/// effect if the key is unused, or was claimed for an identical batch.
pub static BATCH_CLAIMED: CompanionKind = CompanionKind {
    name: "wallet.batch_claimed",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json) as (n int, key_hash uuid, content_hash uuid)
), first as (
    select distinct on (key_hash) key_hash, content_hash from input order by key_hash, n
), claimed as (
    -- The update returns the row of another transaction, too, that committed after this statement began.
    insert into public.batch_request as r (key_hash, content_hash)
    select key_hash, content_hash from first
    on conflict (key_hash) do update set content_hash = r.content_hash
    returning key_hash, content_hash
), took as (
    select n from input i join claimed c on c.key_hash = i.key_hash and c.content_hash = i.content_hash
)",
};

/// Returns the hash of the batch for which an idempotency key was claimed; `None` if the key was not claimed.
pub(super) async fn claimed_content(db: &mut PgConnection, key_hash: Uuid) -> Result<Option<Uuid>> {
    let content =
        sqlx::query_scalar!("select content_hash from batch_request where key_hash = $1", key_hash);
    Ok(content.fetch_optional(db).await?)
}

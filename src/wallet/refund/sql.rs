//! SQL statements for refunds.

use sqlx::PgConnection;

use crate::error::Result;
use crate::ids::TransferId;
use crate::ledger::companion::CompanionKind;
use crate::ledger::money::Minor;

/// Companion (a statement in the transaction of a posting) that adds a refund to the sum of a transfer's refunds,
/// unless another refund has changed the sum since it was read.
pub static REFUNDED: CompanionKind = CompanionKind {
    name: "wallet.refunded",
    sql: "
with input as (
    select distinct on (transfer) *
    from json_to_recordset($2::text::json)
        as (n int, transfer bigint, amount bigint, refund bigint, before bigint)
    order by transfer, n
), done as (
    insert into public.refund as r (transfer, amount, refunded)
    select transfer, amount, refund from input where before = 0
    on conflict do nothing
    returning r.transfer
), more as (
    update public.refund r
    set refunded = r.refunded + i.refund
    from input i
    where r.transfer = i.transfer and r.refunded = i.before and i.before > 0
    returning r.transfer
), took as (
    select n from input join (select transfer from done union all select transfer from more) both_kinds using (transfer)
)",
};

/// Returns the sum of the refunds of a transfer.
pub(in crate::wallet) async fn refunded(
    db: &mut PgConnection,
    transfer: TransferId,
) -> Result<Minor> {
    let refunded =
        sqlx::query_scalar!("select refunded from refund where transfer = $1", transfer.0);
    Ok(Minor(refunded.fetch_optional(db).await?.unwrap_or_default()))
}

//! The statements that read the book.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Entry, Line};
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::transfer::Kind;

pub(super) async fn seq_at(
    db: &mut PgConnection,
    book: i32,
    moment: OffsetDateTime,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"
        select seq
        from ledger.seal
        where book = $1 and at <= $2
        order by at desc, seq desc
        limit 1"#,
        book,
        moment,
    )
    .fetch_optional(db)
    .await
}

pub(super) async fn head(db: &mut PgConnection, book: i32) -> sqlx::Result<(i64, OffsetDateTime)> {
    let row = sqlx::query!(
        r#"
        select seq, at
        from ledger.seal
        where book = $1
        order by seq desc
        limit 1"#,
        book,
    )
    .fetch_one(db)
    .await?;
    Ok((row.seq, row.at))
}

/// Two probes an account: the last time it was debited and the last time it was credited; the later one tells.
pub(super) async fn balances(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    until: i64,
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"
        select coalesce(
            case when coalesce(c.seq, 0) < d.seq then d.debit_balance else c.credit_balance end, 0
        ) as "balance!"
        from unnest($2::bigint[]) with ordinality a (account, n)
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where t.book = $1 and t.debit = a.account and t.seq <= $3
            order by t.seq desc limit 1
        ) d on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where t.book = $1 and t.credit = a.account and t.seq <= $3
            order by t.seq desc limit 1
        ) c on true
        order by a.n"#,
        book,
        accounts,
        until,
    )
    .fetch_all(db)
    .await
}

pub(super) async fn history(
    db: &mut PgConnection,
    book: i32,
    account: i64,
    from: i64,
    before: i64,
    limit: i64,
) -> sqlx::Result<Vec<Entry>> {
    let rows = sqlx::query!(
        r#"
        select
            seq as "seq!", leg as "leg!", at as "at!", kind as "kind!", counterparty as "counterparty!",
            change as "change!", balance as "balance!", trace_id, linked, metadata as "metadata?"
        from (
            (select seq, leg, at, kind, credit as counterparty, -amount as change,
                debit_balance as balance, trace_id, linked, metadata::text
            from ledger.transfer
            where book = $1 and debit = $2 and seq >= $3 and seq < $4
            order by seq desc
            limit $5)
            union all
            (select seq, leg, at, kind, debit, amount, credit_balance, trace_id, linked, metadata::text
            from ledger.transfer
            where book = $1 and credit = $2 and debit <> $2 and seq >= $3 and seq < $4
            order by seq desc
            limit $5)
        ) sides
        order by seq desc
        limit $5"#,
        book,
        account,
        from,
        before,
        limit,
    )
    .fetch_all(db)
    .await?;
    let entries = rows.into_iter().map(|row| {
        Ok(Entry {
            seq: row.seq,
            transfer: row.seq - i64::from(row.leg),
            at: row.at,
            kind: Kind::of_code(row.kind).ok_or_else(|| unknown_kind(row.kind))?,
            counterparty: AccountId(row.counterparty),
            change: Minor(row.change),
            balance: Minor(row.balance),
            trace_id: row.trace_id,
            linked: row.linked,
            metadata: row.metadata,
        })
    });
    entries.collect()
}

fn unknown_kind(code: i16) -> sqlx::Error {
    sqlx::Error::Decode(format!("kind {code} was written by a newer program").into())
}

pub(super) async fn lines(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<Line>> {
    sqlx::query_as!(
        Line,
        r#"
        select seq, debit, credit, amount, debit_balance, credit_balance, at, kind, leg, legs,
            trace_id, linked, metadata::text as metadata
        from ledger.transfer
        where book = $1 and seq > $2 and seq <= $3
        order by seq
        limit $4"#,
        book,
        after,
        last,
        limit,
    )
    .fetch_all(db)
    .await
}

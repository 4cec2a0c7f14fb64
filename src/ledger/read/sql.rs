//! The statements that read the book.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{HistoryEntry, Line, Span};
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::transfer::TransferKind;

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

pub(super) async fn seq_before(
    db: &mut PgConnection,
    book: i32,
    moment: OffsetDateTime,
) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"
        select seq
        from ledger.seal
        where book = $1 and at < $2
        order by at desc, seq desc
        limit 1"#,
        book,
        moment,
    )
    .fetch_optional(db)
    .await
}

pub(super) async fn has_account(
    db: &mut PgConnection,
    book: i32,
    account: i64,
) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from ledger.account where book = $1 and account = $2) as "exists!""#,
        book,
        account,
    )
    .fetch_one(db)
    .await
}

pub(super) async fn last_state_change(
    db: &mut PgConnection,
    book: i32,
    account: i64,
) -> sqlx::Result<Option<i16>> {
    sqlx::query_scalar!(
        "select kind from ledger.transfer where book = $1 and debit = $2 and kind < 10 order by seq desc limit 1",
        book,
        account,
    )
    .fetch_optional(db)
    .await
}

/// A customer's account, and where its held money waits if any ever did.
pub(super) struct Accounts {
    pub account: i64,
    pub hold: i64,
    pub has_hold: bool,
}

struct Stored {
    seq: i64,
    leg: i16,
    at: OffsetDateTime,
    kind: i16,
    debit: i64,
    credit: i64,
    amount: i64,
    trace_id: Option<Uuid>,
    linked: Option<i64>,
    metadata: Option<String>,
    available: i64,
    held: i64,
}

impl Stored {
    /// Nothing when a newer program wrote a kind that this one does not know.
    fn entry(self) -> Option<HistoryEntry> {
        Some(HistoryEntry {
            seq: self.seq,
            transfer: self.seq - i64::from(self.leg),
            at: self.at,
            kind: TransferKind::from_code(self.kind)?,
            debit: AccountId(self.debit),
            credit: AccountId(self.credit),
            amount: Minor(self.amount),
            available: Minor(self.available),
            held: Minor(self.held),
            trace_id: self.trace_id,
            linked: self.linked,
            metadata: self.metadata,
        })
    }
}

/// Newest first. Three sides: what left the account, what came to it, and what was captured from what it holds.
pub(super) async fn history_downwards(
    db: &mut PgConnection,
    book: i32,
    accounts: Accounts,
    span: Span,
) -> sqlx::Result<Vec<HistoryEntry>> {
    let Accounts { account, hold, has_hold } = accounts;
    let rows = sqlx::query_as!(
        Stored,
        r#"
        select
            s.seq as "seq!", s.leg as "leg!", s.at as "at!", s.kind as "kind!",
            s.debit as "debit!", s.credit as "credit!", s.amount as "amount!", s.trace_id, s.linked,
            s.metadata as "metadata?",
            coalesce(s.available, case when coalesce(ac.seq, 0) < ad.seq then ad.debit_balance else ac.credit_balance end, 0) as "available!",
            coalesce(s.held, case when coalesce(hc.seq, 0) < hd.seq then hd.debit_balance else hc.credit_balance end, 0) as "held!"
        from (
            (select seq, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                debit_balance as available, case when credit = $3 then credit_balance end as held
            from ledger.transfer
            where book = $1 and debit = $2 and seq >= $5 and seq < $6
            order by seq desc
            limit $7)
            union all
            (select seq, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                credit_balance, case when debit = $3 then debit_balance end
            from ledger.transfer
            where book = $1 and credit = $2 and debit <> $2 and seq >= $5 and seq < $6
            order by seq desc
            limit $7)
            union all
            (select seq, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                null, debit_balance
            from ledger.transfer
            where $4 and book = $1 and debit = $3 and credit <> $2 and seq >= $5 and seq < $6
            order by seq desc
            limit $7)
        ) s
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where s.available is null and t.book = $1 and t.debit = $2 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) ad on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where s.available is null and t.book = $1 and t.credit = $2 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) ac on true
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where $4 and s.held is null and t.book = $1 and t.debit = $3 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) hd on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where $4 and s.held is null and t.book = $1 and t.credit = $3 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) hc on true
        order by s.seq desc
        limit $7"#,
        book,
        account,
        hold,
        has_hold,
        span.from,
        span.before,
        span.limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter_map(Stored::entry).collect())
}

/// The same, oldest first.
pub(super) async fn history_upwards(
    db: &mut PgConnection,
    book: i32,
    accounts: Accounts,
    span: Span,
) -> sqlx::Result<Vec<HistoryEntry>> {
    let Accounts { account, hold, has_hold } = accounts;
    let rows = sqlx::query_as!(
        Stored,
        r#"
        select
            s.seq as "seq!", s.leg as "leg!", s.at as "at!", s.kind as "kind!",
            s.debit as "debit!", s.credit as "credit!", s.amount as "amount!", s.trace_id, s.linked,
            s.metadata as "metadata?",
            coalesce(s.available, case when coalesce(ac.seq, 0) < ad.seq then ad.debit_balance else ac.credit_balance end, 0) as "available!",
            coalesce(s.held, case when coalesce(hc.seq, 0) < hd.seq then hd.debit_balance else hc.credit_balance end, 0) as "held!"
        from (
            (select seq, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                debit_balance as available, case when credit = $3 then credit_balance end as held
            from ledger.transfer
            where book = $1 and debit = $2 and seq >= $5 and seq < $6
            order by seq asc
            limit $7)
            union all
            (select seq, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                credit_balance, case when debit = $3 then debit_balance end
            from ledger.transfer
            where book = $1 and credit = $2 and debit <> $2 and seq >= $5 and seq < $6
            order by seq asc
            limit $7)
            union all
            (select seq, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                null, debit_balance
            from ledger.transfer
            where $4 and book = $1 and debit = $3 and credit <> $2 and seq >= $5 and seq < $6
            order by seq asc
            limit $7)
        ) s
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where s.available is null and t.book = $1 and t.debit = $2 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) ad on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where s.available is null and t.book = $1 and t.credit = $2 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) ac on true
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where $4 and s.held is null and t.book = $1 and t.debit = $3 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) hd on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where $4 and s.held is null and t.book = $1 and t.credit = $3 and t.seq <= s.seq
            order by t.seq desc limit 1
        ) hc on true
        order by s.seq asc
        limit $7"#,
        book,
        account,
        hold,
        has_hold,
        span.from,
        span.before,
        span.limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().filter_map(Stored::entry).collect())
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

//! SQL statements that read the balances and the transfer histories of accounts, and rows of the ledger.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ArchivedUntil, BookRow, HistoryEntry, HistoryRange};
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

/// Query for the balances of accounts; `$column` adds a second column to the result.
///
/// Each account takes two index probes, for its last debit and its last credit. The later of these two transfers
/// contains the account's balance.
macro_rules! select_balances {
    ($row:ident, $column:tt, $book:expr, $accounts:expr, $until:expr) => {
        sqlx::query_as!(
            $row,
            r#"
        select coalesce(
            case when coalesce(c.seq, 0) < d.seq then d.debit_balance else c.credit_balance end, 0
        ) as "balance!" "# + $column + r#"
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
            $book,
            $accounts,
            $until,
        )
    };
}

struct BalanceRow {
    balance: i64,
}

struct PositionedBalanceRow {
    balance: i64,
    position: String,
}

pub(super) async fn balances(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    until: i64,
) -> sqlx::Result<Vec<i64>> {
    let rows = select_balances!(BalanceRow, "", book, accounts, until).fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| row.balance).collect())
}

/// Returns the current balances of two accounts, and the position in the ledger up to which they include all transfers.
pub(super) async fn current_balances(
    db: &mut PgConnection,
    book: i32,
    accounts: [i64; 2],
) -> sqlx::Result<([i64; 2], String)> {
    let rows = select_balances!(
        PositionedBalanceRow,
        r#", (select ledger.position() from installation) as "position!""#,
        book,
        &accounts,
        super::END
    );
    let [one, other] =
        <[_; 2]>::try_from(rows.fetch_all(db).await?).map_err(|_| sqlx::Error::RowNotFound)?;
    Ok(([one.balance, other.balance], one.position))
}

pub(super) async fn balances_after(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    seqs: &[i64],
) -> sqlx::Result<Vec<i64>> {
    sqlx::query_scalar!(
        r#"
        select coalesce(
            case when coalesce(c.seq, 0) < d.seq then d.debit_balance else c.credit_balance end, 0
        ) as "balance!"
        from unnest($2::bigint[], $3::bigint[]) with ordinality a (account, until, n)
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where t.book = $1 and t.debit = a.account and t.seq <= a.until
            order by t.seq desc limit 1
        ) d on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where t.book = $1 and t.credit = a.account and t.seq <= a.until
            order by t.seq desc limit 1
        ) c on true
        order by a.n"#,
        book,
        accounts,
        seqs,
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

pub(super) async fn archived_until(
    db: &mut PgConnection,
    book: i32,
) -> sqlx::Result<Option<ArchivedUntil>> {
    sqlx::query_as!(
        ArchivedUntil,
        r#"
        select until_seq as seq, until as at from ledger.archive
        where book = $1
        order by until_seq desc
        limit 1"#,
        book,
    )
    .fetch_optional(db)
    .await
}

/// Returns the end of the archived part of the book, if one of these accounts was created before that end.
pub(super) async fn archived_until_for(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
) -> sqlx::Result<Option<ArchivedUntil>> {
    sqlx::query_as!(
        ArchivedUntil,
        r#"
        select r.until_seq as seq, r.until as at from ledger.archive r
        where r.book = $1 and exists (
            select from ledger.account a
            where a.book = $1 and a.account = any ($2) and a.seq <= r.until_seq
        )
        order by r.until_seq desc
        limit 1"#,
        book,
        accounts,
    )
    .fetch_optional(db)
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

/// A customer account and its hold account. `has_hold` is false if the hold account does not exist yet.
pub(super) struct HistoryAccounts {
    pub account: i64,
    pub hold: i64,
    pub has_hold: bool,
}

struct HistoryRow {
    seq: i64,
    home: Option<i64>,
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

impl HistoryRow {
    /// Converts the row to a [`HistoryEntry`]; `None` if this version of the program does not know the kind of the
    /// transfer, because a newer version wrote the row.
    fn into_entry(self) -> Option<HistoryEntry> {
        Some(HistoryEntry {
            seq: self.seq,
            transfer: self.home.unwrap_or(self.seq) - i64::from(self.leg),
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

/// Query for the transfer history of an account; `$order` is `"asc"` or `"desc"`. The order is part of the query text,
/// because an index scan could not stop at the limit if the order were a parameter.
///
/// The query merges three scans: debits of the account, credits of the account, and captures from its hold account.
macro_rules! select_history {
    ($order:tt, $book:expr, $accounts:expr, $range:expr) => {
        sqlx::query_as!(
            HistoryRow,
            r#"
        select
            s.seq as "seq!", s.home as "home?", s.leg as "leg!", s.at as "at!", s.kind as "kind!",
            s.debit as "debit!", s.credit as "credit!", s.amount as "amount!", s.trace_id, s.linked,
            s.metadata as "metadata?",
            coalesce(s.available, case when coalesce(ac.seq, 0) < ad.seq then ad.debit_balance else ac.credit_balance end, 0) as "available!",
            coalesce(s.held, case when coalesce(hc.seq, 0) < hd.seq then hd.debit_balance else hc.credit_balance end, 0) as "held!"
        from (
            (select seq, home, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                debit_balance as available, case when credit = $3 then credit_balance end as held
            from ledger.transfer
            where book = $1 and debit = $2 and seq >= $5 and seq < $6
            order by seq "# + $order + r#"
            limit $7)
            union all
            (select seq, home, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                credit_balance, case when debit = $3 then debit_balance end
            from ledger.transfer
            where book = $1 and credit = $2 and debit <> $2 and seq >= $5 and seq < $6
            order by seq "# + $order + r#"
            limit $7)
            union all
            (select seq, home, leg, at, kind, debit, credit, amount, trace_id, linked, metadata::text,
                null, debit_balance
            from ledger.transfer
            where $4 and book = $1 and debit = $3 and credit <> $2 and seq >= $5 and seq < $6
            order by seq "# + $order + r#"
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
        order by s.seq "# + $order + r#"
        limit $7"#,
            $book,
            $accounts.account,
            $accounts.hold,
            $accounts.has_hold,
            $range.from,
            $range.before,
            $range.limit,
        )
    };
}

/// Reads the entries of an account's transfer history, in the order that `range` requests.
pub(super) async fn history(
    db: &mut PgConnection,
    book: i32,
    accounts: HistoryAccounts,
    range: HistoryRange,
) -> sqlx::Result<Vec<HistoryEntry>> {
    let rows = if range.oldest_first {
        select_history!("asc", book, accounts, range).fetch_all(db).await?
    } else {
        select_history!("desc", book, accounts, range).fetch_all(db).await?
    };
    Ok(rows.into_iter().filter_map(HistoryRow::into_entry).collect())
}

pub(super) async fn rows(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<BookRow>> {
    sqlx::query_as!(
        BookRow,
        r#"
        select seq, debit, credit, amount, debit_balance, credit_balance, at, kind, leg, legs,
            trace_id, linked, metadata::text as metadata, home
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

/// Reads the rows that touch one of these accounts. Merges two index scans for each account: its debits and its
/// credits.
pub(super) async fn rows_of_accounts(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    after: i64,
    last: i64,
    limit: i64,
) -> sqlx::Result<Vec<BookRow>> {
    sqlx::query_as!(
        BookRow,
        r#"
        select distinct on (t.seq)
            t.seq as "seq!", t.debit as "debit!", t.credit as "credit!", t.amount as "amount!",
            t.debit_balance as "debit_balance!", t.credit_balance as "credit_balance!", t.at as "at!",
            t.kind as "kind!", t.leg as "leg!", t.legs as "legs!", t.trace_id, t.linked,
            t.metadata::text as metadata, t.home
        from unnest($2::bigint[]) a (account)
        cross join lateral (
            (select * from ledger.transfer
            where book = $1 and debit = a.account and seq > $3 and seq <= $4
            order by seq
            limit $5)
            union all
            (select * from ledger.transfer
            where book = $1 and credit = a.account and seq > $3 and seq <= $4
            order by seq
            limit $5)
        ) t
        order by t.seq
        limit $5"#,
        book,
        accounts,
        after,
        last,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Time of the database server's clock, and whether a transaction is writing a batch to the book.
pub(super) struct Settled {
    pub now: OffsetDateTime,
    pub is_writing: bool,
}

/// Reads the database server's clock, and whether a transaction is writing a batch to the book. The clock is read
/// before the locks, because a transaction that writes a batch locks the book before it takes the batch's time.
pub(super) async fn settled(db: &mut PgConnection, book: i32) -> sqlx::Result<Settled> {
    sqlx::query_as!(
        Settled,
        r#"
        select statement_timestamp() as "now!", exists (
            select from pg_locks
            where locktype = 'advisory' and granted
                and classid::bigint = 1885434485 and objid::bigint = $1::int and objsubid = 2
                and database = (select oid from pg_database where datname = current_database())
        ) as "is_writing!""#,
        book,
    )
    .fetch_one(db)
    .await
}

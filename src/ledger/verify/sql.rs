//! SQL statements that read a book from its beginning to its end, in chunks.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::ledger::book::first_seal as first_seal_of;

/// Maximum number of seals in a chunk.
const SEALS_MAX: i64 = 2_000;

/// A row of `ledger.seal`.
#[derive(Debug, Clone)]
pub struct StoredSeal {
    pub seq: i64,
    pub prev_seq: Option<i64>,
    pub at: OffsetDateTime,
    pub batch_id: Uuid,
    pub hash: Vec<u8>,
}

/// A row of `ledger.posting`: a posting with an idempotency key.
#[derive(Debug, Clone)]
pub struct KeyedPosting {
    pub first_seq: i64,
    pub last_seq: i64,
    pub key_hash: Uuid,
    pub content_hash: Uuid,
}

/// A row of `ledger.account`.
#[derive(Debug, Clone)]
pub struct StoredAccount {
    pub account: i64,
    pub seq: i64,
    pub decimals: i16,
    pub currency: String,
}

/// Reads the seals after `after`, up to and including `end`.
pub(super) async fn seals(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    end: i64,
) -> sqlx::Result<Vec<StoredSeal>> {
    sqlx::query_as!(
        StoredSeal,
        r#"
        select seq, prev_seq, at, batch_id, hash
        from ledger.seal
        where book = $1 and seq > $2 and seq <= $3
        order by seq
        limit $4"#,
        book,
        after,
        end,
        SEALS_MAX,
    )
    .fetch_all(db)
    .await
}

/// Returns whether a read returned as many seals as its limit allows, so that more seals may follow.
pub(super) fn is_full(seals: &[StoredSeal]) -> bool {
    i64::try_from(seals.len()).is_ok_and(|count| count >= SEALS_MAX)
}

/// Reads the initial seal of a book, which exists before its first batch.
pub(super) async fn first_seal(
    db: &mut PgConnection,
    book: i32,
) -> sqlx::Result<Option<StoredSeal>> {
    let first = first_seal_of(book);
    Ok(seals(db, book, first - 1, first).await?.into_iter().next())
}

/// Reads the postings that have an idempotency key, and a first seq after `after`, up to and including `last`. The
/// postings of all books are stored with the first book.
pub(super) async fn postings(
    db: &mut PgConnection,
    after: i64,
    last: i64,
) -> sqlx::Result<Vec<KeyedPosting>> {
    sqlx::query_as!(
        KeyedPosting,
        r#"
        select first_seq, last_seq, key_hash, content_hash
        from ledger.posting
        where book = 1 and first_seq > $1 and first_seq <= $2
        order by first_seq"#,
        after,
        last,
    )
    .fetch_all(db)
    .await
}

pub(super) async fn accounts(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
) -> sqlx::Result<Vec<StoredAccount>> {
    sqlx::query_as!(
        StoredAccount,
        r#"
        select account, seq, decimals, currency
        from ledger.account
        where book = $1 and seq > $2 and seq <= $3
        order by seq, account"#,
        book,
        after,
        last,
    )
    .fetch_all(db)
    .await
}

/// Balance of an existing account after the transfer with a given seq, and the account's currency.
pub(super) struct AccountBalance {
    pub account: i64,
    pub balance: i64,
    pub currency: String,
    pub decimals: i16,
}

pub(super) async fn account_balances(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    until: i64,
) -> sqlx::Result<Vec<AccountBalance>> {
    sqlx::query_as!(
        AccountBalance,
        r#"
        select a.account, a.currency, a.decimals, coalesce(
            case when coalesce(c.seq, 0) < d.seq then d.debit_balance else c.credit_balance end, 0
        ) as "balance!"
        from unnest($2::bigint[]) wanted (account)
        join ledger.account a on a.book = $1 and a.account = wanted.account
        left join lateral (
            select t.seq, t.debit_balance from ledger.transfer t
            where t.book = a.book and t.debit = a.account and t.seq <= $3
            order by t.seq desc limit 1
        ) d on true
        left join lateral (
            select t.seq, t.credit_balance from ledger.transfer t
            where t.book = a.book and t.credit = a.account and t.seq <= $3
            order by t.seq desc limit 1
        ) c on true
        where a.seq <= $3"#,
        book,
        accounts,
        until,
    )
    .fetch_all(db)
    .await
}

/// Reads the numbers of all books, including books that have partitions but whose row in `ledger.book` is missing.
pub(super) async fn books(db: &mut PgConnection) -> sqlx::Result<Vec<i32>> {
    sqlx::query_scalar!(
        r#"
        select book as "book!" from ledger.book
        union
        select (first_seq >> 44)::int + 1 from ledger.partition
        order by 1"#
    )
    .fetch_all(db)
    .await
}

/// Query for the rows of legs. `$source` is a query that returns, for each leg, the seq of the original (`home`), and
/// the `book` and `seq` of the row to read. `offset 0` keeps the planner from merging the inner query into the outer
/// query. Otherwise, without statistics about a new table, the planner would choose to read the whole table.
macro_rules! select_legs {
    ($source:tt, $($param:expr),*) => {
        sqlx::query_as!(
            StoredLeg,
            r#"
        select s.home as "home!", t.book, t.seq, t.debit, t.credit, t.amount, t.kind, t.leg, t.legs, t.trace_id, t.linked,
            t.metadata::text as metadata, t.home as copy_of
        from ("# + $source + r#") s
        cross join lateral (
            select * from ledger.transfer where book = s.book and seq = s.seq offset 0
        ) t"#,
            $($param),*
        )
    };
}

/// A stored row of a leg that touches several books: the original or a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredLeg {
    pub home: i64,
    pub book: i32,
    pub seq: i64,
    pub debit: i64,
    pub credit: i64,
    pub amount: i64,
    pub kind: i16,
    pub leg: i16,
    pub legs: i16,
    pub trace_id: Option<Uuid>,
    pub linked: Option<i64>,
    pub metadata: Option<String>,
    /// Seq of the original, if this row is a copy; `None` if this row is the original.
    pub copy_of: Option<i64>,
}

/// Reads the copies that `ledger.transfer_copy` lists for these legs.
pub(super) async fn copies(db: &mut PgConnection, homes: &[i64]) -> sqlx::Result<Vec<StoredLeg>> {
    select_legs!(
        "select c.home, c.book, c.seq from ledger.transfer_copy c where c.home = any ($1)",
        homes
    )
    .fetch_all(db)
    .await
}

/// Reads the originals of these legs, which are all in `book`, where their postings were written (their home).
pub(super) async fn originals(
    db: &mut PgConnection,
    book: i32,
    homes: &[i64],
) -> sqlx::Result<Vec<StoredLeg>> {
    select_legs!(
        "select home, $1::int as book, home as seq from unnest($2::bigint[]) o (home)",
        book,
        homes
    )
    .fetch_all(db)
    .await
}

/// Finds the copies that `ledger.transfer_copy` lists for these legs. Returns the seq of each original, and the book
/// and seq of its copy.
pub(super) async fn registered_copies(
    db: &mut PgConnection,
    homes: &[i64],
) -> sqlx::Result<Vec<(i64, i32, i64)>> {
    let rows = sqlx::query!(
        "select home, book, seq from ledger.transfer_copy where home = any ($1)",
        homes
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.home, row.book, row.seq)).collect())
}

/// Waits until the transactions that are currently writing to several books have ended: takes the lock of each possible
/// book, and releases it immediately. Takes the locks in shared mode, as single-book batches do, so those batches need
/// not wait. Then completes interrupted commits.
pub(super) async fn wait_for_postings(db: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query_scalar!(
        "select count(*) from generate_series(1, 256) book
        where pg_advisory_lock_shared(1885434485, book) is not null and pg_advisory_unlock_shared(1885434485, book)"
    )
    .fetch_one(&mut *db)
    .await?;
    let complete = "select ledger.complete_commits(array(select book from ledger.book))";
    sqlx::query(complete).execute(db).await?;
    Ok(())
}

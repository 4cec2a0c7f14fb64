//! The statements that read a book from end to end, a stretch at a time.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most seals of one stretch.
const SEALS_MAX: i64 = 2_000;

#[derive(Debug, Clone)]
pub struct Seal {
    pub seq: i64,
    pub prev_seq: Option<i64>,
    pub at: OffsetDateTime,
    pub batch_id: Uuid,
    pub hash: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct KeyedPosting {
    pub first_seq: i64,
    pub last_seq: i64,
    pub key_hash: Uuid,
    pub content_hash: Uuid,
}

#[derive(Debug, Clone)]
pub struct Born {
    pub account: i64,
    pub seq: i64,
    pub decimals: i16,
    pub currency: String,
}

/// The seals behind `after`, up to `end`.
pub(super) async fn seals(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    end: i64,
) -> sqlx::Result<Vec<Seal>> {
    sqlx::query_as!(
        Seal,
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

/// Whether there may be more than these.
pub(super) fn is_full(seals: &[Seal]) -> bool {
    i64::try_from(seals.len()).is_ok_and(|count| count >= SEALS_MAX)
}

/// The seal that the first batch stands on.
pub(super) async fn first_seal(db: &mut PgConnection, book: i32) -> sqlx::Result<Option<Seal>> {
    Ok(seals(db, book, -1, 0).await?.into_iter().next())
}

pub(super) async fn postings(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
) -> sqlx::Result<Vec<KeyedPosting>> {
    sqlx::query_as!(
        KeyedPosting,
        r#"
        select first_seq, last_seq, key_hash, content_hash
        from ledger.posting
        where book = $1 and first_seq > $2 and first_seq <= $3
        order by first_seq"#,
        book,
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
) -> sqlx::Result<Vec<Born>> {
    sqlx::query_as!(
        Born,
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

/// What an account had after `until`, and what it is in; only accounts that exist.
pub(super) struct Holding {
    pub account: i64,
    pub balance: i64,
    pub currency: String,
    pub decimals: i16,
}

pub(super) async fn holdings(
    db: &mut PgConnection,
    book: i32,
    accounts: &[i64],
    until: i64,
) -> sqlx::Result<Vec<Holding>> {
    sqlx::query_as!(
        Holding,
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

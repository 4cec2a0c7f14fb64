//! The statements that read a book from end to end, a stretch at a time.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most seals of one stretch.
const SEALS_MAX: i64 = 2_000;

pub(super) struct Seal {
    pub(super) seq: i64,
    pub(super) prev_seq: Option<i64>,
    pub(super) at: OffsetDateTime,
    pub(super) batch_id: Uuid,
    pub(super) hash: Vec<u8>,
}

pub(super) struct Transfer {
    pub(super) seq: i64,
    pub(super) debit: i64,
    pub(super) credit: i64,
    pub(super) amount: i64,
    pub(super) debit_balance: i64,
    pub(super) credit_balance: i64,
    pub(super) at: OffsetDateTime,
    pub(super) kind: i16,
    pub(super) leg: i16,
    pub(super) legs: i16,
    pub(super) trace_id: Option<Uuid>,
    pub(super) linked: Option<i64>,
    pub(super) metadata: Option<String>,
}

pub(super) struct KeyedPosting {
    pub(super) first_seq: i64,
    pub(super) last_seq: i64,
    pub(super) key_hash: Uuid,
    pub(super) content_hash: Uuid,
}

pub(super) struct Born {
    pub(super) account: i64,
    pub(super) seq: i64,
    pub(super) decimals: i16,
    pub(super) currency: String,
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

pub(super) async fn transfers(
    db: &mut PgConnection,
    book: i32,
    after: i64,
    last: i64,
) -> sqlx::Result<Vec<Transfer>> {
    sqlx::query_as!(
        Transfer,
        r#"
        select seq, debit, credit, amount, debit_balance, credit_balance, at, kind, leg, legs,
            trace_id, linked, metadata::text as metadata
        from ledger.transfer
        where book = $1 and seq > $2 and seq <= $3
        order by seq"#,
        book,
        after,
        last,
    )
    .fetch_all(db)
    .await
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

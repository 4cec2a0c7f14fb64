//! SQL statements on publishers, and on the movements of money that the statement of a publisher lists.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Result;
use crate::idempotency_key::HashedKey;
use crate::ids::{PublisherId, UserId};
use crate::ledger::account::AccountId;
use crate::ledger::book::FIRST_BOOK;

pub(super) struct PublisherRow {
    pub id: PublisherId,
    pub user: UserId,
    pub name: String,
    pub fee: Option<i32>,
}

pub(super) async fn user_exists(db: &mut PgConnection, user: UserId) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (select from app_user where id = $1) as "exists!""#,
        user.0
    );
    Ok(exists.fetch_one(db).await?)
}

/// Inserts a publisher. Returns `None` if the user is a publisher already, or if the idempotency key was used.
pub(super) async fn insert(
    db: &mut PgConnection,
    user: UserId,
    name: &str,
    fee: Option<i32>,
    key: Option<HashedKey>,
) -> Result<Option<PublisherId>> {
    let id = sqlx::query_scalar!(
        r#"insert into publisher (app_user, name, fee, key_hash, content_hash) values ($1, $2, $3, $4, $5)
        on conflict do nothing
        returning id as "id: PublisherId""#,
        user.0,
        name,
        fee,
        key.map(|key| key.hash),
        key.map(|key| key.content),
    );
    Ok(id.fetch_optional(db).await?)
}

pub(super) async fn find_by_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(PublisherId, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"select id as "id: PublisherId", content_hash from publisher where key_hash = $1"#,
        key
    );
    Ok(row.fetch_optional(db).await?.map(|row| (row.id, row.content_hash)))
}

/// Changes a publisher; a value that is `None` stays unchanged.
pub(super) async fn update(
    db: &mut PgConnection,
    id: PublisherId,
    name: Option<&str>,
    fee: Option<i32>,
) -> Result<Option<PublisherRow>> {
    let row = sqlx::query_as!(
        PublisherRow,
        r#"update publisher set name = coalesce($2, name), fee = coalesce($3, fee) where id = $1
        returning id as "id: PublisherId", app_user as "user: UserId", name, fee"#,
        id.0,
        name,
        fee,
    );
    Ok(row.fetch_optional(db).await?)
}

pub(super) async fn find(db: &mut PgConnection, id: PublisherId) -> Result<Option<PublisherRow>> {
    let row = sqlx::query_as!(
        PublisherRow,
        r#"select id as "id: PublisherId", app_user as "user: UserId", name, fee from publisher where id = $1"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns each pair of a publisher and a currency in which the publisher has sold games.
pub(super) async fn sellers(db: &mut PgConnection) -> Result<Vec<(PublisherId, String)>> {
    // Uses a single index lookup for each publisher and currency, regardless of the number of purchases.
    let rows = sqlx::query!(
        r#"
        with recursive seller as (
            (
                select publisher, currency from game_purchase
                where publisher is not null
                order by publisher, currency
                limit 1
            )
            union all
            select next.publisher, next.currency
            from seller
            cross join lateral (
                select publisher, currency from game_purchase
                where publisher is not null and (publisher, currency) > (seller.publisher, seller.currency)
                order by publisher, currency
                limit 1
            ) next
        )
        select publisher as "publisher!: PublisherId", currency as "currency!" from seller"#
    );
    let rows = rows.fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (row.publisher, row.currency)).collect())
}

/// Total amount of the transfers of one kind and direction between two accounts.
pub(super) struct SumRow {
    pub kind: i16,
    pub is_debit: bool,
    pub other: i64,
    pub amount: i64,
}

/// Sums up the transfers from and to an account between two positions of the ledger, separately for each kind,
/// direction, and account at the other end.
pub(super) async fn sums(
    db: &mut PgConnection,
    account: AccountId,
    (first, end): (i64, i64),
) -> Result<Vec<SumRow>> {
    let rows = sqlx::query_as!(
        SumRow,
        r#"
        select kind as "kind!", is_debit as "is_debit!", other as "other!", sum(amount)::bigint as "amount!"
        from (
            select kind, true as is_debit, credit as other, amount from ledger.transfer
            where debit = $1 and book = $4 and $2 <= seq and seq < $3
            union all
            select kind, false, debit, amount from ledger.transfer
            where credit = $1 and book = $4 and $2 <= seq and seq < $3
        ) moved
        group by kind, is_debit, other"#,
        account.0,
        first,
        end,
        FIRST_BOOK,
    );
    Ok(rows.fetch_all(db).await?)
}

/// A movement of money into or out of an account.
pub(super) struct MovementRow {
    pub seq: i64,
    pub at: OffsetDateTime,
    pub transfer: i64,
    pub kind: i16,
    pub is_debit: bool,
    pub other: i64,
    pub amount: i64,
    pub balance: i64,
    pub game: Option<i64>,
}

/// Returns the movements of money into and out of an account between two positions of the ledger, oldest first.
pub(super) async fn entries(
    db: &mut PgConnection,
    account: AccountId,
    (first, end): (i64, i64),
    limit: i64,
) -> Result<Vec<MovementRow>> {
    let rows = sqlx::query_as!(
        MovementRow,
        r#"
        select seq as "seq!", m.at as "at!", m.transfer as "transfer!", kind as "kind!", is_debit as "is_debit!",
            other as "other!", amount as "amount!", balance as "balance!", p.game as "game?"
        from (
            (select seq, at, coalesce(home, seq) - leg as transfer, linked, kind, true as is_debit, credit as other, amount,
                debit_balance as balance
            from ledger.transfer where debit = $1 and book = $5 and $2 <= seq and seq < $3 order by seq limit $4)
            union all
            (select seq, at, coalesce(home, seq) - leg, linked, kind, false, debit, amount, credit_balance
            from ledger.transfer where credit = $1 and book = $5 and $2 <= seq and seq < $3 order by seq limit $4)
        ) m
        left join game_purchase p on p.transfer = coalesce(m.linked, m.transfer)
        order by seq limit $4"#,
        account.0,
        first,
        end,
        limit,
        FIRST_BOOK,
    );
    Ok(rows.fetch_all(db).await?)
}

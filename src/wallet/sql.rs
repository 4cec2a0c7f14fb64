//! The statements of wallets.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::error::Result;
use crate::ledger::companion::CompanionKind;

/// A wallet's row, which moves with the opening of its account.
pub(super) static OPENED: CompanionKind = CompanionKind {
    name: "wallet.opened",
    sql: "
with input as (
    select * from json_to_recordset($2::text::json) as (n int, id bigint, currency text, owner text)
), done as (
    insert into public.wallet (id, currency, owner)
    select id, currency, owner from input
    on conflict do nothing
    returning id
), took as (
    select n from input join done using (id)
)",
};

/// The id of the next wallet.
pub(super) async fn next_id(db: &mut PgConnection) -> Result<i64> {
    let id = sqlx::query_scalar!(r#"select nextval('ledger.account_id') as "id!""#);
    Ok(id.fetch_one(db).await?)
}

/// Currency and owner of a wallet.
pub(super) async fn find(db: &mut PgConnection, id: i64) -> Result<Option<(String, String)>> {
    let row = sqlx::query!("select currency, owner from wallet where id = $1", id);
    Ok(row.fetch_optional(db).await?.map(|row| (row.currency, row.owner)))
}

/// The same of many at once.
pub(super) async fn find_many(db: &mut PgConnection, ids: &[i64]) -> Result<Vec<Listed>> {
    let rows =
        sqlx::query_as!(Listed, "select id, currency, owner from wallet where id = any ($1)", ids);
    Ok(rows.fetch_all(db).await?)
}

/// What a detail view tells besides.
pub(super) struct Detail {
    pub created_at: OffsetDateTime,
    pub closed_at: Option<OffsetDateTime>,
    pub label: Option<String>,
    pub metadata: Option<String>,
}

pub(super) async fn detail(db: &mut PgConnection, id: i64) -> Result<Option<Detail>> {
    let row = sqlx::query_as!(
        Detail,
        "select created_at, closed_at, label, metadata::text as metadata from wallet where id = $1",
        id
    );
    Ok(row.fetch_optional(db).await?)
}

/// A row of a list.
pub(super) struct Listed {
    pub id: i64,
    pub currency: String,
    pub owner: String,
}

/// The wallets of an owner behind `after`, in the order of their ids.
pub(super) async fn list_of(
    db: &mut PgConnection,
    owner: &str,
    currency: Option<&str>,
    after: i64,
    limit: i64,
    closed_too: bool,
) -> Result<Vec<Listed>> {
    let rows = sqlx::query_as!(
        Listed,
        r#"
        select id, currency, owner
        from wallet
        where owner = $2
            and id > $1
            and (closed_at is null or $5)
            and ($3::text is null or currency = $3)
        order by id
        limit $4"#,
        after,
        owner,
        currency,
        limit,
        closed_too,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Wallets behind `after`, in the order of their ids.
pub(super) async fn list(
    db: &mut PgConnection,
    currency: Option<&str>,
    after: i64,
    limit: i64,
    closed_too: bool,
) -> Result<Vec<Listed>> {
    let rows = sqlx::query_as!(
        Listed,
        r#"
        select id, currency, owner
        from wallet
        where id > $1
            and (closed_at is null or $4)
            and ($2::text is null or currency = $2)
        order by id
        limit $3"#,
        after,
        currency,
        limit,
        closed_too,
    );
    Ok(rows.fetch_all(db).await?)
}

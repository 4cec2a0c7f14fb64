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
    select * from json_to_recordset($2::text::json) as (n int, id bigint, currency text, owner text, app_user bigint)
), done as (
    insert into public.wallet (id, currency, owner, app_user)
    select id, currency, owner, app_user from input
    on conflict do nothing
    returning id
), took as (
    select n from input join done using (id)
)",
};

/// The id of the next wallet.
/// How many wallets are open, and how many are closed.
pub(super) async fn count(db: &mut PgConnection) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select count(*) filter (where closed_at is null) as "open!", count(closed_at) as "closed!" from wallet"#
    );
    let row = row.fetch_one(db).await?;
    Ok((row.open, row.closed))
}

pub(super) async fn next_id(db: &mut PgConnection) -> Result<i64> {
    let id = sqlx::query_scalar!(r#"select nextval('ledger.account_id') as "id!""#);
    Ok(id.fetch_one(db).await?)
}

/// What never changes about a wallet.
pub(super) async fn find(db: &mut PgConnection, id: i64) -> Result<Option<Listed>> {
    let row = sqlx::query_as!(
        Listed,
        "select id, currency, owner, app_user from wallet where id = $1",
        id
    );
    Ok(row.fetch_optional(db).await?)
}

/// The same of many at once.
pub(super) async fn find_many(db: &mut PgConnection, ids: &[i64]) -> Result<Vec<Listed>> {
    let rows = sqlx::query_as!(
        Listed,
        "select id, currency, owner, app_user from wallet where id = any ($1)",
        ids
    );
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
    pub app_user: Option<i64>,
}

/// Which wallets are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub owner: Option<&'a str>,
    pub currency: Option<&'a str>,
    pub closed_too: bool,
    /// Behind this id.
    pub after: i64,
    pub limit: i64,
}

/// Wallets of everybody, in the order of their ids.
pub(super) async fn list(db: &mut PgConnection, wanted: Wanted<'_>) -> Result<Vec<Listed>> {
    let Wanted { currency, closed_too, after, limit, .. } = wanted;
    let rows = sqlx::query_as!(
        Listed,
        "select id, currency, owner, app_user
        from wallet
        where id > $1
            and (closed_at is null or $4)
            and ($2::text is null or currency = $2)
        order by id
        limit $3",
        after,
        currency,
        limit,
        closed_too,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Those of a user, if there is one, and those of no user, if they are seen; in the order of their ids.
pub(super) async fn list_seen(
    db: &mut PgConnection,
    user: Option<i64>,
    of_nobody: bool,
    wanted: Wanted<'_>,
) -> Result<Vec<Listed>> {
    let Wanted { currency, closed_too, after, limit, .. } = wanted;
    let rows = sqlx::query_as!(
        Listed,
        r#"
        select id as "id!", currency as "currency!", owner as "owner!", app_user
        from (
            (
                select id, currency, owner, app_user
                from wallet
                where $6::boolean
                    and app_user is null
                    and id > $1
                    and (closed_at is null or $4)
                    and ($2::text is null or currency = $2)
                order by id
                limit $3
            )
            union all
            (
                select id, currency, owner, app_user
                from wallet
                where app_user = $5
                    and id > $1
                    and (closed_at is null or $4)
                    and ($2::text is null or currency = $2)
                order by id
                limit $3
            )
        ) seen
        order by id
        limit $3"#,
        after,
        currency,
        limit,
        closed_too,
        user,
        of_nobody,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Those with this label of an owner; of everybody, or only what is seen as above.
pub(super) async fn list_of(
    db: &mut PgConnection,
    owner: &str,
    seen: Option<(Option<i64>, bool)>,
    wanted: Wanted<'_>,
) -> Result<Vec<Listed>> {
    let Wanted { currency, closed_too, after, limit, .. } = wanted;
    let (user, of_nobody) = seen.unwrap_or_default();
    let rows = sqlx::query_as!(
        Listed,
        r#"
        select id, currency, owner, app_user
        from wallet
        where owner = $2
            and id > $1
            and (closed_at is null or $5)
            and ($3::text is null or currency = $3)
            and ($6 or (app_user is null and $8) or app_user = $7)
        order by id
        limit $4"#,
        after,
        owner,
        currency,
        limit,
        closed_too,
        seen.is_none(),
        user,
        of_nobody,
    );
    Ok(rows.fetch_all(db).await?)
}

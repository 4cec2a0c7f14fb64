//! SQL statements for wallets.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::access::Visibility;
use crate::error::Result;
use crate::ids::{UserId, WalletId};
use crate::ledger::companion::CompanionKind;

/// Companion (a statement in the transaction of a posting) that inserts the row of a wallet when its ledger account is
/// opened.
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

/// Returns the number of open wallets and the number of closed wallets.
pub(super) async fn count(db: &mut PgConnection) -> Result<(i64, i64)> {
    let row = sqlx::query!(
        r#"select count(*) filter (where closed_at is null) as "open!", count(closed_at) as "closed!" from wallet"#
    );
    let row = row.fetch_one(db).await?;
    Ok((row.open, row.closed))
}

/// Reserves and returns the number of a new wallet.
pub(super) async fn next_number(db: &mut PgConnection) -> Result<i64> {
    let number = sqlx::query_scalar!(r#"select nextval('ledger.account_id') as "number!""#);
    Ok(number.fetch_one(db).await?)
}

/// Returns the row of a wallet.
pub(super) async fn find(db: &mut PgConnection, id: WalletId) -> Result<Option<WalletRow>> {
    let row = sqlx::query_as!(
        WalletRow,
        r#"select id as "id: WalletId", currency, owner, app_user as "app_user: UserId" from wallet where id = $1"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// Returns the rows of these wallets. Omits wallets that do not exist.
pub(super) async fn find_many(db: &mut PgConnection, ids: &[i64]) -> Result<Vec<WalletRow>> {
    let rows = sqlx::query_as!(
        WalletRow,
        r#"select id as "id: WalletId", currency, owner, app_user as "app_user: UserId" from wallet where id = any ($1)"#,
        ids
    );
    Ok(rows.fetch_all(db).await?)
}

/// Columns of a wallet that are omitted in lists of wallets.
pub(super) struct DetailRow {
    pub created_at: OffsetDateTime,
    pub closed_at: Option<OffsetDateTime>,
    pub label: Option<String>,
    pub metadata: Option<String>,
}

pub(super) async fn detail(db: &mut PgConnection, id: WalletId) -> Result<Option<DetailRow>> {
    let row = sqlx::query_as!(
        DetailRow,
        "select created_at, closed_at, label, metadata::text as metadata from wallet where id = $1",
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// Row of a wallet, without the columns of [`DetailRow`].
pub(super) struct WalletRow {
    pub id: WalletId,
    pub currency: String,
    pub owner: String,
    pub app_user: Option<UserId>,
}

/// Filter for a list of wallets, and the page to return.
#[derive(Debug, Clone, Copy)]
pub struct WalletFilter<'a> {
    pub owner: Option<&'a str>,
    pub currency: Option<&'a str>,
    pub include_closed: bool,
    /// Id of the last wallet of the previous page. The requested page contains only wallets with a higher id.
    pub after: i64,
    pub limit: i64,
}

/// Returns a page of all wallets, ordered by id.
pub(super) async fn list(
    db: &mut PgConnection,
    filter: WalletFilter<'_>,
) -> Result<Vec<WalletRow>> {
    let WalletFilter { include_closed, after, limit, .. } = filter;
    let rows = sqlx::query_as!(
        WalletRow,
        r#"select id as "id: WalletId", currency, owner, app_user as "app_user: UserId"
        from wallet
        where id > $1 and (closed_at is null or $3)
        order by id
        limit $2"#,
        after,
        limit,
        include_closed,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns a page of all wallets in a currency, ordered by id.
///
/// The statement compares pairs of currency and id, so that Postgres always uses the index on the currency. A scan by
/// id would read all wallets, even if few of them have this currency.
pub(super) async fn list_of_currency(
    db: &mut PgConnection,
    currency: &str,
    filter: WalletFilter<'_>,
) -> Result<Vec<WalletRow>> {
    let WalletFilter { include_closed, after, limit, .. } = filter;
    let rows = sqlx::query_as!(
        WalletRow,
        r#"select id as "id: WalletId", currency, owner, app_user as "app_user: UserId"
        from wallet
        where (currency, id) > ($4, $1) and currency <= $4 and (closed_at is null or $3)
        order by currency, id
        limit $2"#,
        after,
        limit,
        include_closed,
        currency,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns a page of the wallets that a caller without `wallet:read` may see, ordered by id.
pub(super) async fn list_visible(
    db: &mut PgConnection,
    visibility: Visibility,
    filter: WalletFilter<'_>,
) -> Result<Vec<WalletRow>> {
    let WalletFilter { include_closed, after, limit, .. } = filter;
    let (user, include_unowned) = own_and_unowned(visibility);
    let rows = sqlx::query_as!(
        WalletRow,
        r#"
        select id as "id!: WalletId", currency as "currency!", owner as "owner!", app_user as "app_user: UserId"
        from (
            (
                select id, currency, owner, app_user
                from wallet
                where $5::boolean
                    and app_user is null
                    and id > $1
                    and (closed_at is null or $3)
                order by id
                limit $2
            )
            union all
            (
                select id, currency, owner, app_user
                from wallet
                where app_user = $4
                    and id > $1
                    and (closed_at is null or $3)
                order by id
                limit $2
            )
        ) seen
        order by id
        limit $2"#,
        after,
        limit,
        include_closed,
        user,
        include_unowned,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns a page of the wallets in a currency, ordered by id. Omits wallets that a caller without `wallet:read` may
/// not see.
pub(super) async fn list_visible_of_currency(
    db: &mut PgConnection,
    currency: &str,
    visibility: Visibility,
    filter: WalletFilter<'_>,
) -> Result<Vec<WalletRow>> {
    let WalletFilter { include_closed, after, limit, .. } = filter;
    let (user, include_unowned) = own_and_unowned(visibility);
    let rows = sqlx::query_as!(
        WalletRow,
        r#"
        select id as "id!: WalletId", currency as "currency!", owner as "owner!", app_user as "app_user: UserId"
        from (
            (
                select id, currency, owner, app_user
                from wallet
                where $6::boolean
                    and app_user is null
                    and (currency, id) > ($2, $1)
                    and currency <= $2
                    and (closed_at is null or $4)
                order by currency, id
                limit $3
            )
            union all
            (
                select id, currency, owner, app_user
                from wallet
                where app_user = $5
                    and (currency, id) > ($2, $1)
                    and currency <= $2
                    and (closed_at is null or $4)
                order by currency, id
                limit $3
            )
        ) seen
        order by id
        limit $3"#,
        after,
        currency,
        limit,
        include_closed,
        user,
        include_unowned,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns a page of the wallets with this owner label that the caller may see.
pub(super) async fn list_of_owner(
    db: &mut PgConnection,
    owner: &str,
    visibility: Visibility,
    filter: WalletFilter<'_>,
) -> Result<Vec<WalletRow>> {
    let WalletFilter { currency, include_closed, after, limit, .. } = filter;
    let (user, include_unowned) = own_and_unowned(visibility);
    let rows = sqlx::query_as!(
        WalletRow,
        r#"
        select id as "id: WalletId", currency, owner, app_user as "app_user: UserId"
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
        include_closed,
        visibility == Visibility::All,
        user,
        include_unowned,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Returns the user whose wallets are visible, and whether wallets that belong to no user are visible.
fn own_and_unowned(visibility: Visibility) -> (Option<i64>, bool) {
    match visibility {
        Visibility::All | Visibility::Unowned => (None, true),
        Visibility::Own(user) => (Some(user.0), false),
        Visibility::OwnAndUnowned(user) => (Some(user.0), true),
    }
}

/// Whether a user with this id exists.
pub(super) async fn user_exists(db: &mut PgConnection, user: UserId) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from app_user where id = $1) as "exists!""#,
        user.0
    );
    Ok(found.fetch_one(db).await?)
}

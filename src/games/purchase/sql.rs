//! SQL statements of purchases and refunds.

use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::ids::{GameId, PublisherId, SaleId, TransferId, UserId};
use crate::ledger::companion::CompanionKind;

/// SQL statement that grants a game and records its purchase in the transaction of a ledger posting, if the quote still
/// holds.
pub(in crate::games) static CLAIMED: CompanionKind = CompanionKind {
    name: "games.claimed",
    sql: "with took as (select n from public.claim_purchases($2::text::json) n)",
};

/// SQL statement that reverts a purchase in the transaction of a ledger posting, unless the purchase was already
/// reverted.
pub(in crate::games) static REVERTED: CompanionKind = CompanionKind {
    name: "games.reverted",
    sql: "with took as (select n from public.revert_purchases($2::text::json) n)",
};

/// Facts that the purchase of a game for a recipient depends on, all read at the same moment.
#[derive(Clone)]
pub(super) struct QuoteRow {
    pub game: GameId,
    pub revision: i32,
    pub state: String,
    pub publisher: Option<PublisherId>,
    pub fee: Option<i32>,
    pub base: Option<GameId>,
    /// Currency in which the buyer pays; `None` if the game has no price in the requested currency.
    pub currency: Option<String>,
    pub price: Option<i64>,
    pub sale: Option<SaleId>,
    pub sale_price: Option<i64>,
    pub sale_stock: Option<i64>,
    pub sale_left: Option<i32>,
    /// Number of running and future sales of the game that limit the copies sold at the sale price. If this number is
    /// not zero, the facts cannot be cached, because a sale can sell out without a change to the game.
    pub budgets: i64,
    /// Next time at which a sale of the game begins or ends.
    pub until: Option<OffsetDateTime>,
    pub stock: Option<i64>,
    pub left: Option<i32>,
    pub is_owned: bool,
    pub owns_base: bool,
    pub has_recipient: bool,
}

pub(super) async fn quote(
    db: &mut PgConnection,
    game: GameId,
    recipient: UserId,
    currency: Option<&str>,
) -> Result<Option<QuoteRow>> {
    let row = sqlx::query_as!(
        QuoteRow,
        r#"
        select g.id as "game: GameId", revision, state, g.publisher as "publisher: PublisherId", b.fee as "fee?",
            base as "base: GameId", p.currency as "currency?", p.price as "price?",
            r.sale as "sale?: SaleId", r.price as "sale_price?", r.stock as "sale_stock?",
            case when r.stock is not null then stock_left(r.stock) end as "sale_left",
            (
                select count(*) from game_sale s where s.game = g.id and s.stock is not null and t.now < s.ends_at
            ) as "budgets!",
            (
                select min(m.moment)
                from game_sale s cross join lateral (values (s.starts_at), (s.ends_at)) m (moment)
                where s.game = g.id and t.now < m.moment
            ) as until,
            g.stock as "stock?", case when g.stock is not null then stock_left(g.stock) end as "left",
            -- With `exists`, the planner may read everything that the user owns.
            coalesce((select true from entitlement e where e.game = g.id and e.app_user = $2), false) as "is_owned!",
            coalesce((select true from entitlement e where e.game = g.base and e.app_user = $2), false) as "owns_base!",
            exists (select from app_user u where u.id = $2) as "has_recipient!"
        from game g
        cross join (select clock_timestamp() as now) t
        left join publisher b on b.id = g.publisher
        left join lateral (
            select g.currency, g.price where coalesce($3, g.currency) = g.currency
            union all
            select f.currency, f.price from game_price f where f.game = g.id and f.currency = $3
        ) p on true
        left join lateral running_sale(g.id, p.price, p.currency, t.now) r on true
        where g.id = $1 and state <> 'deleted'"#,
        game.0,
        recipient.0,
        currency,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Grants a free game. Returns false if the quote no longer holds.
pub(super) async fn claim_free(db: &mut PgConnection, row: &impl Serialize) -> Result<bool> {
    let rows = numbered(std::slice::from_ref(row))?;
    let claim = sqlx::query!(r#"select claim_free_game($1::text::json) as "done""#, rows);
    took_effect(claim.fetch_one(db).await)
}

/// Takes games away from their owner without paying money back. Returns false if a game could not be taken away.
pub(super) async fn revert_free(db: &mut PgConnection, rows: &[impl Serialize]) -> Result<bool> {
    let rows = numbered(rows)?;
    let revert = sqlx::query!(r#"select revert_free_games($1::text::json) as "done""#, rows);
    took_effect(revert.fetch_one(db).await)
}

/// Returns whether a SQL statement took effect. A statement has no effect if the facts that it depends on have changed,
/// or if another transaction held a lock that the statement needed.
pub(in crate::games) fn took_effect<T>(outcome: sqlx::Result<T>) -> Result<bool> {
    // Error codes: not every row took effect, a lock was not available, and a deadlock.
    const OVERTAKEN: [&str; 3] = ["RW002", "55P03", "40P01"];
    match outcome {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| OVERTAKEN.contains(&&*code)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Writes the input rows of a SQL function as a JSON array of objects, each with its index `n`.
fn numbered(rows: &[impl Serialize]) -> Result<String> {
    #[derive(Serialize)]
    struct Numbered<'a, T> {
        n: usize,
        #[serde(flatten)]
        row: &'a T,
    }
    let rows: Vec<_> = rows.iter().enumerate().map(|(n, row)| Numbered { n, row }).collect();
    serde_json::to_string(&rows).map_err(|cause| Error::Internal(cause.into()))
}

/// A completed purchase, as stored in the database.
pub(super) struct PurchaseRow {
    pub game: GameId,
    pub recipient: UserId,
    pub currency: String,
    pub price: i64,
    pub tax: i64,
    pub transfer: Option<TransferId>,
}

/// Finds the purchase that a request with this idempotency key has made, with the content hash of the request.
pub(super) async fn find_by_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(PurchaseRow, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"select game as "game: GameId", recipient as "recipient: UserId", currency, price, tax,
            transfer as "transfer: TransferId", content_hash
        from game_purchase where key_hash = $1"#,
        key
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| {
        let purchase = PurchaseRow {
            game: row.game,
            recipient: row.recipient,
            currency: row.currency,
            price: row.price,
            tax: row.tax,
            transfer: row.transfer,
        };
        (purchase, row.content_hash)
    }))
}

/// Finds the refund that a request with this idempotency key has made. Returns the currency of the refunded purchase,
/// and the content hash of the request.
pub(super) async fn find_refund(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(String, Uuid)>> {
    let row = sqlx::query!(
        "select p.currency, k.content_hash from refund_key k join game_purchase p on p.id = k.purchase where k.key_hash = $1",
        key
    );
    Ok(row.fetch_optional(db).await?.map(|row| (row.currency, row.content_hash)))
}

/// A game that a user owns, with its purchase.
#[derive(Debug)]
pub(super) struct OwnedGame {
    pub game: GameId,
    /// Id of the purchase; `None` if the game was not bought.
    pub purchase: Option<i64>,
    pub buyer: Option<UserId>,
    pub publisher: Option<PublisherId>,
    pub transfer: Option<i64>,
    pub price: i64,
    pub tax: i64,
    pub fee: i64,
    pub currency: String,
    /// Whether the refund window of the purchase is still open.
    pub is_refundable: bool,
}

/// Returns a game that a user owns, followed by the user's downloadable content for this game.
pub(super) async fn owned_with_content(
    db: &mut PgConnection,
    game: GameId,
    user: UserId,
    window_seconds: f64,
    limit: usize,
) -> Result<Vec<OwnedGame>> {
    let rows = sqlx::query_as!(
        OwnedGame,
        r#"
        select e.game as "game: GameId", p.id as "purchase?", p.buyer as "buyer?: UserId",
            p.publisher as "publisher?: PublisherId", p.transfer as "transfer?", coalesce(p.price, 0) as "price!",
            coalesce(p.tax, 0) as "tax!", coalesce(p.fee, 0) as "fee!", coalesce(p.currency, g.currency) as "currency!",
            coalesce(p.at > clock_timestamp() - make_interval(secs => $3), false) as "is_refundable!"
        from game g
        join entitlement e on e.game = g.id and e.app_user = $2
        left join game_purchase p on p.game = g.id and p.recipient = $2
            and p.refunded_at is null and p.revoked_at is null
        where g.id = $1 or g.base = $1
        order by g.id <> $1, g.id
        limit $4"#,
        game.0,
        user.0,
        window_seconds,
        i64::try_from(limit).unwrap_or(i64::MAX),
    );
    Ok(rows.fetch_all(db).await?)
}

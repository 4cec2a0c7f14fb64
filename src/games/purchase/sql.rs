//! Statements of purchases and refunds.

use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::ids::{GameId, PublisherId, TransferId, UserId};
use crate::ledger::companion::CompanionKind;

/// Grants a game and records its purchase, if the quote still holds.
pub(in crate::games) static CLAIMED: CompanionKind = CompanionKind {
    name: "games.claimed",
    sql: "with took as (select n from public.claim_purchases($2::text::json) n)",
};

/// Takes a purchase back, if it was not taken back before.
pub(in crate::games) static REVERTED: CompanionKind = CompanionKind {
    name: "games.reverted",
    sql: "with took as (select n from public.revert_purchases($2::text::json) n)",
};

/// Facts that a purchase depends on, at one moment.
pub(super) struct QuoteRow {
    pub game: GameId,
    pub revision: i32,
    pub state: String,
    pub publisher: Option<PublisherId>,
    pub fee: Option<i32>,
    pub base: Option<GameId>,
    /// The currency and the price in it; none if there is no price in the currency that was asked for.
    pub currency: Option<String>,
    pub price: Option<i64>,
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
            base as "base: GameId", coalesce($3, g.currency) as currency,
            case when coalesce($3, g.currency) = g.currency then g.price
                else (select p.price from game_price p where p.game = g.id and p.currency = $3) end as price,
            case when g.stock is not null then stock_left(g.stock) end as "left",
            exists (select from entitlement e where e.game = g.id and e.app_user = $2) as "is_owned!",
            exists (select from entitlement e where e.game = g.base and e.app_user = $2) as "owns_base!",
            exists (select from app_user u where u.id = $2) as "has_recipient!"
        from game g
        left join publisher b on b.id = g.publisher
        where g.id = $1 and state <> 'deleted'"#,
        game.0,
        recipient.0,
        currency,
    );
    Ok(row.fetch_optional(db).await?)
}

/// Grants one free game, in the caller's transaction; false if the quote no longer holds.
pub(super) async fn claim_one(db: &mut PgConnection, row: &impl Serialize) -> Result<bool> {
    let rows = numbered(std::slice::from_ref(row))?;
    let taken = sqlx::query_scalar!(
        r#"select count(*) as "count!" from claim_purchases($1::text::json)"#,
        rows
    );
    Ok(taken.fetch_one(db).await? == 1)
}

/// Takes free games away, in the caller's transaction; false if one of them could not be.
pub(super) async fn revert(db: &mut PgConnection, rows: &[impl Serialize]) -> Result<bool> {
    let numbered = numbered(rows)?;
    let taken = sqlx::query_scalar!(
        r#"select count(*) as "count!" from revert_purchases($1::text::json)"#,
        numbered
    );
    Ok(usize::try_from(taken.fetch_one(db).await?) == Ok(rows.len()))
}

/// Rows as the functions take them: a JSON array of objects with their numbers.
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

/// A purchase as it was made.
pub(super) struct PurchaseRow {
    pub game: GameId,
    pub recipient: UserId,
    pub currency: String,
    pub price: i64,
    pub tax: i64,
    pub transfer: Option<TransferId>,
}

pub(super) async fn find_by_transfer(
    db: &mut PgConnection,
    transfer: TransferId,
) -> Result<Option<PurchaseRow>> {
    let row = sqlx::query_as!(
        PurchaseRow,
        r#"select game as "game: GameId", recipient as "recipient: UserId", currency, price, tax,
            transfer as "transfer: TransferId"
        from game_purchase where transfer = $1"#,
        transfer.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// The free purchase of a request with this key, with the content of the request.
pub(super) async fn find_by_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(PurchaseRow, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"select game as "game: GameId", recipient as "recipient: UserId", currency, price, tax, content_hash
        from game_purchase where key_hash = $1"#,
        key
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| {
        let (game, recipient, currency) = (row.game, row.recipient, row.currency);
        let purchase = PurchaseRow {
            game,
            recipient,
            currency,
            price: row.price,
            tax: row.tax,
            transfer: None,
        };
        (purchase, row.content_hash)
    }))
}

/// A game that a user owns, with the purchase that it is from.
#[derive(Debug)]
pub(super) struct OwnedGame {
    pub game: GameId,
    /// None if it was not bought.
    pub purchase: Option<i64>,
    pub buyer: Option<UserId>,
    pub publisher: Option<PublisherId>,
    pub transfer: Option<i64>,
    pub price: i64,
    pub tax: i64,
    pub fee: i64,
    pub currency: String,
    /// Whether its refund window has not ended.
    pub is_refundable: bool,
}

/// A game of a user, then its downloadable content.
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
        left join game_purchase p on p.game = g.id and p.recipient = $2 and p.refunded_at is null
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

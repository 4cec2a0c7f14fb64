//! SQL statements on the catalog of games.

use std::collections::HashMap;

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::list::words;
use super::{GameChanges, GameState, Insertion, NewGame};
use crate::error::Result;
use crate::ids::{GameId, PublisherId, UserId};

/// A game as stored in the database.
pub(super) struct GameRow {
    pub id: GameId,
    pub title: String,
    pub genre: String,
    pub description: String,
    pub price: i64,
    pub currency: String,
    pub prices: Vec<PriceRow>,
    pub publisher: Option<PublisherId>,
    pub publisher_user: Option<UserId>,
    pub state: String,
    pub base: Option<GameId>,
    pub copies: Option<i32>,
    pub left: Option<i32>,
}

/// A price of a game, and the sale that lowers it now.
pub(super) struct PriceRow {
    pub currency: String,
    pub price: i64,
    pub sale_price: Option<i64>,
    pub starts_at: Option<OffsetDateTime>,
    pub ends_at: Option<OffsetDateTime>,
}

/// Finds a game and its prices with two queries. A change can be committed between the queries, unless the transaction
/// uses a snapshot or has locked the game.
pub(super) async fn find(db: &mut PgConnection, id: GameId) -> Result<Option<GameRow>> {
    let row = sqlx::query!(
        r#"
        select title, genre, description, g.price, currency,
            g.publisher as "publisher: PublisherId", b.app_user as "publisher_user?: UserId",
            state, base as "base: GameId", s.quantity as "copies?", stock_left(g.stock) as "left"
        from game g
        left join publisher b on b.id = g.publisher
        left join stock s on s.id = g.stock
        where g.id = $1 and state <> 'deleted'"#,
        id.0
    );
    let Some(row) = row.fetch_optional(&mut *db).await? else { return Ok(None) };
    let prices = sqlx::query_as!(
        PriceRow,
        r#"
        select p.currency as "currency!", p.price as "price!", r.price as "sale_price?", r.starts_at as "starts_at?",
            r.ends_at as "ends_at?"
        from (
            select id as game, currency, price, true as is_main from game where id = $1
            union all
            select game, currency, price, false from game_price where game = $1
        ) p
        left join lateral running_sale(p.game, p.price, p.currency, clock_timestamp()) r on true
        order by p.is_main desc, p.currency"#,
        id.0
    );
    Ok(Some(GameRow {
        id,
        title: row.title,
        genre: row.genre,
        description: row.description,
        price: row.price,
        currency: row.currency,
        prices: prices.fetch_all(db).await?,
        publisher: row.publisher,
        publisher_user: row.publisher_user,
        state: row.state,
        base: row.base,
        copies: row.copies,
        left: row.left,
    }))
}

/// Returns the revision of the catalog, a number that increases with each change.
pub(super) async fn revision(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar!("select revision from catalog").fetch_one(db).await?)
}

/// Increments the revision of the catalog, which invalidates every cached list once the transaction commits. Until
/// then, other changes to the catalog wait.
pub(in crate::games) async fn bump_revision(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("update catalog set revision = revision + 1").execute(db).await?;
    Ok(())
}

/// Returns the games among `ids` that can be the base of downloadable content, with their publishers. Locks these games
/// until the transaction ends, so that no other transaction deletes them.
pub(in crate::games) async fn bases(
    db: &mut PgConnection,
    ids: &[GameId],
) -> Result<HashMap<GameId, Option<PublisherId>>> {
    let rows = sqlx::query!(
        r#"select id as "id: GameId", publisher as "publisher: PublisherId"
        from game where id = any ($1) and base is null and state <> 'deleted'
        order by id for key share"#,
        ids as &[GameId]
    );
    let rows = rows.fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (row.id, row.publisher)).collect())
}

/// A game that was added with an idempotency key, and the content hash of the request that added it.
pub(in crate::games) struct KeyedGame {
    pub id: GameId,
    pub content: Option<Uuid>,
}

/// Returns the games that were added with these idempotency keys, as a map from key to game.
pub(in crate::games) async fn find_by_keys(
    db: &mut PgConnection,
    keys: &[Uuid],
) -> Result<HashMap<Uuid, KeyedGame>> {
    let rows = sqlx::query!(
        r#"select id as "id: GameId", key_hash as "key!", content_hash
        from game where key_hash = any ($1)"#,
        keys
    );
    let rows = rows.fetch_all(db).await?.into_iter();
    Ok(rows.map(|row| (row.key, KeyedGame { id: row.id, content: row.content_hash })).collect())
}

/// Facts that decide what a caller may change about a game.
pub(super) struct GameFacts {
    pub state: String,
    pub stock: Option<i64>,
    pub publisher: Option<PublisherId>,
    pub publisher_user: Option<UserId>,
    pub base: Option<GameId>,
    /// Whether a copy of the game was ever sold or given away, or activation keys were created for the game.
    pub was_sold: bool,
}

/// Reads the facts that decide what a caller may change about a game. Takes no lock, so that a caller without
/// permission cannot delay purchases.
pub(super) async fn facts(db: &mut PgConnection, id: GameId) -> Result<Option<GameFacts>> {
    let row = sqlx::query_as!(
        GameFacts,
        r#"select state, stock, g.publisher as "publisher: PublisherId", b.app_user as "publisher_user?: UserId",
            base as "base: GameId",
            exists (
                select from game_purchase p where p.game = g.id and p.refunded_at is null and p.revoked_at is null
            ) or exists (
                select from game_purchase p where p.game = g.id and (p.refunded_at is not null or p.revoked_at is not null)
            ) or exists (select from key_batch k where k.game = g.id) as "was_sold!"
        from game g left join publisher b on b.id = g.publisher
        where g.id = $1 and state <> 'deleted'"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// Locks a game until the transaction ends. Other changes to the game wait; if `stops_sales` is true, purchases wait
/// too.
pub(super) async fn lock(db: &mut PgConnection, id: GameId, stops_sales: bool) -> Result<()> {
    if stops_sales {
        sqlx::query!("select from game where id = $1 for update", id.0).execute(db).await?;
    } else {
        sqlx::query!("select from game where id = $1 for no key update", id.0).execute(db).await?;
    }
    Ok(())
}

/// Returns whether a game has downloadable content.
pub(super) async fn has_content(db: &mut PgConnection, id: GameId) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (select from game where base = $1 and state <> 'deleted') as "exists!""#,
        id.0
    );
    Ok(exists.fetch_one(db).await?)
}

/// Inserts games, their prices, and their limits on copies. Skips games whose idempotency key was used already. Returns
/// the ids of the inserted games, in the order of `games`.
pub(super) async fn insert_all(
    db: &mut PgConnection,
    games: &[Insertion<'_>],
) -> Result<Vec<GameId>> {
    let texts = |text: fn(&NewGame) -> &str| -> Vec<&str> {
        games.iter().map(|new| text(new.game)).collect()
    };
    let numbers = |number: fn(&NewGame) -> Option<i64>| -> Vec<Option<i64>> {
        games.iter().map(|new| number(new.game)).collect()
    };
    let words = games
        .iter()
        .map(|Insertion { game, .. }| words([&game.title, &game.genre, &game.description]));
    let keys: Vec<_> = games.iter().map(|new| new.key.map(|key| key.hash)).collect();
    let contents: Vec<_> = games.iter().map(|new| new.key.map(|key| key.content)).collect();
    let prices = games.iter().zip(1_i64..).flat_map(|(Insertion { game, .. }, n)| {
        game.prices.iter().map(move |price| (n, price.currency.code(), price.amount.0))
    });
    let (mut priced, mut currencies, mut amounts) = (Vec::new(), Vec::new(), Vec::new());
    for (n, currency, amount) in prices {
        priced.push(n);
        currencies.push(currency);
        amounts.push(amount);
    }
    let ids = sqlx::query_file_scalar!(
        "src/games/catalog/insert_games.sql",
        &texts(|game| &game.title) as &[&str],
        &texts(|game| &game.genre) as &[&str],
        &texts(|game| &game.description) as &[&str],
        &words.collect::<Vec<_>>(),
        &numbers(|game| Some(game.price.amount.0)) as &[Option<i64>],
        &texts(|game| game.price.currency.code()) as &[&str],
        &numbers(|game| game.publisher.map(|id| id.0)) as &[Option<i64>],
        &texts(|game| game.state.name()) as &[&str],
        &numbers(|game| game.base.map(|id| id.0)) as &[Option<i64>],
        &numbers(|game| game.copies.map(i64::from)) as &[Option<i64>],
        &keys as &[Option<Uuid>],
        &contents as &[Option<Uuid>],
        &priced,
        &currencies as &[&str],
        &amounts,
    );
    Ok(ids.fetch_all(db).await?)
}

/// Replaces the prices of a game in currencies other than its main currency.
pub(super) async fn set_prices(
    db: &mut PgConnection,
    game: GameId,
    currencies: &[String],
    amounts: &[i64],
) -> Result<()> {
    sqlx::query!("delete from game_price where game = $1", game.0).execute(&mut *db).await?;
    sqlx::query!(
        "insert into game_price (game, currency, price)
        select $1, currency, price from unnest($2::text[], $3::bigint[]) as t (currency, price)",
        game.0,
        currencies,
        amounts,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Updates the fields of a locked game; a field that is `None` stays unchanged.
pub(super) async fn update(
    db: &mut PgConnection,
    id: GameId,
    changes: &GameChanges,
    words: &str,
    stock: Option<i64>,
) -> Result<()> {
    let price = changes.price;
    sqlx::query!(
        "update game
        set title = coalesce($2, title), genre = coalesce($3, genre), description = coalesce($4, description),
            words = $5, price = coalesce($6, price), currency = coalesce($7, currency), state = coalesce($8, state),
            stock = $9,
            revision = revision + 1, updated_at = now()
        where id = $1",
        id.0,
        changes.title,
        changes.genre,
        changes.description,
        words,
        price.map(|price| price.amount.0),
        price.as_ref().map(|price| price.currency.code()),
        changes.state.map(GameState::name),
        stock,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Sets the state of a locked game.
pub(super) async fn set_state(db: &mut PgConnection, id: GameId, state: &str) -> Result<()> {
    sqlx::query!(
        "update game set state = $2, revision = revision + 1, updated_at = now() where id = $1",
        id.0,
        state
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes the price, other than the main price, that a game has in its main currency. Such a price can be left over
/// from before a change of the main currency.
pub(super) async fn drop_price_in_main_currency(db: &mut PgConnection, id: GameId) -> Result<()> {
    sqlx::query!(
        "delete from game_price p using game g where g.id = $1 and p.game = g.id and p.currency = g.currency",
        id.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Invalidates every quote for a game, because its prices have changed.
pub(super) async fn bump_game(db: &mut PgConnection, id: GameId) -> Result<()> {
    sqlx::query!("update game set revision = revision + 1 where id = $1", id.0).execute(db).await?;
    Ok(())
}

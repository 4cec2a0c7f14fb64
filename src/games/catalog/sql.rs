//! Statements of the catalog.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::GameFilter;
use super::change::StoredGame;
use crate::error::Result;
use crate::games::BOOK;
use crate::ids::{GameId, PublisherId, UserId};

/// A game as the database has it.
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

/// A price of a game with the sale that holds now.
pub(super) struct PriceRow {
    pub currency: String,
    pub price: i64,
    pub sale_price: Option<i64>,
    pub starts_at: Option<OffsetDateTime>,
    pub ends_at: Option<OffsetDateTime>,
}

/// A game, and the position of its read. The connection has a snapshot, or is in the transaction of a change.
pub(super) async fn find(db: &mut PgConnection, id: GameId) -> Result<Option<(GameRow, String)>> {
    let row = sqlx::query!(
        r#"
        select title, genre, description, g.price, currency,
            g.publisher as "publisher: PublisherId", b.app_user as "publisher_user?: UserId",
            state, base as "base: GameId", s.quantity as "copies?", stock_left(g.stock) as "left",
            ledger.read_position($2) as "position!"
        from game g
        left join publisher b on b.id = g.publisher
        left join stock s on s.id = g.stock
        where g.id = $1 and state <> 'deleted'"#,
        id.0,
        BOOK,
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
    let game = GameRow {
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
    };
    Ok(Some((game, row.position)))
}

/// The revision of the catalog.
pub(super) async fn revision(db: &mut PgConnection) -> Result<i64> {
    Ok(sqlx::query_scalar!("select revision from catalog").fetch_one(db).await?)
}

pub(super) async fn revision_and_position(db: &mut PgConnection) -> Result<(i64, String)> {
    let row = sqlx::query!(
        r#"select revision, ledger.read_position($1) as "position!" from catalog"#,
        BOOK
    );
    let row = row.fetch_one(db).await?;
    Ok((row.revision, row.position))
}

/// Makes every cached list outdated once the transaction commits. Changes of the catalog run one at a time from here on.
pub(super) async fn bump_revision(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("update catalog set revision = revision + 1").execute(db).await?;
    Ok(())
}

pub(super) struct ListedRow {
    pub id: GameId,
    pub title: String,
    pub genre: String,
    pub description: String,
    pub price: i64,
    pub currency: String,
}

/// Published games in the order of their ids.
pub(super) async fn list(db: &mut PgConnection, filter: &GameFilter) -> Result<Vec<ListedRow>> {
    match filter {
        GameFilter { on_sale: true, .. } => list_on_sale(db, filter).await,
        GameFilter { search: Some(search), .. } => list_matching(db, search, filter).await,
        GameFilter { genre: Some(genre), .. } => list_of_genre(db, genre, filter).await,
        GameFilter { publisher: Some(publisher), .. } => {
            list_of_publisher(db, *publisher, filter).await
        }
        GameFilter { after, limit, .. } => {
            let rows = sqlx::query_as!(
                ListedRow,
                r#"select id as "id: GameId", title, genre, description, price, currency
                from game where state = 'published' and id > $1
                order by id limit $2"#,
                after.map_or(0, |id| id.0),
                *limit,
            );
            Ok(rows.fetch_all(db).await?)
        }
    }
}

async fn list_matching(
    db: &mut PgConnection,
    search: &str,
    filter: &GameFilter,
) -> Result<Vec<ListedRow>> {
    let rows = sqlx::query_as!(
        ListedRow,
        r#"select id as "id: GameId", title, genre, description, price, currency
        from game where state = 'published' and search @@ to_tsquery('simple', $1) and id > $2
            and ($3::text is null or lower(genre) = lower($3)) and ($4::bigint is null or publisher = $4)
        order by id limit $5"#,
        search,
        filter.after.map_or(0, |id| id.0),
        filter.genre.as_deref(),
        filter.publisher.map(|id| id.0),
        filter.limit,
    );
    Ok(rows.fetch_all(db).await?)
}

async fn list_on_sale(db: &mut PgConnection, filter: &GameFilter) -> Result<Vec<ListedRow>> {
    let rows = sqlx::query_as!(
        ListedRow,
        r#"select id as "id: GameId", title, genre, description, price, currency
        from game g
        where id in (
                select s.game from game_sale s
                where s.starts_at <= clock_timestamp() and clock_timestamp() < s.ends_at and s.game > $1
            )
            and state = 'published' and exists (select from running_sale(g.id, g.price, g.currency, clock_timestamp()))
            and ($2::text is null or search @@ to_tsquery('simple', $2))
            and ($3::text is null or lower(genre) = lower($3)) and ($4::bigint is null or publisher = $4)
        order by id limit $5"#,
        filter.after.map_or(0, |id| id.0),
        filter.search.as_deref(),
        filter.genre.as_deref(),
        filter.publisher.map(|id| id.0),
        filter.limit,
    );
    Ok(rows.fetch_all(db).await?)
}

async fn list_of_genre(
    db: &mut PgConnection,
    genre: &str,
    filter: &GameFilter,
) -> Result<Vec<ListedRow>> {
    let rows = sqlx::query_as!(
        ListedRow,
        r#"select id as "id: GameId", title, genre, description, price, currency
        from game where state = 'published' and lower(genre) = lower($1) and id > $2
            and ($3::bigint is null or publisher = $3)
        order by id limit $4"#,
        genre,
        filter.after.map_or(0, |id| id.0),
        filter.publisher.map(|id| id.0),
        filter.limit,
    );
    Ok(rows.fetch_all(db).await?)
}

async fn list_of_publisher(
    db: &mut PgConnection,
    publisher: PublisherId,
    filter: &GameFilter,
) -> Result<Vec<ListedRow>> {
    let rows = sqlx::query_as!(
        ListedRow,
        r#"select id as "id: GameId", title, genre, description, price, currency
        from game where publisher = $1 and state = 'published' and id > $2
        order by id limit $3"#,
        publisher.0,
        filter.after.map_or(0, |id| id.0),
        filter.limit,
    );
    Ok(rows.fetch_all(db).await?)
}

/// The user of a publisher.
pub(in crate::games) async fn publisher_user(
    db: &mut PgConnection,
    publisher: PublisherId,
) -> Result<Option<UserId>> {
    let user = sqlx::query_scalar!(
        r#"select app_user as "app_user: UserId" from publisher where id = $1"#,
        publisher.0
    );
    Ok(user.fetch_optional(db).await?)
}

/// A game that may be the base of downloadable content.
pub(super) struct BaseGame {
    pub publisher: Option<PublisherId>,
    pub has_base: bool,
}

pub(super) async fn base_game(db: &mut PgConnection, id: GameId) -> Result<Option<BaseGame>> {
    let row = sqlx::query_as!(
        BaseGame,
        r#"select publisher as "publisher: PublisherId", base is not null as "has_base!"
        from game where id = $1 and state <> 'deleted'
        for key share"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// The game that a request with this key added, with the content of the request.
pub(super) async fn find_by_key(
    db: &mut PgConnection,
    key: Uuid,
) -> Result<Option<(GameId, Option<Uuid>)>> {
    let row = sqlx::query!(
        r#"select id as "id: GameId", content_hash from game where key_hash = $1"#,
        key
    );
    Ok(row.fetch_optional(db).await?.map(|row| (row.id, row.content_hash)))
}

/// Facts that decide whether a caller may change a game.
pub(super) struct GameFacts {
    pub state: String,
    pub publisher: Option<PublisherId>,
    pub publisher_user: Option<UserId>,
    pub was_sold: bool,
}

/// Reads facts without a lock: a caller without the right must not make purchases wait.
pub(super) async fn facts(db: &mut PgConnection, id: GameId) -> Result<Option<GameFacts>> {
    let row = sqlx::query_as!(
        GameFacts,
        r#"select state, g.publisher as "publisher: PublisherId", b.app_user as "publisher_user?: UserId",
            exists (select from game_purchase p where p.game = g.id)
                or exists (select from key_batch k where k.game = g.id) as "was_sold!"
        from game g left join publisher b on b.id = g.publisher
        where g.id = $1 and state <> 'deleted'"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// Whether a game has downloadable content.
pub(super) async fn has_content(db: &mut PgConnection, id: GameId) -> Result<bool> {
    let exists = sqlx::query_scalar!(
        r#"select exists (select from game where base = $1 and state <> 'deleted') as "exists!""#,
        id.0
    );
    Ok(exists.fetch_one(db).await?)
}

/// Inserts a game; none if its key was used.
pub(super) async fn insert(
    db: &mut PgConnection,
    game: &StoredGame<'_>,
    stock: Option<i64>,
) -> Result<Option<GameId>> {
    let id = sqlx::query_scalar!(
        r#"insert into game (title, genre, description, price, currency, publisher, state, base, stock, key_hash, content_hash)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        on conflict (key_hash) do nothing
        returning id as "id: GameId""#,
        game.title,
        game.genre,
        game.description,
        game.price.amount.0,
        game.price.currency.code(),
        game.publisher.map(|id| id.0),
        game.state.name(),
        game.base.map(|id| id.0),
        stock,
        game.key.map(|key| key.hash),
        game.key.map(|key| key.content),
    );
    Ok(id.fetch_optional(db).await?)
}

/// Replaces the prices in further currencies.
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

pub(in crate::games) async fn create_stock(db: &mut PgConnection, quantity: i32) -> Result<i64> {
    let id = sqlx::query_scalar!("insert into stock (quantity) values ($1) returning id", quantity);
    Ok(id.fetch_one(db).await?)
}

pub(in crate::games) async fn set_quantity(
    db: &mut PgConnection,
    stock: i64,
    quantity: i32,
) -> Result<()> {
    sqlx::query!("update stock set quantity = $2 where id = $1", stock, quantity)
        .execute(db)
        .await?;
    Ok(())
}

/// Locks a game until the transaction ends: other changes wait, and purchases too if it stops sales.
pub(super) async fn lock(
    db: &mut PgConnection,
    id: GameId,
    stops_sales: bool,
) -> Result<Option<LockedGame>> {
    if stops_sales {
        sqlx::query!("select from game where id = $1 for update", id.0).execute(&mut *db).await?;
    }
    let row = sqlx::query_as!(
        LockedGame,
        r#"select state, g.stock, g.publisher as "publisher: PublisherId", base as "base: GameId",
            (select app_user from publisher b where b.id = g.publisher) as "publisher_user: UserId"
        from game g where id = $1 and state <> 'deleted'
        for no key update of g"#,
        id.0
    );
    Ok(row.fetch_optional(db).await?)
}

/// A game whose row is locked.
pub(super) struct LockedGame {
    pub state: String,
    pub stock: Option<i64>,
    pub publisher: Option<PublisherId>,
    pub base: Option<GameId>,
    pub publisher_user: Option<UserId>,
}

/// Replaces the members of a locked game; none stays as it is.
pub(super) async fn update(
    db: &mut PgConnection,
    id: GameId,
    changes: &super::GameChanges,
    stock: Option<i64>,
) -> Result<()> {
    let price = changes.price;
    sqlx::query!(
        "update game
        set title = coalesce($2, title), genre = coalesce($3, genre), description = coalesce($4, description),
            price = coalesce($5, price), currency = coalesce($6, currency), state = coalesce($7, state), stock = $8,
            revision = revision + 1, updated_at = now()
        where id = $1",
        id.0,
        changes.title,
        changes.genre,
        changes.description,
        price.map(|price| price.amount.0),
        price.as_ref().map(|price| price.currency.code()),
        changes.state.map(super::GameState::name),
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

/// Whether a copy of the game was ever sold or given away.
pub(super) async fn was_sold(db: &mut PgConnection, id: GameId) -> Result<bool> {
    let sold = sqlx::query_scalar!(
        r#"select exists (select from game_purchase where game = $1)
            or exists (select from key_batch where game = $1) as "sold!""#,
        id.0
    );
    Ok(sold.fetch_one(db).await?)
}

/// Drops a further price in what is now the main currency.
pub(super) async fn drop_price_in_main_currency(db: &mut PgConnection, id: GameId) -> Result<()> {
    sqlx::query!(
        "delete from game_price p using game g where g.id = $1 and p.game = g.id and p.currency = g.currency",
        id.0
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Makes every quote of a game outdated: its prices have changed.
pub(super) async fn bump_game(db: &mut PgConnection, id: GameId) -> Result<()> {
    sqlx::query!("update game set revision = revision + 1 where id = $1", id.0).execute(db).await?;
    Ok(())
}

/// The user of the publisher of a game; the inner none is the house.
pub(super) async fn manager_of(
    db: &mut PgConnection,
    game: GameId,
) -> Result<Option<Option<UserId>>> {
    let row = sqlx::query!(
        r#"select b.app_user as "user?: UserId" from game g left join publisher b on b.id = g.publisher
        where g.id = $1 and g.state <> 'deleted'"#,
        game.0
    );
    Ok(row.fetch_optional(db).await?.map(|row| row.user))
}

/// Sets the words that a search finds a game by.
pub(super) async fn set_words(db: &mut PgConnection, id: GameId, words: &str) -> Result<()> {
    sqlx::query!("update game set words = $2 where id = $1", id.0, words).execute(db).await?;
    Ok(())
}

//! SQL statements that list games.

use sqlx::PgConnection;

use super::GameFilter;
use crate::error::Result;
use crate::ids::{GameId, PublisherId};

/// Returns the catalog revision in a snapshot, and the position of the snapshot in the ledger.
pub(super) async fn revision_and_position(db: &mut PgConnection) -> Result<(i64, String)> {
    let row = sqlx::query!(r#"select revision, ledger.position() as "position!" from catalog"#);
    let row = row.fetch_one(db).await?;
    Ok((row.revision, row.position))
}

/// Makes Postgres plan each search for its actual words, because the best plan depends on how frequent a word is. For a
/// frequent word, Postgres should read the games in id order; for a rare word, it should sort the matches from the
/// index. The wrong plan takes up to a second. Also lowers the assumed cost of random reads, because the catalog fits
/// into memory.
pub(super) async fn plan_by_values(db: &mut PgConnection) -> Result<()> {
    sqlx::query!(
        r#"select set_config('plan_cache_mode', 'force_custom_plan', true) as "mode",
            set_config('random_page_cost', '1.1', true) as "cost""#
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// A published game as stored in the database.
pub(super) struct ListedRow {
    pub id: GameId,
    pub title: String,
    pub genre: String,
    pub description: String,
    pub price: i64,
    pub currency: String,
}

/// Returns a page of published games, sorted by id.
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

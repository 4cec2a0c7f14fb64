//! SQL statements of imports.

use sqlx::{Connection, PgConnection};

use crate::error::Result;
use crate::ids::PublisherId;

/// Id and name of a publisher.
pub(super) struct NamedPublisher {
    pub id: PublisherId,
    pub name: String,
}

/// Finds the publishers with these ids or names.
pub(super) async fn publishers(
    db: &mut PgConnection,
    ids: &[PublisherId],
    names: &[String],
) -> Result<Vec<NamedPublisher>> {
    let rows = sqlx::query_as!(
        NamedPublisher,
        r#"select id as "id: PublisherId", name from publisher where id = any ($1) or name = any ($2)"#,
        ids as &[PublisherId],
        names,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Vacuums the table of games, which updates the statistics of the query planner and merges pending entries into the
/// full-text index. Otherwise, searches are slow until Postgres vacuums the table by itself.
pub(super) async fn vacuum_games(db: &mut PgConnection) -> Result<()> {
    sqlx::query!("vacuum (analyze) game").execute(db).await?;
    Ok(())
}

/// Warms up the cache of the database server: reads the published games through an index, because `vacuum` and
/// sequential scans do not keep the pages in memory.
pub(super) async fn read_games(db: &mut PgConnection) -> Result<()> {
    let mut tx = db.begin().await?;
    sqlx::query!(
        r#"select set_config('enable_seqscan', 'off', true) as "scan",
            set_config('enable_bitmapscan', 'off', true) as "bitmap""#
    )
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query!(
        r#"select count(search) as "count!"
        from (select search from game where state = 'published' and id > 0 order by id offset 0) g"#
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

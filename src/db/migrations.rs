//! Migrations of the schema: applied, or only checked.

use anyhow::{Context, bail};
use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};

use super::sql;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Applies the missing migrations. The lock in [`Database::migrate`](super::Database::migrate) keeps other processes out.
pub async fn apply(db: &mut PgConnection) -> anyhow::Result<()> {
    require_known(db).await?;
    match MIGRATIONS.run_direct(None, db, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMismatch(version)) => bail!(
            "migration {version} of this database differs from the one of this program; \
             run the version of revwallet that created the database"
        ),
        Err(cause) => Err(cause).context(
            "the database could not be migrated and is unchanged; fix the cause and try again",
        ),
    }
}

/// Refuses a database whose migrations are not exactly those of this program.
pub async fn require_current(db: &mut PgConnection) -> anyhow::Result<()> {
    require_known(db).await?;
    let applied = sql::migrations(db).await?;
    let missing = MIGRATIONS.iter().filter(|known| !applied.contains(&known.version)).count();
    if missing > 0 {
        bail!(
            "the database lacks {missing} migrations; run `revwallet migrate` first, or start without --no-migrate"
        );
    }
    Ok(())
}

/// Refuses a database with a migration that this program does not have.
async fn require_known(db: &mut PgConnection) -> anyhow::Result<()> {
    let applied = sql::migrations(db).await?;
    match applied.iter().find(|version| !MIGRATIONS.version_exists(**version)) {
        None => Ok(()),
        Some(version) => bail!(
            "the database was migrated by a newer revwallet (this program does not have \
             migration {version}); run that version or a later one"
        ),
    }
}

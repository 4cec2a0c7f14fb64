//! The schema's version: brought up to date, or only looked at.

use anyhow::{Context, bail};
use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};

use super::sql;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Applies what is missing. One program does it at a time; the others wait for it.
pub async fn apply(db: &mut PgConnection) -> anyhow::Result<()> {
    refuse_newer(db).await?;
    match MIGRATIONS.run_direct(None, db, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMismatch(version)) => bail!(
            "migration {version} of this database differs from this program's; \
             run the version of revwallet that made the database"
        ),
        Err(cause) => Err(cause).context(
            "the database could not be migrated; it is as before, see the cause and try again",
        ),
    }
}

/// Refuses a database that is behind or ahead of this program.
pub async fn check(db: &mut PgConnection) -> anyhow::Result<()> {
    refuse_newer(db).await?;
    let applied = sql::migrations(db).await?;
    let missing = MIGRATIONS.iter().filter(|known| !applied.contains(&known.version)).count();
    if missing > 0 {
        bail!(
            "the database lacks {missing} migrations; run `revwallet migrate` first, or start without --no-migrate"
        );
    }
    Ok(())
}

async fn refuse_newer(db: &mut PgConnection) -> anyhow::Result<()> {
    let applied = sql::migrations(db).await?;
    match applied.iter().find(|version| !MIGRATIONS.version_exists(**version)) {
        None => Ok(()),
        Some(version) => bail!(
            "the database was migrated by a newer revwallet (it has migration {version}, \
             this program does not); run that version or a later one"
        ),
    }
}

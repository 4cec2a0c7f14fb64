//! Applies the migrations of the database schema, or checks that they are applied.

use anyhow::{Context, bail};
use sqlx::PgConnection;
use sqlx::migrate::{MigrateError, Migrator};

use super::sql;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Migrations that were corrected after their release, with their former checksum (SHA-384). A correction lets a
/// migration succeed on databases where it used to fail, and never changes the resulting schema.
const CORRECTED: [(i64, &str); 1] = [(
    9,
    "174942f03cb3b5ee78ba0bc24bd472241dff744490e8f1177a27ec4d35a94f481172a1b459a1937b16112d706e9f40b2",
)];

/// Applies the missing migrations. [`Database::migrate`](super::Database::migrate) holds a lock that keeps other
/// processes from migrating at the same time.
pub async fn apply(db: &mut PgConnection) -> anyhow::Result<()> {
    require_known(db).await?;
    accept_corrected(db).await?;
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

/// Distributes the books of the ledger over the servers of a Citus cluster. If the books are already distributed,
/// updates the distribution to the version of this program.
pub async fn distribute(db: &mut PgConnection) -> anyhow::Result<()> {
    match sql::distribute(db).await {
        Err(sqlx::Error::Database(error)) => {
            bail!("the ledger could not be distributed: {}", error.message())
        }
        result => result.context("the ledger could not be distributed"),
    }
}

/// Replaces the checksums of migrations that were applied before their correction, so that they are not reported as
/// altered.
async fn accept_corrected(db: &mut PgConnection) -> anyhow::Result<()> {
    let applied = sql::migrations(db).await?;
    for (version, former) in CORRECTED {
        let corrected = MIGRATIONS.iter().find(|migration| migration.version == version);
        if let Some(corrected) = corrected.filter(|_| applied.contains(&version)) {
            sql::replace_checksum(db, version, former, &corrected.checksum).await?;
        }
    }
    Ok(())
}

/// Returns an error unless the applied migrations are exactly those of this program.
pub async fn require_current(db: &mut PgConnection) -> anyhow::Result<()> {
    require_known(db).await?;
    let applied = sql::migrations(db).await?;
    let missing = MIGRATIONS.iter().filter(|known| !applied.contains(&known.version)).count();
    if missing > 0 {
        bail!(
            "the database lacks {missing} migrations of this program; run `revwallet migrate` first"
        );
    }
    Ok(())
}

/// Returns an error if the database has a migration that this program does not have.
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

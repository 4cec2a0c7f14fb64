//! Connecting to the private Postgres.

use std::path::Path;

use anyhow::{Context, bail};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{Connection, Error};

pub(super) const USER: &str = "revwallet";
pub(super) const DATABASE: &str = "revwallet";

/// What came of an attempt to connect.
pub(super) enum Attempt {
    Accepted { version: String },
    DatabaseMissing,
    TooEarly(String),
}

pub(super) fn options(socket_dir: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .username(USER)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// Connects once to the program's database.
pub(super) async fn attempt(socket_dir: &Path) -> anyhow::Result<Attempt> {
    let error = match PgConnection::connect_with(&options(socket_dir, DATABASE)).await {
        Ok(connection) => {
            let version = connection.server_version_num().map_or_else(String::new, version);
            // It has answered; that it does not hear our good-bye changes nothing.
            drop(connection.close().await);
            return Ok(Attempt::Accepted { version });
        }
        Err(error) => error,
    };
    match error.as_database_error().and_then(DatabaseError::code).as_deref() {
        Some("3D000") => Ok(Attempt::DatabaseMissing),
        Some(code) if code.starts_with("28") => {
            bail!(
                "the private Postgres does not let us in ({error}): choose another folder with --data-dir"
            )
        }
        _ => Ok(Attempt::TooEarly(error.to_string())),
    }
}

/// Creates the program's database in a new cluster.
pub(super) async fn create_database(socket_dir: &Path) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect_with(&options(socket_dir, "postgres"))
        .await
        .context("cannot create the database")?;
    match sqlx::query("create database revwallet").execute(&mut connection).await {
        Ok(_) => {}
        Err(Error::Database(error)) if error.code().as_deref() == Some("42P04") => {}
        Err(error) => return Err(error).context("cannot create the database"),
    }
    connection.close().await.context("cannot create the database")
}

fn version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version(150_018), "15.18");
        assert_eq!(version(180_000), "18.0");
    }
}

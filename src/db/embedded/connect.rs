//! Connections to the private Postgres.

use std::path::Path;

use anyhow::{Context, bail};
use sqlx::error::DatabaseError;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{Connection, Error};

pub(super) const USER: &str = "revwallet";
pub(super) const DATABASE: &str = "revwallet";

/// Outcome of an attempt to connect.
pub(super) enum ConnectOutcome {
    Accepted {
        version: String,
    },
    DatabaseMissing,
    /// Postgres does not accept connections yet. Contains the reason.
    NotReady(String),
}

pub(super) fn options(socket_dir: &Path, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(5432)
        .username(USER)
        .database(database)
        .ssl_mode(PgSslMode::Disable)
}

/// Tries once to connect to the program's database on the embedded server.
pub(super) async fn try_connect(socket_dir: &Path) -> anyhow::Result<ConnectOutcome> {
    let error = match PgConnection::connect_with(&options(socket_dir, DATABASE)).await {
        Ok(connection) => {
            let version = connection.server_version_num().map_or_else(String::new, format_version);
            // The server has accepted the connection, so a failure to close the connection does not matter.
            drop(connection.close().await);
            return Ok(ConnectOutcome::Accepted { version });
        }
        Err(error) => error,
    };
    match error.as_database_error().and_then(DatabaseError::code).as_deref() {
        Some("3D000") => Ok(ConnectOutcome::DatabaseMissing),
        Some(code) if code.starts_with("28") => {
            bail!(
                "the private Postgres rejects the connection ({error}): choose another folder with --data-dir"
            )
        }
        _ => Ok(ConnectOutcome::NotReady(error.to_string())),
    }
}

/// Creates the database of the program in a new cluster.
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

fn format_version(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_formatted_as_usual() {
        assert_eq!(format_version(150_018), "15.18");
        assert_eq!(format_version(180_000), "18.0");
    }
}

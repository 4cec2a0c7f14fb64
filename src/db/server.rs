//! An external PostgreSQL server: connection options, session settings, and the check at start-up.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

use super::sql;

/// Oldest major version of PostgreSQL that supports the schema.
const VERSION_MIN: i32 = 15;

/// Longest time that the first connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Parses the value of a setting as a database URL. The URL may contain a password, so error messages never include the
/// URL.
pub(super) fn options(setting: &str, url: &str) -> anyhow::Result<PgConnectOptions> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        bail!(
            "{setting} is not a PostgreSQL URL; write postgres://user:password@host:5432/database"
        );
    }
    PgConnectOptions::from_str(url).map_err(|_| {
        anyhow!("{setting} is malformed; write postgres://user:password@host:5432/database, with special characters as %XX")
    })
}

/// Adds the Postgres settings for this program's sessions, except those of pipelined connections. The timeouts keep a
/// process that hangs from blocking others.
pub(super) fn with_session_settings(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("revwallet").options([
        ("lock_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "30s"),
        // The plans do not depend on the values, and planning costs more than most reads.
        ("plan_cache_mode", "force_generic_plan"),
        // A plan made while a table was small would stay in use after the table has grown.
        ("enable_seqscan", "off"),
        ("jit", "off"),
        ("tcp_keepalives_idle", "15"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "3"),
    ])
}

/// Connects to the server once, and returns an error if the server cannot be used, for example because it is a
/// read-only replica. Returns whether Citus distributes the ledger over several servers.
pub(super) async fn check(options: &PgConnectOptions) -> anyhow::Result<bool> {
    let address = address_of(options);
    let connecting = PgConnection::connect_with(options);
    let connected = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected.map_err(|cause| explain(&cause, options, &address)),
        Err(_) => Err(anyhow!(
            "PostgreSQL at {address} does not answer; check the address in DATABASE_URL and the network"
        )),
    };
    let mut connection = connected?;
    let (version, replica) = sql::server(&mut connection).await?;
    let major = version / 10_000;
    if major < VERSION_MIN {
        bail!(
            "PostgreSQL at {address} is version {major}; version {VERSION_MIN} or newer is needed"
        );
    }
    if replica {
        bail!("PostgreSQL at {address} is a read-only replica; point DATABASE_URL at its primary");
    }
    let is_distributed = sql::is_distributed(&mut connection).await?;
    connection.close().await?;
    Ok(is_distributed)
}

fn address_of(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    }
}

/// Explains why a connection failed, in a sentence that says what to do.
fn explain(cause: &sqlx::Error, options: &PgConnectOptions, address: &str) -> anyhow::Error {
    let user = options.get_username();
    let database = options.get_database().unwrap_or(user);
    let code =
        cause.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    match code.as_deref() {
        Some("28P01" | "28000") => anyhow!(
            "PostgreSQL at {address} refuses user `{user}`; check user and password in DATABASE_URL"
        ),
        Some("3D000") => anyhow!(
            "PostgreSQL at {address} has no database `{database}`; create it (`createdb {database}`) or correct DATABASE_URL"
        ),
        Some("53300") => anyhow!(
            "PostgreSQL at {address} has no free connection; raise its max_connections or close other connections"
        ),
        _ => anyhow!(
            "cannot reach PostgreSQL at {address} ({cause}); start it or correct DATABASE_URL"
        ),
    }
}

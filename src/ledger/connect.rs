//! The ledger's own database connections: how they are opened, which errors keep the ledger from starting, and which
//! errors leave the outcome of a request unknown.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio_postgres::Client;

use super::sql;
use crate::db::Pipelined;

/// Longest silence of the database server before a connection counts as lost.
const PEER_SILENT_MAX: Duration = Duration::from_secs(20);

/// Longest time that opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Future that drives a connection, and ends when the connection is closed. Queries make progress only while the owner
/// of the connection polls this future.
pub(super) type ConnectionDriver =
    Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// Reason why the ledger cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the database does not respond")]
    Database(#[from] tokio_postgres::Error),
    #[error(
        "the database server may lose acknowledged commits: {0}; correct its settings, or pass --allow-unsafe-server"
    )]
    Unsafe(super::UnsafeSettings),
    #[error("the database has no book {0}; run the migrations")]
    NoBook(i32),
    /// Another process changed the number of books while this process was starting. A process that does not know a book
    /// would mistake the accounts of that book for accounts of another book.
    #[error(
        "the database has {found} books instead of {expected}: another process has just changed them; start this process again"
    )]
    Books { found: i32, expected: i32 },
}

/// Connects, applies the session settings, and switches to the application's role if the login user is permitted to.
/// `before_role` runs before the switch, when the connection may have more permissions.
pub(super) async fn connect<T>(
    database: &Pipelined,
    before_role: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
) -> Result<(Client, ConnectionDriver, T), tokio_postgres::Error> {
    let Pipelined { mut config, tls } = database.clone();
    config
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives(true)
        .keepalives_idle(PEER_SILENT_MAX / 2)
        .keepalives_interval(PEER_SILENT_MAX / 8)
        .keepalives_retries(4)
        .tcp_user_timeout(PEER_SILENT_MAX);
    let (client, connection) = config.connect(tls).await?;
    let mut driver: ConnectionDriver = Box::pin(connection);
    let prepared = drive(&mut driver, async {
        client.batch_execute(sql::SESSION).await?;
        let value = before_role(&client).await?;
        if client.query_one(sql::HAS_ROLE, &[]).await?.try_get(0)? {
            client.batch_execute(sql::SET_ROLE).await?;
        }
        Ok(value)
    })
    .await;
    prepared.map(|value| (client, driver, value))
}

/// Runs `work`, and polls the driver of the connection that `work` uses.
pub(super) async fn drive<T>(
    driver: &mut ConnectionDriver,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let mut work = std::pin::pin!(work);
    let ended = match select(work.as_mut(), &mut *driver).await {
        Either::Left((done, _)) => return done,
        Either::Right((ended, _)) => ended,
    };
    // Pending requests of an ended connection fail only when its driver is dropped; otherwise they never complete.
    *driver = Box::pin(std::future::ready(ended));
    work.await
}

/// Returns whether the request may have taken effect despite this error. After an ordinary error of a statement, it has
/// no effect, because its transaction was rolled back.
pub(super) fn is_outcome_unknown(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        Some(db) => matches!(db.severity(), "FATAL" | "PANIC"),
        None => true,
    }
}

//! Connections of the ledger's own, and what a server must promise before money is written to it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio_postgres::Client;

use super::sql;
use crate::db::Pipelined;

/// After this long without a sign of life the other side counts as gone.
const PEER_SILENT_MAX: Duration = Duration::from_secs(20);

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Drives a connection; ends when it is closed. Who owns it must poll it.
pub(super) type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// Why the ledger does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the database does not answer")]
    Database(#[from] tokio_postgres::Error),
    #[error(
        "this server may lose money that was acknowledged: {0}; set it on, or pass --allow-unsafe-server"
    )]
    Unsafe(Unsafe),
    #[error("there is no book {0} in this database; run the migrations")]
    NoBook(i32),
    #[error("{code} has {stored} decimals in this book, but {configured} in the settings")]
    Decimals { code: String, stored: i16, configured: u8 },
}

/// The settings with which a server may lose a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsafe(Vec<String>);

impl fmt::Display for Unsafe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Connects as the role of the application, with the limits that every connection has.
/// `before_role` runs as the user that logged in, who may do more.
pub(super) async fn connect<T>(
    database: &Pipelined,
    before_role: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
) -> Result<(Client, Driver, T), tokio_postgres::Error> {
    let Pipelined { mut config, tls } = database.clone();
    config
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives(true)
        .keepalives_idle(PEER_SILENT_MAX / 2)
        .keepalives_interval(PEER_SILENT_MAX / 8)
        .keepalives_retries(4)
        .tcp_user_timeout(PEER_SILENT_MAX);
    let (client, connection) = config.connect(tls).await?;
    let mut driver: Driver = Box::pin(connection);
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

/// Polls a connection while something is asked over it.
pub(super) async fn drive<T>(
    driver: &mut Driver,
    work: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, tokio_postgres::Error> {
    let mut work = std::pin::pin!(work);
    let ended = match select(work.as_mut(), &mut *driver).await {
        Either::Left((done, _)) => return done,
        Either::Right((ended, _)) => ended,
    };
    // A connection that has ended answers its requests only when it is dropped; kept, they would wait for ever.
    *driver = Box::pin(std::future::ready(ended));
    work.await
}

/// The settings of this server with which a commit may be lost in a crash, if any.
pub(super) async fn check_durability(
    client: &Client,
) -> Result<Option<Unsafe>, tokio_postgres::Error> {
    let mut settings = Vec::new();
    for row in client.query(sql::DURABILITY, &[]).await? {
        let (name, setting): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        // `synchronous_commit` has more values than two; all but `off` wait for the disk.
        if setting == "off" {
            settings.push(format!("{name} is off"));
        }
    }
    Ok(if settings.is_empty() { None } else { Some(Unsafe(settings)) })
}

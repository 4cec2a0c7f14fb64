//! The server processes of the writer's earlier connections, which must end before the outcome of a batch is certain.

use std::time::{Duration, SystemTime};

use tokio_postgres::{Client, Error};

use crate::ledger::connect::is_outcome_unknown;
use crate::ledger::sql;

/// A process of the database server (backend). If its connection is lost, the writer terminates the process, which then
/// cannot commit a batch later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backend {
    pid: i32,
    start: SystemTime,
}

impl Backend {
    /// Identifies the backend that serves this connection.
    pub(super) async fn read(client: &Client) -> Result<Self, Error> {
        let row = client.query_one(sql::BACKEND, &[]).await?;
        Ok(Self { pid: row.try_get(0)?, start: row.try_get(1)? })
    }
}

/// Terminates processes of the database server. Removes from the list the processes that have certainly ended.
pub(super) async fn terminate_backends(
    client: &Client,
    backends: &mut Vec<Backend>,
) -> Result<(), Error> {
    const ATTEMPTS_MAX: u32 = 20;
    /// Delay between two attempts, which gives the backend time to end.
    const ATTEMPT_DELAY: Duration = Duration::from_millis(25);

    for _ in 0..ATTEMPTS_MAX {
        let mut running = Vec::new();
        for backend in backends.iter() {
            match client.query_opt(sql::TERMINATE_BACKEND, &[&backend.pid, &backend.start]).await {
                Ok(None) => {}
                Err(error) if is_outcome_unknown(&error) => return Err(error),
                // An error can mean that the backend belongs to a role whose backends this user may not terminate.
                Ok(Some(_)) | Err(_) => running.push(*backend),
            }
        }
        *backends = running;
        if backends.is_empty() {
            break;
        }
        tokio::time::sleep(ATTEMPT_DELAY).await;
    }
    Ok(())
}

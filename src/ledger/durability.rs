//! Durability of the database server: finds settings under which the server may lose acknowledged commits.

use std::fmt;

use tokio_postgres::Client;

use super::sql;

/// Server settings that risk the loss of acknowledged commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsafeSettings(Vec<String>);

impl fmt::Display for UnsafeSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// Returns the settings of this server that risk the loss of commits in a crash, if any.
pub(super) async fn check_durability(
    client: &Client,
) -> Result<Option<UnsafeSettings>, tokio_postgres::Error> {
    let mut settings = Vec::new();
    for row in client.query(sql::DURABILITY, &[]).await? {
        let (name, setting): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        // `synchronous_commit` has more than two values; all except `off` wait for the disk.
        if setting == "off" {
            settings.push(format!("{name} is off"));
        }
    }
    Ok(if settings.is_empty() { None } else { Some(UnsafeSettings(settings)) })
}

//! Throttling of attempts, such as logins: by account, by address, or by both together.
//!
//! An attempt is counted before its password or key is checked, so many concurrent attempts gain nothing over
//! sequential attempts. [`record_success`] takes a successful attempt back. After several failures each further attempt
//! has to wait, twice as long each time, and counted attempts expire gradually. The limit for an account and address
//! together stops a client that guesses the password of that account. The wider limits, for an account or an address
//! alone, stop guesses from many addresses or at many accounts. They are higher, so that they do not stop an honest
//! user behind the same address.

mod sql;

use std::net::IpAddr;
use std::time::Duration;

use sqlx::Connection;
use uuid::Uuid;

use crate::auth::client_network;
use crate::db::Database;
use crate::error::{Error, Result};

/// Time in which as many counted attempts expire as a limit allows without a wait. Attempts expire one by one at a
/// constant rate.
pub const EXPIRY: Duration = Duration::from_hours(1);

/// Wait after the first attempt that is not free; it doubles with each further attempt.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_mins(15);

/// Effect of a successful attempt on the number of attempts that a limit has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSuccess {
    /// The count is set to zero, because the earlier failures were honest mistakes.
    Reset,
    /// Only the successful attempt is subtracted. Limits of an address need this: otherwise an attacker that guesses
    /// passwords of other accounts could reset the count by signing in to the attacker's own account.
    TakeBack,
}

/// A limit on attempts, for example on logins to an account, that an attempt is counted against.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimit {
    pub key: Uuid,
    /// Number of attempts that are allowed without a wait.
    pub free: i32,
    pub on_success: OnSuccess,
}

/// Whether the attempt that follows a counted attempt has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    Free,
    HasToWait,
}

/// Returns the network of an IP address. All addresses of a network count as one client.
pub fn network(address: IpAddr) -> String {
    client_network(address).to_string()
}

/// Counts an attempt against every limit, or returns an error if the client has to wait because of any of them.
pub async fn count_attempt(
    db: &Database,
    limits: &[AttemptLimit],
    operation: &'static str,
) -> Result<NextAttempt> {
    let mut db = db.acquire(operation).await?;
    let mut tx = db.begin().await?;
    // Every transaction locks the rows in the same order, so that two concurrent attempts cannot deadlock.
    let mut limits = limits.to_vec();
    limits.sort_unstable_by_key(|limit| limit.key);
    let mut next = NextAttempt::Free;
    for AttemptLimit { key, free, .. } in limits {
        let windows = [EXPIRY, WAIT_MIN, WAIT_MAX];
        match sql::count_attempt(&mut tx, key, free, windows).await? {
            Some(NextAttempt::Free) => {}
            Some(NextAttempt::HasToWait) => next = NextAttempt::HasToWait,
            None => {
                let wait = sql::remaining_wait(&mut tx, key).await?;
                tx.rollback().await?;
                return Err(Error::TooManyRequests { wait });
            }
        }
    }
    tx.commit().await?;
    Ok(next)
}

/// Returns an error if an attempt would have to wait. Counts no attempt.
pub async fn require_unlocked(db: &Database, limit: &AttemptLimit) -> Result<()> {
    let mut db = db.acquire("throttle.require_unlocked").await?;
    let wait = sql::remaining_wait(&mut db, limit.key).await?;
    if wait.is_zero() { Ok(()) } else { Err(Error::TooManyRequests { wait }) }
}

/// Resets each limit or subtracts the successful attempt from it, as the limit demands.
pub async fn record_success(db: &Database, limits: &[AttemptLimit]) -> Result<()> {
    let mut db = db.acquire("throttle.record_success").await?;
    for AttemptLimit { key, on_success, .. } in limits {
        match on_success {
            OnSuccess::Reset => sql::reset(&mut db, *key).await?,
            OnSuccess::TakeBack => sql::take_back(&mut db, *key).await?,
        }
    }
    Ok(())
}

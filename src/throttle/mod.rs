//! Throttling of attempts, such as logins: by account, by address, or by both together.
//!
//! Each attempt is counted before it is checked, so that concurrent attempts have no advantage over sequential
//! attempts; [`record_success`] takes a successful attempt back. After several failures each further attempt has to
//! wait, twice as long each time, and counted attempts expire gradually. The narrow limit (account and address) stops a
//! client that guesses the password of an account. The wide limits stop guesses from many addresses or at many
//! accounts, and leave room for an honest user behind the same address.

mod sql;

use std::net::IpAddr;
use std::time::Duration;

use sqlx::Connection;
use uuid::Uuid;

use crate::auth::client_network;
use crate::db::Database;
use crate::error::{Error, Result};

/// Time in which as many counted attempts expire as the limit has free attempts; they expire at a constant rate.
pub const EXPIRY: Duration = Duration::from_hours(1);

/// First wait; it doubles with each further attempt.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Longest wait.
const WAIT_MAX: Duration = Duration::from_mins(15);

/// Effect of a successful attempt on the count of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSuccess {
    /// The count starts over, because the earlier failures were honest mistakes.
    Reset,
    /// Only the successful attempt is taken back. Limits of addresses need this, because an attacker that guesses
    /// passwords of other accounts could otherwise reset the count by signing in to the attacker's own account.
    TakeBack,
}

/// A limit that an attempt is counted against.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimit {
    pub key: Uuid,
    /// Number of attempts that need not wait.
    pub free: i32,
    pub on_success: OnSuccess,
}

/// Whether the attempt after a counted attempt has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    Free,
    HasToWait,
}

/// The network of an address, which counts as one client.
pub fn network(address: IpAddr) -> String {
    client_network(address).to_string()
}

/// Counts an attempt, or refuses the attempt if the client has to wait.
pub async fn count_attempt(
    db: &Database,
    limits: &[AttemptLimit],
    operation: &'static str,
) -> Result<NextAttempt> {
    let mut db = db.acquire(operation).await?;
    let mut tx = db.begin().await?;
    // Every attempt takes the rows in the same order, so that two attempts never deadlock.
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

/// Refuses an attempt that has to wait, without counting it.
pub async fn require_unlocked(db: &Database, limit: &AttemptLimit) -> Result<()> {
    let mut db = db.acquire("throttle.require_unlocked").await?;
    let wait = sql::remaining_wait(&mut db, limit.key).await?;
    if wait.is_zero() { Ok(()) } else { Err(Error::TooManyRequests { wait }) }
}

/// Applies the effect of a successful attempt to each of its limits.
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

//! Throttling of attempts, such as logins: by account, by address, or by both together.
//!
//! Each attempt is counted before its password or key is checked, so an attacker gains nothing by making many attempts
//! at once. [`record_success`] subtracts a successful attempt again. After several failures, each further attempt has
//! to wait twice as long as the previous attempt. Counted attempts expire gradually.
//!
//! The limit for an account and an address together stops a client that guesses the password of the account. The limit
//! for an account alone stops guesses from many addresses, and the limit for an address alone stops guesses at many
//! accounts. These two limits are higher, so that they do not stop honest users, who may share an address with an
//! attacker.

mod sql;

use std::net::IpAddr;
use std::time::Duration;

use sqlx::Connection;
use uuid::Uuid;

use crate::auth::client_network;
use crate::db::Database;
use crate::error::{Error, Result};

/// Time after which a client that has used up its free attempts ([`AttemptLimit::free`]) has all free attempts again.
/// Counted attempts expire one by one, at a constant rate.
pub const EXPIRY: Duration = Duration::from_hours(1);

/// Wait before the first attempt that is not free. The wait doubles before each further attempt.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_mins(15);

/// Effect of a successful attempt on the number of attempts that a limit has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSuccess {
    /// The count is set to zero, because the earlier failures were honest mistakes.
    Reset,
    /// Only the successful attempt is subtracted. Limits on an address need this variant: otherwise an attacker that
    /// guesses passwords of other accounts could reset the count by signing in to the attacker's own account.
    TakeBack,
}

/// A limit on attempts, for example on logins to an account.
#[derive(Debug, Clone, Copy)]
pub struct AttemptLimit {
    pub key: Uuid,
    /// Number of attempts that are allowed without a wait.
    pub free: i32,
    pub on_success: OnSuccess,
}

/// Whether the client has to wait before its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    Free,
    HasToWait,
}

/// Returns the network of an IP address. All addresses of a network count as one client.
pub fn network(address: IpAddr) -> String {
    client_network(address).to_string()
}

/// Counts an attempt against each of the limits. If the client has to wait because of any limit, counts nothing and
/// returns an error with the remaining wait.
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

/// Returns an error if an attempt would have to wait, without counting an attempt.
pub async fn require_unlocked(db: &Database, limit: &AttemptLimit) -> Result<()> {
    let mut db = db.acquire("throttle.require_unlocked").await?;
    let wait = sql::remaining_wait(&mut db, limit.key).await?;
    if wait.is_zero() { Ok(()) } else { Err(Error::TooManyRequests { wait }) }
}

/// Resets each limit or subtracts the successful attempt from it, as [`AttemptLimit::on_success`] specifies.
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

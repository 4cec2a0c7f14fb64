//! How often one may try: by account, by address, and by both together.
//!
//! Each attempt is counted before it is looked at, so that a thousand at once are no more than a thousand in a row;
//! one that succeeds is taken back. Who fails too often waits, each time twice as long; what was tried is forgotten
//! little by little. The narrow limit stops who guesses one password from one place; the wide ones who guesses from
//! many places, or at many accounts, and they are wide so that the honest user next to him gets in.

mod sql;

use std::net::IpAddr;
use std::time::Duration;

use sqlx::Connection;
use uuid::Uuid;

use crate::db::Database;
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::secret::digest;

/// In this time as many attempts are forgotten as are free.
pub(super) const FORGET_AFTER: Duration = Duration::from_hours(1);

/// The first wait, which doubles with each attempt, and the longest.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_mins(15);

/// One of the limits that an attempt meets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    key: Uuid,
    /// Attempts before one has to wait.
    free: i32,
    /// Whether a success shows that the failures before it were honest. Not of an address: there, whoever guesses at
    /// other people's accounts could sign in to his own now and then.
    forgets: bool,
}

/// What an attempt to sign in meets. Somebody is the same however the name is written, and whichever of their names.
pub(super) fn of_login(user: Option<UserId>, login: &str, address: Option<IpAddr>) -> Vec<Limit> {
    let login = user.map_or_else(|| login.to_lowercase(), |id| format!("user:{id}"));
    let address = address.map(network);
    let mut limits = vec![Limit { key: digest(&["account", &login]), free: 50, forgets: true }];
    if let Some(address) = address {
        limits.push(Limit { key: digest(&["address", &address]), free: 100, forgets: false });
        limits.push(Limit {
            key: digest(&["account and address", &login, &address]),
            free: 5,
            forgets: true,
        });
    }
    limits
}

/// What a change of a profile meets.
pub(super) fn of_change(user: UserId) -> Vec<Limit> {
    let key = digest(&["change", &user.to_string()]);
    vec![Limit { key, free: 20, forgets: false }]
}

/// What a registration meets; it is never taken back.
pub(super) fn of_registration(address: Option<IpAddr>, free: i32) -> Vec<Limit> {
    let limit =
        |address| Limit { key: digest(&["registration", &network(address)]), free, forgets: false };
    address.into_iter().map(limit).collect()
}

/// A household has a whole /64 of IPv6.
fn network(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let prefix: Vec<String> =
                address.segments()[..4].iter().map(|part| format!("{part:x}")).collect();
            prefix.join(":")
        }
    }
}

/// Counts an attempt, or refuses it. Whether it was the last one before a wait.
pub(super) async fn count(
    db: &Database,
    limits: &[Limit],
    operation: &'static str,
) -> Result<bool> {
    let mut db = db.acquire(operation).await?;
    let mut tx = db.begin().await?;
    // In one order everywhere, so that two attempts never wait for each other.
    let mut limits = limits.to_vec();
    limits.sort_unstable_by_key(|limit| limit.key);
    let mut locks = false;
    for Limit { key, free, .. } in limits {
        let windows = [FORGET_AFTER, WAIT_MIN, WAIT_MAX];
        let Some(locked) = sql::count(&mut tx, key, free, windows).await? else {
            let wait = sql::wait(&mut tx, key).await?;
            tx.rollback().await?;
            return Err(Error::TooManyRequests { wait });
        };
        locks |= locked;
    }
    tx.commit().await?;
    Ok(locks)
}

/// An attempt that succeeded.
pub(super) async fn forgive(db: &Database, limits: &[Limit]) -> Result<()> {
    let mut db = db.acquire("users.forgive").await?;
    for Limit { key, forgets, .. } in limits {
        if *forgets {
            sql::forget(&mut db, *key).await?;
        } else {
            sql::take_back(&mut db, *key).await?;
        }
    }
    Ok(())
}

//! Limits on logins, profile updates and registrations. A client that exceeds a limit has to wait.

use std::net::IpAddr;

use crate::ids::UserId;
use crate::secret::digest;
use crate::throttle::{AttemptLimit, OnSuccess, network};

/// Returns the limits on login attempts. Attempts with the user name and attempts with the e-mail address of the same
/// user count together. Case makes no difference.
pub(super) fn login_limits(
    user: Option<UserId>,
    login: &str,
    address: Option<IpAddr>,
) -> Vec<AttemptLimit> {
    let login = user.map_or_else(|| login.to_lowercase(), |id| format!("user:{id}"));
    let mut limits = vec![AttemptLimit {
        key: digest(&["account", &login]),
        free: 50,
        on_success: OnSuccess::Reset,
    }];
    if let Some(address) = address.map(network) {
        limits.push(AttemptLimit {
            key: digest(&["address", &address]),
            free: 100,
            on_success: OnSuccess::TakeBack,
        });
        limits.push(AttemptLimit {
            key: digest(&["account and address", &login, &address]),
            free: 5,
            on_success: OnSuccess::Reset,
        });
    }
    limits
}

/// Returns the limits on profile updates. Successful updates count as well.
pub(super) fn profile_limits(user: UserId) -> Vec<AttemptLimit> {
    let key = digest(&["change", &user.to_string()]);
    vec![AttemptLimit { key, free: 20, on_success: OnSuccess::TakeBack }]
}

/// Returns the limits on registrations from an address. Successful registrations count as well.
pub(super) fn registration_limits(address: Option<IpAddr>, free: i32) -> Vec<AttemptLimit> {
    let limit = |address| AttemptLimit {
        key: digest(&["registration", &network(address)]),
        free,
        on_success: OnSuccess::TakeBack,
    };
    address.into_iter().map(limit).collect()
}

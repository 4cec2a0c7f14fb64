//! The limits of logins, updates of profiles and registrations.

use std::net::IpAddr;

use crate::ids::UserId;
use crate::secret::digest;
use crate::throttle::{AttemptLimit, OnSuccess, network};

/// Limits on attempts to log in. Attempts count per account, whichever name of the user they give, in upper or lower
/// case.
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

/// Limits on attempts to update a profile.
pub(super) fn profile_limits(user: UserId) -> Vec<AttemptLimit> {
    let key = digest(&["change", &user.to_string()]);
    vec![AttemptLimit { key, free: 20, on_success: OnSuccess::TakeBack }]
}

/// The limits of a registration. A successful registration counts as well.
pub(super) fn registration_limits(address: Option<IpAddr>, free: i32) -> Vec<AttemptLimit> {
    let limit = |address| AttemptLimit {
        key: digest(&["registration", &network(address)]),
        free,
        on_success: OnSuccess::TakeBack,
    };
    address.into_iter().map(limit).collect()
}

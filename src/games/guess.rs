//! Throttling of guesses: wrong discount codes and activation keys count for the user and for the address.

use std::net::IpAddr;

use super::Games;
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::secret::digest;
use crate::telemetry::Metrics;
use crate::throttle::{self, AttemptLimit, OnSuccess, network};

/// Wrong guesses of a user without a wait, in an hour.
const FREE_PER_USER: i32 = 10;

/// Wrong guesses from an address without a wait, in an hour.
const FREE_PER_ADDRESS: i32 = 50;

/// A text that can be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guess {
    Code,
    Key,
}

impl Guess {
    const ALL: [Self; 2] = [Self::Code, Self::Key];

    const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Key => "activation_key",
        }
    }
}

pub(super) fn preregister(metrics: &Metrics) {
    for guess in Guess::ALL {
        metrics.wallet_rate_limited_total.preregister([guess.name()]);
    }
}

/// The limits that a guess is counted against. A right one is taken back, and does not forgive the wrong ones.
pub(super) fn guess_limits(
    guess: Guess,
    user: UserId,
    address: Option<IpAddr>,
) -> Vec<AttemptLimit> {
    let limit = |what: &str, id: String, free| AttemptLimit {
        key: digest(&["guess", guess.name(), what, &id]),
        free,
        on_success: OnSuccess::TakeBack,
    };
    let user = limit("user", user.to_string(), FREE_PER_USER);
    let address = address.map(|address| limit("address", network(address), FREE_PER_ADDRESS));
    std::iter::once(user).chain(address).collect()
}

impl Games {
    /// Counts a guess before it is checked; refuses it if it has to wait.
    pub(super) async fn count_guess(&self, guess: Guess, limits: &[AttemptLimit]) -> Result<()> {
        let counted = throttle::count_attempt(&self.db, limits, "games.count_guess").await;
        if matches!(counted, Err(Error::TooManyRequests { .. })) {
            self.metrics.wallet_rate_limited_total.with([guess.name()]).increment(1);
        }
        counted.map(drop)
    }
}

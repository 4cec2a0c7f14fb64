//! Throttling of guesses: each wrong discount code or activation key counts against the user and the client address.
//! After too many wrong guesses, further guesses are temporarily refused.

use std::net::IpAddr;

use super::Games;
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::secret::digest;
use crate::telemetry::Metrics;
use crate::throttle::{self, AttemptLimit, OnSuccess, network};

/// Number of wrong guesses in an hour after which a user has to wait before each further guess.
const FREE_PER_USER: i32 = 10;

/// Number of wrong guesses in an hour after which a client address has to wait before each further guess.
const FREE_PER_ADDRESS: i32 = 50;

/// Kind of secret that an attacker could try to guess.
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

/// A guess that already counts against the user, although it has not been checked yet.
pub(super) struct CountedGuess {
    user: AttemptLimit,
    address: Option<AttemptLimit>,
}

impl Games {
    /// Counts a guess against the user before the guess is checked. Returns an error if the user or the client address
    /// has to wait.
    ///
    /// Only wrong guesses count against the address, because many honest users can share an address.
    pub(super) async fn begin_guess(
        &self,
        guess: Guess,
        user: UserId,
        address: Option<IpAddr>,
    ) -> Result<CountedGuess> {
        // A correct guess is later subtracted from the count, but does not reset the count of wrong guesses.
        let limit = |what: &str, id: String, free| AttemptLimit {
            key: digest(&["guess", guess.name(), what, &id]),
            free,
            on_success: OnSuccess::TakeBack,
        };
        let user = limit("user", user.to_string(), FREE_PER_USER);
        let address = address.map(|address| limit("address", network(address), FREE_PER_ADDRESS));
        let counted = async {
            if let Some(address) = &address {
                throttle::require_unlocked(&self.db, address).await?;
            }
            throttle::count_attempt(&self.db, &[user], "games.count_guess").await
        };
        let counted = counted.await;
        if matches!(counted, Err(Error::TooManyRequests { .. })) {
            self.metrics.wallet_rate_limited_total.with([guess.name()]).increment(1);
        }
        counted.map(|_| CountedGuess { user, address })
    }

    /// Adjusts the counts after a guess was checked: a correct guess no longer counts against the user, and a wrong
    /// guess now also counts against the client address.
    pub(super) async fn end_guess(&self, guess: CountedGuess, is_wrong: bool) -> Result<()> {
        let CountedGuess { user, address } = guess;
        if !is_wrong {
            return throttle::record_success(&self.db, &[user]).await;
        }
        let Some(address) = address else { return Ok(()) };
        match throttle::count_attempt(&self.db, &[address], "games.count_guess").await {
            // Other guesses may have reached the limit in the meantime. That does not matter: this guess was already
            // checked.
            Ok(_) | Err(Error::TooManyRequests { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

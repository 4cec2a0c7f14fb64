//! Throttling of guesses: wrong discount codes and activation keys count for the user and for the address.

use std::net::IpAddr;

use super::Games;
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::secret::digest;
use crate::telemetry::Metrics;
use crate::throttle::{self, AttemptLimit, OnSuccess, network};

/// Wrong guesses of a user in an hour before further guesses must wait.
const FREE_PER_USER: i32 = 10;

/// Wrong guesses from an address in an hour before further guesses must wait.
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

/// A guess that was counted for its user, until it is known whether it was right.
pub(super) struct CountedGuess {
    user: AttemptLimit,
    address: Option<AttemptLimit>,
}

impl Games {
    /// Counts a guess for the user before it is checked; refuses it if the user or the address has to wait.
    ///
    /// Honest users behind one address guess at the same time, so only wrong guesses count for the address.
    pub(super) async fn begin_guess(
        &self,
        guess: Guess,
        user: UserId,
        address: Option<IpAddr>,
    ) -> Result<CountedGuess> {
        // A right guess is not counted in the end, but does not reset the count of wrong guesses.
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

    /// Takes a right guess off the user's count, or counts a wrong guess for the address.
    pub(super) async fn end_guess(&self, guess: CountedGuess, is_wrong: bool) -> Result<()> {
        let CountedGuess { user, address } = guess;
        if !is_wrong {
            return throttle::record_success(&self.db, &[user]).await;
        }
        let Some(address) = address else { return Ok(()) };
        match throttle::count_attempt(&self.db, &[address], "games.count_guess").await {
            // Other guesses have used up the limit meanwhile. This guess was checked already.
            Ok(_) | Err(Error::TooManyRequests { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

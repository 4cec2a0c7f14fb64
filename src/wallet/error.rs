//! Converts refusals of the ledger into errors of the API.

use super::transfer::{KEY_CLAIMED, wallet_of};
use crate::error::Error;
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::{MAX_BALANCE, Minor};
use crate::ledger::{PostError, Refusal};

/// Returns the API error for a failed posting. Amounts in the error are in `currency`, or in minor units if `currency`
/// is `None`.
pub(crate) fn from_post_error(error: &PostError, currency: Option<Currency>) -> Error {
    match error {
        PostError::Refused(refusal) => from_refusal(refusal, currency),
        PostError::Overloaded => Error::Overloaded,
        PostError::Unavailable => {
            Error::DatabaseUnavailable(anyhow::anyhow!("the ledger cannot reach the database"))
        }
        PostError::Archived { until } => Error::Archived { until: *until },
        PostError::Unknown => Error::OutcomeUnknown,
        PostError::Internal => Error::Internal(anyhow::anyhow!("the ledger failed; see its log")),
    }
}

/// Adds the account's wallet to an error, unless the account belongs to the system.
fn of_account(error: Error, account: AccountId) -> Error {
    match wallet_of(account) {
        Some(wallet) => error.of_wallet(wallet.0),
        None => error,
    }
}

fn from_refusal(refusal: &Refusal, currency: Option<Currency>) -> Error {
    let exact = |minor: &Minor| match currency {
        Some(currency) => format!("{}", minor.exact(currency)),
        None => format!("{} minor units", minor.0),
    };
    match refusal {
        Refusal::NoSuchAccount(id) => of_account(Error::NotFound("wallet"), *id),
        Refusal::AccountClosed(id) => of_account(Error::WalletClosed, *id),
        Refusal::AccountFrozen(id) => of_account(Error::WalletFrozen, *id),
        Refusal::AccountNotEmpty(id) => of_account(Error::WalletNotEmpty, *id),
        Refusal::InsufficientFunds { available, required, .. } => {
            Error::InsufficientFunds { available: exact(available), required: exact(required) }
        }
        Refusal::BalanceTooLarge(id) => {
            let limit = exact(&MAX_BALANCE);
            of_account(Error::AmountTooLarge { subject: "the resulting balance", limit }, *id)
        }
        Refusal::AmountTooLarge { limit } => {
            Error::AmountTooLarge { subject: "the amount", limit: exact(limit) }
        }
        Refusal::CurrencyMismatch(..) => Error::CurrencyMismatch,
        Refusal::KeyReused | Refusal::Companion(KEY_CLAIMED) => Error::IdempotencyKeyReused,
        Refusal::InLeg { refusal, .. } => from_refusal(refusal, currency),
        Refusal::AccountExists(_)
        | Refusal::AccountNotFrozen(_)
        | Refusal::Companion(_)
        | Refusal::Malformed(_) => {
            Error::Internal(anyhow::anyhow!("unexpected refusal: {refusal:?}"))
        }
    }
}

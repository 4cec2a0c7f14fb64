//! Refusals of the ledger as errors of the API.

use super::transfer::KEY_CLAIMED;
use crate::error::Error;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::{PostError, Refusal};

/// The error of a posting. Amounts are written in its currency, if it has one.
pub(super) fn from_post_error(error: &PostError, currency: Option<Currency>) -> Error {
    match error {
        PostError::Refused(refusal) => from_refusal(refusal, currency),
        PostError::Overloaded => Error::Overloaded,
        PostError::Unavailable => {
            Error::DatabaseUnavailable(anyhow::anyhow!("the ledger cannot reach it"))
        }
        PostError::Unknown => Error::OutcomeUnknown,
        PostError::Internal => Error::Internal(anyhow::anyhow!("the ledger failed; see its log")),
    }
}

fn from_refusal(refusal: &Refusal, currency: Option<Currency>) -> Error {
    match refusal {
        Refusal::NoSuchAccount(_) => Error::NotFound("wallet"),
        Refusal::AccountClosed(_) => Error::WalletClosed,
        Refusal::AccountFrozen(_) => Error::WalletFrozen,
        Refusal::AccountNotEmpty(_) => Error::WalletNotEmpty,
        Refusal::InsufficientFunds { available, required, .. } => {
            let write = |minor: &Minor| {
                currency.map(|currency| minor.exact(currency).to_string()).unwrap_or_default()
            };
            Error::InsufficientFunds { available: write(available), required: write(required) }
        }
        Refusal::BalanceTooLarge(_) | Refusal::AmountTooLarge => Error::AmountTooLarge,
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

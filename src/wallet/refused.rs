//! What the ledger's word means to whoever asked.

use crate::error::Error;
use crate::ledger::currency::Currency;
use crate::ledger::{PostError, Refusal};

/// For a posting in this currency, if it has one.
pub(super) fn refused(error: &PostError, currency: Option<Currency>) -> Error {
    match error {
        PostError::Refused(refusal) => by_rule(refusal, currency),
        PostError::Overloaded => Error::Overloaded,
        PostError::Unavailable => {
            Error::DatabaseUnavailable(anyhow::anyhow!("the ledger cannot reach it"))
        }
        PostError::Unknown => Error::OutcomeUnknown,
        PostError::Internal => Error::Internal(anyhow::anyhow!("the ledger failed; see its log")),
    }
}

fn by_rule(refusal: &Refusal, currency: Option<Currency>) -> Error {
    match refusal {
        Refusal::NoSuchAccount(_) => Error::NotFound("wallet"),
        Refusal::AccountClosed(_) => Error::WalletClosed,
        Refusal::AccountFrozen(_) => Error::WalletFrozen,
        Refusal::AccountNotEmpty(_) => Error::WalletNotEmpty,
        Refusal::InsufficientFunds { available, required, .. } => {
            let write = |minor: &crate::ledger::money::Minor| {
                currency.map(|currency| minor.exact(currency).to_string()).unwrap_or_default()
            };
            Error::InsufficientFunds { available: write(available), required: write(required) }
        }
        Refusal::BalanceTooLarge(_) | Refusal::AmountTooLarge => Error::AmountTooLarge,
        Refusal::CurrencyMismatch(..) => Error::CurrencyMismatch,
        Refusal::KeyReused => Error::IdempotencyKeyReused,
        Refusal::InLeg { refusal, .. } => by_rule(refusal, currency),
        Refusal::AccountExists(_)
        | Refusal::AccountNotFrozen(_)
        | Refusal::Companion(_)
        | Refusal::Malformed(_) => {
            Error::Internal(anyhow::anyhow!("unexpected refusal: {refusal:?}"))
        }
    }
}

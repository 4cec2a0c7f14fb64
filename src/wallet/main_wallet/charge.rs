//! Charges: payments from a player's main wallet to system accounts, for example, for a purchase.

use super::{ATTEMPTS_MAX, is_overtaken};
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::PlayerId;
use crate::ledger::account::AccountId;
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Leg, Posted, Posting};
use crate::ledger::{PostError, Refusal};
use crate::wallet::{RequestMeta, Wallets, from_post_error};

/// A payment from a player's main wallet.
#[derive(Debug)]
pub struct Charge<'a> {
    pub player: &'a PlayerId,
    pub currency: Currency,
    pub amount: Minor,
    pub key: Option<HashedKey>,
}

impl Wallets {
    /// Charges a player. Returns `None` if the companion (a statement in the same transaction) did not take effect. The
    /// function `legs` receives the paying account, and returns the movements of money.
    pub async fn charge_main(
        &self,
        charge: &Charge<'_>,
        legs: impl Fn(AccountId) -> Vec<Leg>,
        companion: &Companion,
        meta: RequestMeta<'_>,
    ) -> Result<Option<Posted>> {
        let Charge { player, currency, amount, key } = charge;
        for _ in 0..ATTEMPTS_MAX {
            let main = self.find_main_cached(player, *currency).await?;
            meta.caller.require_spend_player(main.map(|main| main.player))?;
            let main = main.ok_or(Error::UserNotFound)?;
            let Some(debit) = main.wallet.map(AccountId::from) else {
                let exact = |minor: Minor| minor.exact(*currency).to_string();
                let (available, required) = (exact(Minor::ZERO), exact(*amount));
                return Err(Error::InsufficientFunds { available, required });
            };
            let companions = vec![companion.clone()];
            let trace_id = Some(meta.trace);
            let posting = Posting { key: *key, legs: legs(debit), companions, trace_id };
            match self.ledger.post(posting).await {
                Ok(posted) => {
                    self.count_posted(&posted, *currency);
                    return Ok(Some(posted));
                }
                Err(PostError::Refused(Refusal::Companion(_))) => return Ok(None),
                Err(error) if is_overtaken(&error) => self.forget_main(player, *currency),
                Err(error) => return Err(from_post_error(&error, Some(*currency))),
            }
        }
        Err(Error::Overloaded)
    }
}

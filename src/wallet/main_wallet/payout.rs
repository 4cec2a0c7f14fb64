//! Payouts: payments from system accounts into a player's main wallet, such as a prize or a refund.

use uuid::Uuid;

use super::{
    ATTEMPTS_MAX, MainWallet, OPENED_MAIN, OVERTAKEN, OpenedMain, Player, is_overtaken, sql,
};
use crate::error::{Error, Result};
use crate::idempotency_key::HashedKey;
use crate::ids::PlayerId;
use crate::ledger::account::AccountId;
use crate::ledger::companion::Companion;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, Posted, Posting};
use crate::ledger::{PostError, Refusal};
use crate::wallet::{Wallets, companion, from_post_error};

/// A payment into a player's main wallet.
#[derive(Debug)]
pub struct Payout<'a> {
    pub player: &'a PlayerId,
    pub currency: Currency,
    pub key: Option<HashedKey>,
    pub trace: Option<Uuid>,
    /// Whether a wallet is opened for a new guest if the player id is unknown.
    pub may_open_guest: bool,
}

/// Reason why a payout cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayoutRefusal {
    UnknownPlayer,
    /// The player's main wallet was closed, and no new main wallet was opened.
    WalletClosed,
    BalanceTooLarge,
    AmountTooLarge {
        /// Largest amount that a transfer may have.
        limit: Minor,
    },
    /// The paying account does not have enough money.
    InsufficientFunds,
    /// A companion (a statement in the same transaction) did not take effect, because another request or task has
    /// already handled the payout.
    Settled,
}

impl PayoutRefusal {
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownPlayer => "unknown_player",
            Self::WalletClosed => "wallet_closed",
            Self::BalanceTooLarge => "balance_too_large",
            Self::AmountTooLarge { .. } => "amount_too_large",
            Self::InsufficientFunds => "insufficient_funds",
            Self::Settled => "settled",
        }
    }
}

impl Wallets {
    /// Pays a player. Opens the main wallet first if the player has never had a main wallet in this currency.
    ///
    /// The function `legs` receives the account to pay, and returns the movements of money (legs). The function
    /// `settle` receives the index of the first of these legs in the posting, and returns the companions (statements in
    /// the same transaction).
    pub async fn pay_main(
        &self,
        payout: &Payout<'_>,
        legs: impl Fn(AccountId) -> Vec<Leg>,
        settle: impl Fn(usize) -> Result<Vec<Companion>>,
    ) -> Result<Result<Posted, PayoutRefusal>> {
        let Payout { player, currency, key, trace, may_open_guest } = payout;
        for _ in 0..ATTEMPTS_MAX {
            let main = self.find_main(player, *currency).await?;
            let holder = match main {
                None if !may_open_guest => return Ok(Err(PayoutRefusal::UnknownPlayer)),
                None => Player::Guest,
                Some(MainWallet { player, .. }) => player,
            };
            let mut posting = Posting { key: *key, trace_id: *trace, ..Posting::default() };
            let wallet = main.and_then(|main| main.wallet);
            if let Some(wallet) = wallet {
                posting.legs = legs(wallet.into());
            } else {
                let mut db = self.db.acquire("wallet.payout").await?;
                if sql::had_main(&mut db, player, currency.code()).await? {
                    return Ok(Err(PayoutRefusal::WalletClosed));
                }
                drop(db);
                let id = self.next_id().await?;
                let account = AccountId::from(id);
                let open = Leg::from(Action::Open { account, currency: *currency });
                posting.legs = vec![open];
                posting.legs.extend(legs(account));
                let app_user = holder.user_id();
                let row = OpenedMain { id, currency: currency.code(), player, app_user };
                posting.companions.push(companion(&OPENED_MAIN, &row, OVERTAKEN)?);
            }
            posting.companions.extend(settle(usize::from(wallet.is_none()))?);
            match self.ledger.post(posting).await {
                Ok(posted) => {
                    self.count_posted(&posted, *currency);
                    if wallet.is_none() && !posted.replayed {
                        self.note_opened(holder);
                    }
                    return Ok(Ok(posted));
                }
                Err(error) if is_overtaken(&error) => self.forget_main(player, *currency),
                Err(error) => {
                    return refusal_of(&error).map_or_else(
                        || Err(from_post_error(&error, Some(*currency))),
                        |why| Ok(Err(why)),
                    );
                }
            }
        }
        Err(Error::Overloaded)
    }
}

impl Wallets {
    /// Moves money between system accounts. `currencies` contains the currency of each movement (leg), in the same
    /// order.
    pub async fn post_system(
        &self,
        posting: Posting,
        currencies: &[Currency],
    ) -> Result<Result<Posted, PayoutRefusal>> {
        match self.ledger.post(posting).await {
            Ok(posted) => {
                for (row, currency) in posted.rows.iter().zip(currencies) {
                    self.count_moved(*currency, row.kind, row.amount);
                }
                Ok(Ok(posted))
            }
            Err(error) => refusal_of(&error)
                .map_or_else(|| Err(from_post_error(&error, None)), |why| Ok(Err(why))),
        }
    }
}

/// Returns the [`PayoutRefusal`] that corresponds to this error, if any.
fn refusal_of(error: &PostError) -> Option<PayoutRefusal> {
    fn of(refusal: &Refusal) -> Option<PayoutRefusal> {
        match refusal {
            Refusal::InLeg { refusal, .. } => of(refusal),
            Refusal::InsufficientFunds { .. } => Some(PayoutRefusal::InsufficientFunds),
            Refusal::BalanceTooLarge(_) => Some(PayoutRefusal::BalanceTooLarge),
            Refusal::AmountTooLarge { limit } => {
                Some(PayoutRefusal::AmountTooLarge { limit: *limit })
            }
            Refusal::Companion(_) => Some(PayoutRefusal::Settled),
            _ => None,
        }
    }
    match error {
        PostError::Refused(refusal) => of(refusal),
        _ => None,
    }
}

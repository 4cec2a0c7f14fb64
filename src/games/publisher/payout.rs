//! Payouts to publishers: the balance of a publisher's account goes into the main wallet of the publisher's user.

use super::{no_publisher, sql};
use crate::error::{Error, Result, StoreRefusal};
use crate::games::purchase::seller_account;
use crate::games::{Games, require_manager};
use crate::idempotency_key::HashedKey;
use crate::ids::{PlayerId, PublisherId, TransferId};
use crate::ledger::account::AccountId;
use crate::ledger::currency::Currency;
use crate::ledger::money::{MAX_BALANCE, Minor};
use crate::ledger::read;
use crate::ledger::transfer::{Action, Leg, Posted, TransferKind};
use crate::wallet::main_wallet::payout::{Payout, PayoutRefusal};
use crate::wallet::{RequestMeta, from_post_error};

/// Maximum number of attempts to pay a publisher. An attempt fails if a refund lowers the balance in the meantime.
const ATTEMPTS_MAX: usize = 16;

/// A completed payout to a publisher.
#[derive(Debug, Clone, Copy)]
pub struct PublisherPayout {
    pub currency: Currency,
    pub amount: Minor,
    pub transfer: TransferId,
    pub replayed: bool,
}

/// A payout that a client requests.
struct PayoutRequest {
    player: PlayerId,
    currency: Currency,
    debit: AccountId,
    key: Option<HashedKey>,
}

impl Games {
    /// Pays the balance of a publisher in a currency to the user who acts for the publisher. If the balance is too
    /// large for a single transfer, pays the largest amount that a transfer can move.
    pub async fn pay_publisher(
        &self,
        publisher: PublisherId,
        currency: Option<Currency>,
        meta: RequestMeta<'_>,
    ) -> Result<PublisherPayout> {
        let currency = currency.unwrap_or(self.default_currency());
        let mut db = self.db.acquire("games.publisher").await?;
        let found = sql::find(&mut db, publisher).await?;
        drop(db);
        require_manager(meta.caller, found.as_ref().map(|row| row.user))?;
        let row = found.ok_or_else(no_publisher)?;
        let content = [publisher.to_string(), currency.code().to_owned()];
        let content = content.each_ref().map(String::as_str);
        let key = meta.key.hashed(meta.caller.name(), "publisher.payout", &content);
        let debit = seller_account(Some(publisher), currency)?;
        let request = PayoutRequest { player: PlayerId::from(row.user), currency, debit, key };
        // Largest amount that a transfer can move. It is known only after an attempt has failed because the balance
        // exceeds this amount.
        let mut limit = None;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(earlier) = self.find_payout(&request).await? {
                return Ok(earlier);
            }
            match self.try_payout(&request, &mut limit, meta).await {
                Ok(Some(paid)) => return Ok(paid),
                Ok(None) => {}
                // A duplicate of this request may have succeeded in the meantime.
                Err(refusal) => {
                    return match self.find_payout(&request).await? {
                        Some(earlier) => Ok(earlier),
                        None => Err(refusal),
                    };
                }
            }
        }
        Err(Error::Overloaded)
    }

    /// Finds the payout that an earlier request with this idempotency key has made.
    async fn find_payout(&self, request: &PayoutRequest) -> Result<Option<PublisherPayout>> {
        let Some(key) = request.key else { return Ok(None) };
        let posted = self.wallets.ledger().find(key).await;
        let posted = posted.map_err(|error| from_post_error(&error, None))?;
        posted.map(|posted| request.paid(&posted)).transpose()
    }

    /// Makes one attempt to pay the balance of the publisher, but at most `limit`. Returns `None` if the caller must
    /// retry.
    async fn try_payout(
        &self,
        request: &PayoutRequest,
        limit: &mut Option<Minor>,
        meta: RequestMeta<'_>,
    ) -> Result<Option<PublisherPayout>> {
        let PayoutRequest { player, currency, debit, key } = request;
        let mut db = self.db.acquire("games.payout_due").await?;
        let due = read::balances(&mut db, &[*debit], read::END).await?;
        drop(db);
        let due = due.first().copied().unwrap_or_default();
        if due <= Minor::ZERO {
            let balance = due.exact(*currency).to_string();
            return Err(StoreRefusal::NothingDue { balance }.into());
        }
        let amount = limit.map_or(due, |limit| due.min(limit));
        let payout = Payout {
            player,
            currency: *currency,
            key: *key,
            trace: Some(meta.trace),
            may_open_guest: false,
        };
        let legs = |credit| {
            let kind = TransferKind::Payout;
            vec![Leg::from(Action::Move { kind, debit: *debit, credit, amount })]
        };
        match self.wallets.pay_main(&payout, legs, |_| Ok(Vec::new())).await? {
            Ok(posted) => request.paid(&posted).map(Some),
            Err(PayoutRefusal::InsufficientFunds) => Ok(None),
            // The next attempt pays the largest amount that a transfer can move; the rest stays in the publisher's
            // account.
            Err(PayoutRefusal::AmountTooLarge { limit: largest }) if limit.is_none() => {
                *limit = Some(largest);
                Ok(None)
            }
            Err(PayoutRefusal::WalletClosed) => Err(Error::WalletClosed),
            Err(PayoutRefusal::AmountTooLarge { .. } | PayoutRefusal::BalanceTooLarge) => {
                let limit = MAX_BALANCE.exact(*currency).to_string();
                Err(Error::AmountTooLarge { subject: "the balance after the payout", limit })
            }
            Err(PayoutRefusal::UnknownPlayer | PayoutRefusal::Settled) => Err(Error::UserNotFound),
        }
    }
}

impl PayoutRequest {
    /// Returns the payout that a posting contains. The payout is not always the first row, because the posting can
    /// begin with the opening of the user's wallet.
    fn paid(&self, posted: &Posted) -> Result<PublisherPayout> {
        let mut rows = posted.rows.iter().zip(posted.first_seq..);
        let found = rows.find(|(row, _)| row.kind == TransferKind::Payout);
        let missing = || Error::Internal(anyhow::anyhow!("the posting contains no payout"));
        let (row, seq) = found.ok_or_else(missing)?;
        let (currency, amount, transfer) = (self.currency, row.amount, TransferId(seq));
        Ok(PublisherPayout { currency, amount, transfer, replayed: posted.replayed })
    }
}

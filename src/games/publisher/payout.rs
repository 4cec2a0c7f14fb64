//! Payouts: what is due to a publisher goes into the main wallet of its user.

use super::{no_publisher, sql};
use crate::error::{Error, Result, StoreRefusal};
use crate::games::purchase::seller_account;
use crate::games::{BOOK, Games, require_manager};
use crate::ids::{PlayerId, PublisherId, TransferId};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read;
use crate::ledger::transfer::{Action, Leg, Posted, TransferKind};
use crate::wallet::main_wallet::payout::{Payout, PayoutRefusal};
use crate::wallet::{RequestMeta, from_post_error};

/// Most decisions of one payout: a refund can lower what is due meanwhile.
const ATTEMPTS_MAX: usize = 16;

/// A payout that was made.
#[derive(Debug, Clone, Copy)]
pub struct PublisherPayout {
    pub currency: Currency,
    pub amount: Minor,
    pub transfer: TransferId,
    pub replayed: bool,
}

impl Games {
    /// Pays a publisher what is due in a currency.
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
        require_manager(meta.caller, found.as_ref().map(|(row, _)| row.user))?;
        let (row, _) = found.ok_or_else(no_publisher)?;
        let content = [publisher.to_string(), currency.code().to_owned()];
        let content = content.each_ref().map(String::as_str);
        let key = meta.key.hashed(meta.caller.name(), "publisher.payout", &content);
        let debit = seller_account(Some(publisher), currency)?;
        let player = PlayerId::from(row.user);
        let paid = |posted: &Posted| {
            let mut rows = posted.rows.iter().zip(posted.first_seq..);
            // An opening of the wallet can come first.
            let (row, seq) = rows.find(|(row, _)| row.kind == TransferKind::Payout)?;
            let (amount, transfer) = (row.amount, TransferId(seq));
            Some(PublisherPayout { currency, amount, transfer, replayed: posted.replayed })
        };
        let missing = || Error::Internal(anyhow::anyhow!("a payout came back without its row"));
        for _ in 0..ATTEMPTS_MAX {
            if let Some(key) = key {
                let posted = self.wallets.ledger().find(key).await;
                if let Some(posted) = posted.map_err(|error| from_post_error(&error, None))? {
                    return paid(&posted).ok_or_else(missing);
                }
            }
            let mut db = self.db.acquire("games.payout_due").await?;
            let due = read::balances(&mut db, BOOK, &[debit], read::END).await?;
            drop(db);
            let due = due.first().copied().unwrap_or_default();
            if due <= Minor::ZERO {
                let balance = due.exact(currency).to_string();
                return Err(StoreRefusal::NothingDue { balance }.into());
            }
            let payout = Payout {
                player: &player,
                currency,
                key,
                trace: Some(meta.trace),
                may_open_guest: false,
            };
            let legs = |credit| {
                let kind = TransferKind::Payout;
                vec![Leg::from(Action::Move { kind, debit, credit, amount: due })]
            };
            match self.wallets.pay_main(&payout, legs, |_| Ok(Vec::new())).await? {
                Ok(posted) => return paid(&posted).ok_or_else(missing),
                // A refund or another payout came first.
                Err(PayoutRefusal::InsufficientFunds) => {}
                Err(PayoutRefusal::WalletClosed) => return Err(Error::WalletClosed),
                Err(PayoutRefusal::AmountTooLarge | PayoutRefusal::BalanceTooLarge) => {
                    let limit = due.exact(currency).to_string();
                    return Err(Error::AmountTooLarge { subject: "the payout", limit });
                }
                Err(PayoutRefusal::UnknownPlayer | PayoutRefusal::Settled) => {
                    return Err(Error::UserNotFound);
                }
            }
        }
        Err(Error::Overloaded)
    }
}

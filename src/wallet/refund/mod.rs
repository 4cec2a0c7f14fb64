//! Refunds: money goes back the way it came, never more in all than there was.

mod sql;

use serde::Serialize;

use super::transfer::{Transfer, wallet_of};
use super::{Asked, Wallets, companion, refused};
use crate::error::{Error, Result};
use crate::http::auth::Caller;
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Kind, Leg};
use crate::ledger::{PostError, Refusal};

pub use sql::REFUNDED;

/// What another refund of the same transfer makes of this one.
const CHANGED: &str = "another refund came first";

/// How often a refund is decided anew because another one came first.
const ATTEMPTS_MAX: u32 = 32;

#[derive(Serialize)]
struct Refunded {
    transfer: i64,
    amount: i64,
    refund: i64,
    /// What had been refunded when this was decided.
    before: i64,
}

/// A transfer that can be refunded, and how much of it is left.
struct Refundable {
    transfer: Transfer,
    refunded: Minor,
}

impl Refundable {
    fn left(&self) -> Minor {
        self.transfer.amount.checked_sub(self.refunded).unwrap_or_default()
    }
}

impl Wallets {
    /// Returns `amount` (a decimal), or all that is left.
    pub async fn refund(
        &self,
        id: i64,
        amount: Option<&str>,
        asked: Asked<'_>,
    ) -> Result<Transfer> {
        let transfer = self.get_transfer(id).await?;
        if let Err(refusal) = self.may_refund(asked.caller, &transfer).await {
            // Who does not even see it is not told that it is there.
            self.transfer_seen_by(asked.caller, id).await?;
            return Err(refusal);
        }
        if !can_be_refunded(transfer.kind) {
            return Err(Error::NotRefundable);
        }
        let amount = amount.map(|text| super::amount_of(text, transfer.currency)).transpose()?;
        let content =
            [id.to_string(), amount.map_or_else(String::new, |amount| amount.0.to_string())];
        let content = content.each_ref().map(String::as_str);
        let _turn = self.turns.take(id).await;
        for _ in 0..ATTEMPTS_MAX {
            let refunded =
                sql::refunded(&mut *self.db.acquire("wallet.refunded").await?, id).await?;
            let refundable = Refundable { transfer: transfer.clone(), refunded };
            let left = refundable.left();
            let amount = amount.unwrap_or(left);
            if left < amount || amount == Minor::ZERO {
                // The first attempt of this very request may be what has used it up.
                return match self.replayed(asked, "refund", &content).await? {
                    Some(posted) => self.replayed_transfer(posted.first_seq).await,
                    None => Err(Error::RefundTooLarge {
                        left: left.exact(transfer.currency).to_string(),
                    }),
                };
            }
            if let Some(transfer) = self.try_refund(&refundable, amount, &content, asked).await? {
                return Ok(transfer);
            }
        }
        Err(Error::Overloaded)
    }

    /// Whoever may spend from the wallet that received the money; what left the system comes back as new money.
    async fn may_refund(&self, caller: &Caller, transfer: &Transfer) -> Result<()> {
        match (wallet_of(transfer.credit), wallet_of(transfer.debit)) {
            (Some(wallet), _) => caller.may_spend(&*self.facts(wallet).await?),
            (None, Some(wallet)) => caller.may_fund(&*self.facts(wallet).await?),
            (None, None) => Err(Error::NotFound("transfer")),
        }
    }

    /// Nothing when another refund came first.
    async fn try_refund(
        &self,
        refundable: &Refundable,
        amount: Minor,
        content: &[&str],
        asked: Asked<'_>,
    ) -> Result<Option<Transfer>> {
        let Refundable { transfer, refunded } = refundable;
        let (debit, credit) = (transfer.credit, payer(transfer.debit));
        let action = Action::Move { kind: Kind::Refund, debit, credit, amount };
        let leg = Leg { linked: Some(transfer.id), ..Leg::from(action) };
        let row = Refunded {
            transfer: transfer.id,
            amount: transfer.amount.0,
            refund: amount.0,
            before: refunded.0,
        };
        let mut posting = asked.posting("refund", content, vec![leg]);
        posting.companions.push(companion(&REFUNDED, &row, CHANGED)?);
        let posted = match self.ledger.post(posting).await {
            Err(PostError::Refused(Refusal::Companion(CHANGED))) => return Ok(None),
            posted => posted.map_err(|error| refused(&error, Some(transfer.currency)))?,
        };
        if posted.replayed {
            return self.replayed_transfer(posted.first_seq).await.map(Some);
        }
        self.count(&posted, transfer.currency);
        Ok(Some(Transfer {
            id: posted.first_seq,
            kind: Kind::Refund,
            debit,
            credit,
            amount,
            fee: Minor::ZERO,
            note: super::transfer::Note::default(),
            at: posted.at,
            trace_id: Some(asked.trace),
            linked: Some(transfer.id),
            ..transfer.clone()
        }))
    }

    pub(super) async fn replayed_transfer(&self, id: i64) -> Result<Transfer> {
        Ok(Transfer { replayed: true, ..self.get_transfer(id).await? })
    }
}

/// What was captured from a hold goes back to the wallet that it was held for.
fn payer(debit: AccountId) -> AccountId {
    wallet_of(debit).map_or(debit, AccountId)
}

/// A hold is voided, a refund is not undone, and what has a life of its own is refunded by its slice.
const fn can_be_refunded(kind: Kind) -> bool {
    matches!(kind, Kind::Deposit | Kind::Withdrawal | Kind::Transfer | Kind::Capture)
}

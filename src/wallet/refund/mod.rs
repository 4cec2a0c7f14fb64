//! Refunds, which move money back from the receiver of a transfer to its payer. All refunds of a transfer together
//! never exceed its amount.

mod sql;

use serde::Serialize;

use super::transfer::{Note, Transfer, wallet_of};
use super::{RequestMeta, Wallets, companion, from_post_error, parse_amount};
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::ids::TransferId;
use crate::ledger::account::AccountId;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, TransferKind};
use crate::ledger::{PostError, Refusal};

pub use sql::REFUNDED;
pub(super) use sql::refunded;

/// Refusal of a refund because another refund of the same transfer came first.
const CHANGED: &str = "another refund came first";

/// Maximum number of attempts at a refund. An attempt fails if another refund of the same transfer comes first.
const ATTEMPTS_MAX: u32 = 32;

#[derive(Serialize)]
struct Refunded {
    transfer: TransferId,
    amount: i64,
    refund: i64,
    /// Sum of the earlier refunds of the transfer, as it was read before this refund.
    before: i64,
}

/// A transfer, and the sum of its earlier refunds.
struct Refundable {
    transfer: Transfer,
    refunded: Minor,
}

impl Refundable {
    fn left(&self) -> Minor {
        left(self.transfer.amount, self.refunded)
    }
}

fn left(amount: Minor, refunded: Minor) -> Minor {
    amount.checked_sub(refunded).unwrap_or_default()
}

impl Wallets {
    /// Refunds a part of a transfer; `amount` is a decimal. Without an amount, refunds everything that has not been
    /// refunded yet.
    pub async fn refund(
        &self,
        id: TransferId,
        amount: Option<&str>,
        meta: RequestMeta<'_>,
    ) -> Result<Transfer> {
        let transfer = self.find_transfer(id).await?;
        if let Err(refusal) = self.require_refund(meta.caller, &transfer).await {
            // A caller that may not even see the transfer gets 404.
            self.get_transfer(meta.caller, id).await?;
            return Err(refusal);
        }
        if !is_refundable(&transfer) {
            return Err(Error::NotRefundable);
        }
        let amount = amount.map(|text| parse_amount(text, transfer.currency)).transpose()?;
        let content =
            [id.to_string(), amount.map_or_else(String::new, |amount| amount.0.to_string())];
        let content = content.each_ref().map(String::as_str);
        let _guard = self.locks.lock(id.0).await;
        for _ in 0..ATTEMPTS_MAX {
            let refunded =
                sql::refunded(&mut *self.db.acquire("wallet.refunded").await?, id).await?;
            let refundable = Refundable { transfer: transfer.clone(), refunded };
            let left = refundable.left();
            let amount = amount.unwrap_or(left);
            if left < amount || amount == Minor::ZERO {
                // An earlier attempt of the same request may have refunded the rest.
                return match self.find_replay(meta, "refund", &content).await? {
                    Some(posted) => self.replayed_transfer(posted.first_seq).await,
                    None => Err(Error::RefundTooLarge {
                        left: left.exact(transfer.currency).to_string(),
                    }),
                };
            }
            if let Some(transfer) = self.try_refund(&refundable, amount, &content, meta).await? {
                return Ok(transfer);
            }
        }
        Err(Error::Overloaded)
    }

    /// Returns an error unless the caller may spend from the wallet that received the transfer. If the transfer moved
    /// money out of the system, the refund creates new money, so the caller must have the right to deposit into the
    /// wallet that paid.
    async fn require_refund(&self, caller: &Caller, transfer: &Transfer) -> Result<()> {
        match (wallet_of(transfer.credit), wallet_of(transfer.debit)) {
            (Some(wallet), _) => caller.require_spend(&*self.record(wallet).await?),
            (None, Some(wallet)) => caller.require_fund(&*self.record(wallet).await?),
            (None, None) => Err(Error::NotFound("transfer")),
        }
    }

    /// Tries once to post a refund. Returns `None` if another refund of the same transfer came first.
    async fn try_refund(
        &self,
        refundable: &Refundable,
        amount: Minor,
        content: &[&str],
        meta: RequestMeta<'_>,
    ) -> Result<Option<Transfer>> {
        let Refundable { transfer, refunded } = refundable;
        let (debit, credit) = (transfer.credit, payer(transfer.debit));
        let action = Action::Move { kind: TransferKind::Refund, debit, credit, amount };
        let leg = Leg { linked: Some(transfer.id.0), ..Leg::from(action) };
        let row = Refunded {
            transfer: transfer.id,
            amount: transfer.amount.0,
            refund: amount.0,
            before: refunded.0,
        };
        let mut posting = meta.posting("refund", content, vec![leg]);
        posting.companions.push(companion(&REFUNDED, &row, CHANGED)?);
        let posted = match self.ledger.post(posting).await {
            Err(PostError::Refused(Refusal::Companion(CHANGED))) => return Ok(None),
            posted => posted.map_err(|error| from_post_error(&error, Some(transfer.currency)))?,
        };
        if posted.replayed {
            return self.replayed_transfer(posted.first_seq).await.map(Some);
        }
        self.count_posted(&posted, transfer.currency);
        Ok(Some(Transfer {
            id: TransferId(posted.first_seq),
            kind: TransferKind::Refund,
            debit,
            credit,
            amount,
            fee: Minor::ZERO,
            note: Note::default(),
            at: posted.at,
            trace_id: Some(meta.trace),
            linked: Some(transfer.id),
            ..transfer.clone()
        }))
    }
}

/// Returns the account that receives the refund of a transfer from `debit`: the same account, or the account of the
/// wallet if `debit` is a hold account.
fn payer(debit: AccountId) -> AccountId {
    wallet_of(debit).map_or(debit, AccountId::from)
}

/// Returns the amount of a transfer that can still be refunded; `None` if the transfer cannot be refunded at all.
pub(super) fn left_of(transfer: &Transfer, refunded: Minor) -> Option<Minor> {
    is_refundable(transfer).then(|| left(transfer.amount, refunded))
}

/// Whether this module can refund the transfer. Holds are voided instead, refunds cannot be refunded, and other modules
/// refund the transfers that they make.
fn is_refundable(transfer: &Transfer) -> bool {
    let is_internal = wallet_of(transfer.debit) == wallet_of(transfer.credit);
    !is_internal
        && matches!(
            transfer.kind,
            TransferKind::Deposit
                | TransferKind::Withdrawal
                | TransferKind::Transfer
                | TransferKind::Capture
        )
}

//! Deposits and withdrawals: movements of money between a wallet and the outside world.

use std::sync::Arc;

use super::transfer::Note;
use super::{RequestMeta, Wallet, WalletRecord, Wallets, after, from_post_error, parse_amount};
use crate::error::Result;
use crate::ids::{TransferId, WalletId};
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::transfer::{Action, Leg, TransferKind};

impl Wallets {
    /// Moves money from the outside world into a wallet. `amount` is a decimal in the wallet's currency.
    pub async fn deposit(
        &self,
        id: WalletId,
        amount: &str,
        note: Note,
        meta: RequestMeta<'_>,
    ) -> Result<Wallet> {
        let record = self.record(id).await?;
        meta.caller.require_fund(&record)?;
        let amount = parse_amount(amount, record.currency)?;
        let action = deposit_to(id.into(), record.currency, amount);
        self.move_money("deposit", id, (action, note), &record, meta).await
    }

    /// Moves money from a wallet to the outside world. `amount` is a decimal in the wallet's currency.
    pub async fn withdraw(
        &self,
        id: WalletId,
        amount: &str,
        note: Note,
        meta: RequestMeta<'_>,
    ) -> Result<Wallet> {
        let record = self.record(id).await?;
        meta.caller.require_spend(&record)?;
        let amount = parse_amount(amount, record.currency)?;
        let world = AccountId::system(SystemRole::World, record.currency);
        let kind = TransferKind::Withdrawal;
        let action = Action::Move { kind, debit: id.into(), credit: world, amount };
        self.move_money("withdraw", id, (action, note), &record, meta).await
    }

    async fn move_money(
        &self,
        operation: &str,
        id: WalletId,
        (action, note): (Action, Note),
        record: &Arc<WalletRecord>,
        meta: RequestMeta<'_>,
    ) -> Result<Wallet> {
        let (mut id_text, mut amount_text) = (itoa::Buffer::new(), itoa::Buffer::new());
        let content = [id_text.format(id.0), amount_text.format(action.amount().0)];
        let leg = Leg { metadata: note.to_stored()?, ..Leg::from(action) };
        let posting = meta.posting(operation, &note.added_to(&content), vec![leg]);
        let posted = self.ledger.post(posting).await;
        let posted = posted.map_err(|error| from_post_error(&error, Some(record.currency)))?;
        self.count_posted(&posted, record.currency);
        let wallet = after(id, Arc::clone(record), &posted)?;
        Ok(Wallet { transfer: Some(TransferId(posted.first_seq)), ..wallet })
    }
}

/// Returns the ledger action of a deposit, which moves money from the outside world to the account.
pub(super) fn deposit_to(account: AccountId, currency: Currency, amount: Minor) -> Action {
    let debit = AccountId::system(SystemRole::World, currency);
    Action::Move { kind: TransferKind::Deposit, debit, credit: account, amount }
}

//! Prize accounts, from which prizes are paid. Each currency has its own account. The balance of a prize account is
//! never negative, and only operators can deposit money into it.

use crate::auth::{Caller, Scope};
use crate::error::{Error, Result};
use crate::idempotency_key::IdempotencyKey;
use crate::ids::TransferId;
use crate::ledger::account::{AccountId, SystemRole};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::ledger::read;
use crate::ledger::transfer::{Action, Leg, Posting, TransferKind};
use crate::play::leaderboards::Leaderboards;
use crate::wallet::from_post_error;

/// The prize account of a currency, with its balance.
#[derive(Debug, Clone, Copy)]
pub struct PrizeAccount {
    pub currency: Currency,
    pub balance: Minor,
    /// Id of the deposit that has just been made; `None` if the account was only read.
    pub transfer: Option<TransferId>,
    pub replayed: bool,
}

impl Leaderboards {
    /// Deposits money from outside the ledger into the prize account of a currency. `amount` is a decimal number.
    pub async fn fund_prizes(
        &self,
        currency: Currency,
        amount: &str,
        caller: &Caller,
        key: &IdempotencyKey,
    ) -> Result<PrizeAccount> {
        caller.require_scope(Scope::Admin)?;
        let amount = Minor::parse_amount(amount, currency)
            .map_err(|cause| Error::field("/amount", cause.to_string()))?;
        let debit = AccountId::system(SystemRole::World, currency);
        let credit = AccountId::system(SystemRole::Prize, currency);
        let kind = TransferKind::Deposit;
        let key =
            key.hashed(caller.name(), "prize account", &[currency.code(), &amount.0.to_string()]);
        let legs = vec![Leg::from(Action::Move { kind, debit, credit, amount })];
        let posted = self.wallets.ledger().post(Posting { key, legs, ..Posting::default() }).await;
        let posted = posted.map_err(|error| from_post_error(&error, Some(currency)))?;
        Ok(PrizeAccount {
            currency,
            balance: posted.available(credit).unwrap_or_default(),
            transfer: Some(TransferId(posted.first_seq)),
            replayed: posted.replayed,
        })
    }

    /// Returns the prize accounts that have money.
    pub async fn prize_accounts(&self, caller: &Caller) -> Result<Vec<PrizeAccount>> {
        caller.require_scope(Scope::Admin)?;
        let currencies = self.currencies().all();
        let accounts: Vec<AccountId> = currencies
            .iter()
            .map(|currency| AccountId::system(SystemRole::Prize, *currency))
            .collect();
        let mut db = self.db.snapshot("leaderboard.prize_accounts").await?;
        let balances = read::balances(&mut db, &accounts, read::END).await?;
        let accounts = currencies.into_iter().zip(balances);
        Ok(accounts
            .filter(|(_, balance)| *balance > Minor::ZERO)
            .map(|(currency, balance)| PrizeAccount {
                currency,
                balance,
                transfer: None,
                replayed: false,
            })
            .collect())
    }
}

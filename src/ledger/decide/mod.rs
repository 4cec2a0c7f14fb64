//! The rules, which compute the effect of a posting on balances and states, or refuse the posting. Pure functions: no
//! clock, no I/O.
//!
//! Each leg of a posting moves money, or changes the state of an account. The legs are applied in order, and each leg
//! sees the effects of the legs before it: a single posting may open, fund and charge an account. A posting is accepted
//! or refused as a whole.

use std::collections::HashMap;

use super::account::{Account, AccountClass, AccountId, AccountState};
use super::currency::{Currencies, Currency};
use super::money::Minor;
use super::transfer::{Action, Leg, METADATA_LEN_MAX, POSTING_LEGS_MAX, TransferKind, TransferRow};

/// Maximum number of accounts in a posting for which lookups use a linear search. For a posting with more accounts,
/// lookups use a hash map.
const LINEAR_ACCOUNTS_MAX: usize = 16;

/// Reason why a posting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the account does not exist")]
    NoSuchAccount(AccountId),
    #[error("the account already exists")]
    AccountExists(AccountId),
    #[error("the account is closed")]
    AccountClosed(AccountId),
    #[error("the account is frozen")]
    AccountFrozen(AccountId),
    #[error("the account is not frozen")]
    AccountNotFrozen(AccountId),
    #[error("the account is not empty")]
    AccountNotEmpty(AccountId),
    #[error("the balance is insufficient")]
    InsufficientFunds { account: AccountId, available: Minor, required: Minor },
    #[error("the balance would become too large")]
    BalanceTooLarge(AccountId),
    #[error("the amount is too large")]
    AmountTooLarge { limit: Minor },
    #[error("the accounts have different currencies")]
    CurrencyMismatch(AccountId, AccountId),
    #[error("this idempotency key was used for a different request")]
    KeyReused,
    /// A companion, which is a row that another module adds to the posting, did not take effect. The module supplies
    /// the error text.
    #[error("{0}")]
    Companion(&'static str),
    /// The refused transfer belongs to a posting with several transfers, none of which is written.
    #[error("transfer {}: {refusal}", .leg + 1)]
    InLeg { leg: usize, refusal: Box<Refusal> },
    /// The posting can never be written: a bug in the calling code, not a client error.
    #[error("malformed posting: {0}")]
    Malformed(&'static str),
}

impl Refusal {
    /// Value of the metric label `reason` for this refusal.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchAccount(_) => "no_such_account",
            Self::AccountExists(_) => "account_exists",
            Self::AccountClosed(_) => "closed",
            Self::AccountFrozen(_) | Self::AccountNotFrozen(_) => "frozen",
            Self::AccountNotEmpty(_) => "not_empty",
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::BalanceTooLarge(_) | Self::AmountTooLarge { .. } => "limit",
            Self::CurrencyMismatch(..) => "currency",
            Self::KeyReused => "duplicate",
            Self::Companion(_) => "companion",
            Self::InLeg { refusal, .. } => refusal.reason(),
            Self::Malformed(_) => "malformed",
        }
    }

    /// Adds the index of the refused leg to this refusal, if the posting has more than one transfer.
    #[must_use]
    pub fn in_leg(self, leg: usize, legs: &[Leg]) -> Self {
        if legs.iter().filter(|leg| !leg.with_previous).count() > 1 {
            Self::InLeg { leg, refusal: Box::new(self) }
        } else {
            self
        }
    }

    /// Makes the amounts of a refusal for insufficient funds refer to the whole transfer: adds to both amounts the
    /// total that the earlier legs of the transfer take from the account. The last of `legs` is the refused leg.
    fn for_whole_transfer(self, legs: &[Leg]) -> Self {
        let Self::InsufficientFunds { account, mut available, mut required } = self else {
            return self;
        };
        for pair in legs.windows(2).rev().take_while(|pair| pair[1].with_previous) {
            if let Action::Move { debit, amount, .. } = pair[0].action
                && debit == account
            {
                available = available.checked_add(amount).unwrap_or(available);
                required = required.checked_add(amount).unwrap_or(required);
            }
        }
        Self::InsufficientFunds { account, available, required }
    }
}

/// An account that a posting creates, and the index of the leg that creates it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewAccount {
    pub account: AccountId,
    pub currency: Currency,
    pub leg: usize,
}

/// Result of applying the rules to a posting. The value is reused for the next posting, which avoids memory
/// allocations.
#[derive(Debug, Default)]
pub struct Decision {
    pub rows: Vec<TransferRow>,
    pub new_accounts: Vec<NewAccount>,
    /// Accounts that the posting touched, with their balances and states after the posting.
    pub touched: Vec<(AccountId, Account)>,
    /// Index of the leg that caused the refusal.
    pub refused_leg: usize,
    index: HashMap<AccountId, usize>,
}

/// Limits and currencies from the settings.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Largest amount of a leg.
    pub amount_max: Minor,
    pub currencies: Currencies,
}

/// The accounts whose balances or states the legs depend on, possibly with duplicates.
pub fn accounts_of(legs: &[Leg]) -> impl Iterator<Item = AccountId> {
    legs.iter()
        .flat_map(|leg| match leg.action {
            // A leg on a hold account also depends on its owner, which has the currency and a copy of the held balance.
            Action::Move { debit, credit, .. } => {
                [Some(debit), Some(credit), credit.held_for().or(debit.held_for())]
            }
            Action::Open { account, .. }
            | Action::Close { account }
            | Action::Freeze { account }
            | Action::Unfreeze { account } => [Some(account), None, None],
        })
        .flatten()
}

/// Applies the rules to a posting: writes its effects to `decision`, or returns the refusal. `account` looks up an
/// account; it returns `None` if the account does not exist.
pub fn decide(
    legs: &[Leg],
    rules: &Rules,
    account: impl Fn(AccountId) -> Option<Account>,
    decision: &mut Decision,
) -> Result<(), Refusal> {
    decision.rows.clear();
    decision.new_accounts.clear();
    decision.touched.clear();
    decision.index.clear();
    require_well_formed(legs)?;

    let mut accounts = WorkingAccounts { stored: account, decision };
    for (n, leg) in legs.iter().enumerate() {
        if let Err(refusal) = accounts.apply(leg, rules, n) {
            decision.refused_leg = n;
            return Err(refusal.for_whole_transfer(&legs[..=n]));
        }
    }
    number_legs(legs, &mut decision.rows);
    Ok(())
}

/// Refuses postings that only a bug in the calling code can produce.
fn require_well_formed(legs: &[Leg]) -> Result<(), Refusal> {
    match legs {
        [] => return Err(Refusal::Malformed("it has no legs")),
        [first, ..] if first.with_previous => {
            return Err(Refusal::Malformed("its first leg has no previous leg"));
        }
        _ if legs.len() > POSTING_LEGS_MAX => {
            return Err(Refusal::Malformed("it has too many legs"));
        }
        _ => {}
    }
    if legs
        .iter()
        .any(|leg| leg.metadata.as_ref().is_some_and(|m| m.get().len() > METADATA_LEN_MAX))
    {
        return Err(Refusal::Malformed("its metadata is too long"));
    }
    Ok(())
}

/// Stores in each row the index of the leg within its transfer, and the number of legs in the transfer.
fn number_legs(legs: &[Leg], rows: &mut [TransferRow]) {
    let mut start = 0;
    while start < rows.len() {
        let more = legs[start + 1..].iter().take_while(|leg| leg.with_previous).count();
        let count = i16::try_from(more + 1).expect("POSTING_LEGS_MAX fits into i16");
        for (row, leg) in rows[start..=start + more].iter_mut().zip(0..) {
            (row.leg, row.legs) = (leg, count);
        }
        start += more + 1;
    }
}

/// The accounts of a posting, with the effects of the legs that were applied so far.
struct WorkingAccounts<'a, F> {
    stored: F,
    decision: &'a mut Decision,
}

impl<F: Fn(AccountId) -> Option<Account>> WorkingAccounts<'_, F> {
    fn index_of(&self, id: AccountId) -> Option<usize> {
        let touched = &self.decision.touched;
        if touched.len() <= LINEAR_ACCOUNTS_MAX {
            touched.iter().position(|(other, _)| *other == id)
        } else {
            self.decision.index.get(&id).copied()
        }
    }

    fn get(&self, id: AccountId) -> Option<Account> {
        match self.index_of(id) {
            Some(index) => Some(self.decision.touched[index].1),
            None => (self.stored)(id),
        }
    }

    fn find(&self, id: AccountId) -> Result<Account, Refusal> {
        self.get(id).ok_or(Refusal::NoSuchAccount(id))
    }

    fn set(&mut self, id: AccountId, account: Account) {
        if let Some(index) = self.index_of(id) {
            self.decision.touched[index].1 = account;
            return;
        }
        let decision = &mut *self.decision;
        decision.touched.push((id, account));
        let count = decision.touched.len();
        if count == LINEAR_ACCOUNTS_MAX + 1 {
            let indexes = decision.touched.iter().enumerate().map(|(index, (id, _))| (*id, index));
            decision.index.extend(indexes);
        } else if count > LINEAR_ACCOUNTS_MAX {
            decision.index.insert(id, count - 1);
        }
    }

    /// Returns the account. If the account does not exist, creates it, unless it is a customer account.
    fn find_or_create(
        &mut self,
        id: AccountId,
        rules: &Rules,
        leg: usize,
    ) -> Result<Account, Refusal> {
        if let Some(account) = self.get(id) {
            return Ok(account);
        }
        let currency = match (id.currency_number(), id.held_for()) {
            (Some(number), _) => {
                rules.currencies.find_by_number(number).ok_or(Refusal::NoSuchAccount(id))?
            }
            (_, Some(owner)) => self.find(owner)?.currency,
            _ => return Err(Refusal::NoSuchAccount(id)),
        };
        self.decision.new_accounts.push(NewAccount { account: id, currency, leg });
        let account = Account::empty(currency);
        self.set(id, account);
        Ok(account)
    }

    fn apply(&mut self, leg: &Leg, rules: &Rules, n: usize) -> Result<(), Refusal> {
        let (debit, credit, amount) = match leg.action {
            Action::Move { kind, debit, credit, amount } => {
                if !kind.moves_money() || debit == credit || amount <= Minor::ZERO {
                    return Err(Refusal::Malformed(
                        "a move needs two accounts and a positive amount",
                    ));
                }
                self.transfer(kind, (debit, credit), amount, rules, n)?;
                (debit, credit, amount)
            }
            Action::Open { account, currency } => {
                self.open(account, currency, n)?;
                (account, account, Minor::ZERO)
            }
            Action::Close { account }
            | Action::Freeze { account }
            | Action::Unfreeze { account } => {
                self.change_state(account, leg.action.kind())?;
                (account, account, Minor::ZERO)
            }
        };
        let debit_balance = self.find(debit)?.balance;
        let credit_balance = self.find(credit)?.balance;
        self.decision.rows.push(TransferRow {
            kind: leg.action.kind(),
            leg: 0,
            legs: 1,
            debit,
            credit,
            amount,
            debit_balance,
            credit_balance,
        });
        Ok(())
    }

    fn transfer(
        &mut self,
        kind: TransferKind,
        (debit, credit): (AccountId, AccountId),
        amount: Minor,
        rules: &Rules,
        leg: usize,
    ) -> Result<(), Refusal> {
        let mut from = self.find_or_create(debit, rules, leg)?;
        let mut to = self.find_or_create(credit, rules, leg)?;
        for (id, account) in [(debit, from), (credit, to)] {
            if account.state == AccountState::Closed {
                return Err(Refusal::AccountClosed(id));
            }
        }
        if from.state == AccountState::Frozen {
            return Err(Refusal::AccountFrozen(debit));
        }
        if from.currency != to.currency {
            return Err(Refusal::CurrencyMismatch(debit, credit));
        }
        // Otherwise another account could move money into the hold of a closed account.
        if credit.held_for().is_some_and(|owner| owner != debit) {
            return Err(Refusal::Malformed("a hold account takes money only from its owner"));
        }
        if amount > rules.amount_max {
            return Err(Refusal::AmountTooLarge { limit: rules.amount_max });
        }
        from.balance = (from.balance.checked_sub(amount))
            .filter(|balance| {
                debit.class().is_some_and(|class| allows_debit(class, kind, *balance))
            })
            .ok_or(Refusal::InsufficientFunds {
                account: debit,
                available: from.balance,
                required: amount,
            })?;
        // The ceiling applies to the sum of available and held money, so that a hold can always be released. Money that
        // comes back from the account's own hold does not change that sum.
        let held = if debit.held_for() == Some(credit) { Minor::ZERO } else { to.held };
        to.balance = (to.balance.checked_add(amount))
            .filter(|balance| {
                let total = balance.checked_add(held);
                total.is_some_and(|total| credit.class().is_some_and(|class| class.allows(total)))
            })
            .ok_or(Refusal::BalanceTooLarge(credit))?;
        self.set(debit, from);
        self.set(credit, to);
        self.update_held(debit, from.balance)?;
        self.update_held(credit, to.balance)
    }

    /// If `id` is a hold account, copies its balance to the customer account that owns the held money.
    fn update_held(&mut self, id: AccountId, held: Minor) -> Result<(), Refusal> {
        if let Some(owner) = id.held_for() {
            let account = Account { held, ..self.find(owner)? };
            self.set(owner, account);
        }
        Ok(())
    }

    fn open(&mut self, id: AccountId, currency: Currency, leg: usize) -> Result<(), Refusal> {
        if id.class() != Some(AccountClass::Customer) {
            return Err(Refusal::Malformed("only customer accounts can be opened"));
        }
        if self.get(id).is_some() {
            return Err(Refusal::AccountExists(id));
        }
        self.decision.new_accounts.push(NewAccount { account: id, currency, leg });
        self.set(id, Account::empty(currency));
        Ok(())
    }

    fn change_state(&mut self, id: AccountId, kind: TransferKind) -> Result<(), Refusal> {
        if id.class() != Some(AccountClass::Customer) {
            return Err(Refusal::Malformed("only customer accounts have a state"));
        }
        let mut account = self.find(id)?;
        account.state = match (kind, account.state) {
            (_, AccountState::Closed) => return Err(Refusal::AccountClosed(id)),
            (TransferKind::Unfreeze, AccountState::Frozen) => AccountState::Open,
            (_, AccountState::Frozen) => return Err(Refusal::AccountFrozen(id)),
            (TransferKind::Unfreeze, AccountState::Open) => {
                return Err(Refusal::AccountNotFrozen(id));
            }
            (TransferKind::Freeze, AccountState::Open) => AccountState::Frozen,
            (TransferKind::Close, AccountState::Open)
                if account.balance == Minor::ZERO && account.held == Minor::ZERO =>
            {
                AccountState::Closed
            }
            (TransferKind::Close, AccountState::Open) => return Err(Refusal::AccountNotEmpty(id)),
            _ => return Err(Refusal::Malformed("it is not a change of state")),
        };
        self.set(id, account);
        Ok(())
    }
}

/// Returns whether a transfer may leave its debit account with this balance. A refund may take a payable (the
/// operator's debt to a third party) below zero; a payout must not.
fn allows_debit(class: AccountClass, kind: TransferKind, balance: Minor) -> bool {
    let is_unowed =
        class == AccountClass::Payable && kind == TransferKind::Payout && balance < Minor::ZERO;
    class.allows(balance) && !is_unowed
}

#[cfg(test)]
mod tests;

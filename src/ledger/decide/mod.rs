//! The rules: what a posting does to balances and states, or why it is refused. Pure; no clock, no I/O.
//!
//! Legs are applied in order, so a leg sees what those before it did: an account may be opened, funded and
//! charged in one posting. The posting holds as a whole or not at all.

use std::collections::HashMap;

use super::account::{Account, AccountId, AccountState, Class};
use super::currency::{Currencies, Currency};
use super::money::Minor;
use super::transfer::{Action, Leg, METADATA_LEN_MAX, POSTING_LEGS_MAX, TransferKind, TransferRow};

/// Above this many accounts a posting finds them by hash instead of by looking through them.
const LINEAR_ACCOUNTS_MAX: usize = 16;

/// Why a posting is not written. `Display` is public text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such account")]
    NoSuchAccount(AccountId),
    #[error("the account exists")]
    AccountExists(AccountId),
    #[error("the account is closed")]
    AccountClosed(AccountId),
    #[error("the account is frozen")]
    AccountFrozen(AccountId),
    #[error("the account is not frozen")]
    AccountNotFrozen(AccountId),
    #[error("the account is not empty")]
    AccountNotEmpty(AccountId),
    #[error("the balance is too low")]
    InsufficientFunds { account: AccountId, available: Minor, required: Minor },
    #[error("the balance would become too large")]
    BalanceTooLarge(AccountId),
    #[error("the amount is too large")]
    AmountTooLarge,
    #[error("the accounts have different currencies")]
    CurrencyMismatch(AccountId, AccountId),
    #[error("this idempotency key belongs to a different request")]
    KeyReused,
    /// A companion did not take effect; the slice that brought it knows what this means.
    #[error("{0}")]
    Companion(&'static str),
    /// One of many transfers is refused, and so are all.
    #[error("transfer {}: {refusal}", .leg + 1)]
    InLeg { leg: usize, refusal: Box<Refusal> },
    /// The caller made a posting that can never be written. Not the user's fault.
    #[error("the posting makes no sense: {0}")]
    Malformed(&'static str),
}

impl Refusal {
    /// For the metric's label: a closed set.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSuchAccount(_) => "no_such_account",
            Self::AccountExists(_) => "account_exists",
            Self::AccountClosed(_) => "closed",
            Self::AccountFrozen(_) | Self::AccountNotFrozen(_) => "frozen",
            Self::AccountNotEmpty(_) => "not_empty",
            Self::InsufficientFunds { .. } => "insufficient_funds",
            Self::BalanceTooLarge(_) | Self::AmountTooLarge => "limit",
            Self::CurrencyMismatch(..) => "currency",
            Self::KeyReused => "duplicate",
            Self::Companion(_) => "companion",
            Self::InLeg { refusal, .. } => refusal.reason(),
            Self::Malformed(_) => "malformed",
        }
    }

    /// Tells which leg it was, where a posting has more than one transfer.
    #[must_use]
    pub fn in_leg(self, leg: usize, legs: &[Leg]) -> Self {
        if legs.iter().filter(|leg| !leg.with_previous).count() > 1 {
            Self::InLeg { leg, refusal: Box::new(self) }
        } else {
            self
        }
    }

    /// What a transfer and its fee need, they need together. The refused leg is the last of these.
    fn of_whole_transfer(self, legs: &[Leg]) -> Self {
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

/// An account that a posting brings into being, and the leg that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewAccount {
    pub account: AccountId,
    pub currency: Currency,
    pub leg: usize,
}

/// What deciding found out. Reused from posting to posting, so that it allocates nothing.
#[derive(Debug, Default)]
pub struct Decision {
    pub rows: Vec<TransferRow>,
    pub new_accounts: Vec<NewAccount>,
    /// The accounts that the posting touched, as they are after it.
    pub touched: Vec<(AccountId, Account)>,
    /// The leg because of which it was refused.
    pub refused_leg: usize,
    index: HashMap<AccountId, usize>,
}

/// What settings choose.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The most that one leg moves.
    pub amount_max: Minor,
    pub currencies: Currencies,
}

/// Every account whose balance or state decides about these legs.
pub fn accounts_of(legs: &[Leg]) -> impl Iterator<Item = AccountId> {
    legs.iter()
        .flat_map(|leg| match leg.action {
            // The owner of a hold account tells its currency, and keeps what is held.
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

/// Decides on one posting. `account` tells what is known; `None` means that there is no such account.
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
    check_form(legs)?;

    let mut sheet = Sheet { known: account, decision };
    for (n, leg) in legs.iter().enumerate() {
        if let Err(refusal) = sheet.apply(leg, rules, n) {
            decision.refused_leg = n;
            return Err(refusal.of_whole_transfer(&legs[..=n]));
        }
    }
    number_legs(legs, &mut decision.rows);
    Ok(())
}

/// What no program of ours should ever send.
fn check_form(legs: &[Leg]) -> Result<(), Refusal> {
    match legs {
        [] => return Err(Refusal::Malformed("it has no leg")),
        [first, ..] if first.with_previous => {
            return Err(Refusal::Malformed("its first leg has no previous"));
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

/// Numbers the legs of each transfer: 0 of 2, 1 of 2, 0 of 1.
fn number_legs(legs: &[Leg], rows: &mut [TransferRow]) {
    let mut start = 0;
    while start < rows.len() {
        let more = legs[start + 1..].iter().take_while(|leg| leg.with_previous).count();
        let count = i16::try_from(more + 1).expect("POSTING_LEGS_MAX fits");
        for (row, leg) in rows[start..=start + more].iter_mut().zip(0..) {
            (row.leg, row.legs) = (leg, count);
        }
        start += more + 1;
    }
}

/// The accounts as the legs so far leave them.
struct Sheet<'a, F> {
    known: F,
    decision: &'a mut Decision,
}

impl<F: Fn(AccountId) -> Option<Account>> Sheet<'_, F> {
    fn place(&self, id: AccountId) -> Option<usize> {
        let touched = &self.decision.touched;
        if touched.len() <= LINEAR_ACCOUNTS_MAX {
            touched.iter().position(|(other, _)| *other == id)
        } else {
            self.decision.index.get(&id).copied()
        }
    }

    fn get(&self, id: AccountId) -> Option<Account> {
        match self.place(id) {
            Some(place) => Some(self.decision.touched[place].1),
            None => (self.known)(id),
        }
    }

    fn find(&self, id: AccountId) -> Result<Account, Refusal> {
        self.get(id).ok_or(Refusal::NoSuchAccount(id))
    }

    fn put(&mut self, id: AccountId, account: Account) {
        if let Some(place) = self.place(id) {
            self.decision.touched[place].1 = account;
            return;
        }
        let decision = &mut *self.decision;
        decision.touched.push((id, account));
        let count = decision.touched.len();
        if count == LINEAR_ACCOUNTS_MAX + 1 {
            let places = decision.touched.iter().enumerate().map(|(place, (id, _))| (*id, place));
            decision.index.extend(places);
        } else if count > LINEAR_ACCOUNTS_MAX {
            decision.index.insert(id, count - 1);
        }
    }

    /// The account, which comes to be when it is one of those that need no opening.
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
                rules.currencies.numbered(number).ok_or(Refusal::NoSuchAccount(id))?
            }
            (_, Some(owner)) => self.find(owner)?.currency,
            _ => return Err(Refusal::NoSuchAccount(id)),
        };
        self.decision.new_accounts.push(NewAccount { account: id, currency, leg });
        let account = Account::empty(currency);
        self.put(id, account);
        Ok(account)
    }

    fn apply(&mut self, leg: &Leg, rules: &Rules, n: usize) -> Result<(), Refusal> {
        let (debit, credit, amount) = match leg.action {
            Action::Move { kind, debit, credit, amount } => {
                if !kind.moves_money() || debit == credit || amount <= Minor::ZERO {
                    return Err(Refusal::Malformed("a move needs two accounts and an amount"));
                }
                self.transfer(debit, credit, amount, rules, n)?;
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
        debit: AccountId,
        credit: AccountId,
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
        // Otherwise money could be held for an account that is closed.
        if credit.held_for().is_some_and(|owner| owner != debit) {
            return Err(Refusal::Malformed("only its owner's money is held"));
        }
        if amount > rules.amount_max {
            return Err(Refusal::AmountTooLarge);
        }
        from.balance = (from.balance.checked_sub(amount))
            .filter(|balance| debit.class().is_some_and(|class| class.allows(*balance)))
            .ok_or(Refusal::InsufficientFunds {
                account: debit,
                available: from.balance,
                required: amount,
            })?;
        to.balance = (to.balance.checked_add(amount))
            .filter(|balance| credit.class().is_some_and(|class| class.allows(*balance)))
            .ok_or(Refusal::BalanceTooLarge(credit))?;
        self.put(debit, from);
        self.put(credit, to);
        self.note_held(debit, from.balance)?;
        self.note_held(credit, to.balance)
    }

    /// The owner of a hold account keeps what is in it.
    fn note_held(&mut self, id: AccountId, held: Minor) -> Result<(), Refusal> {
        if let Some(owner) = id.held_for() {
            let account = Account { held, ..self.find(owner)? };
            self.put(owner, account);
        }
        Ok(())
    }

    fn open(&mut self, id: AccountId, currency: Currency, leg: usize) -> Result<(), Refusal> {
        if id.class() != Some(Class::Customer) {
            return Err(Refusal::Malformed("only customers' accounts are opened"));
        }
        if self.get(id).is_some() {
            return Err(Refusal::AccountExists(id));
        }
        self.decision.new_accounts.push(NewAccount { account: id, currency, leg });
        self.put(id, Account::empty(currency));
        Ok(())
    }

    fn change_state(&mut self, id: AccountId, kind: TransferKind) -> Result<(), Refusal> {
        if id.class() != Some(Class::Customer) {
            return Err(Refusal::Malformed("only customers' accounts have a state"));
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
            _ => return Err(Refusal::Malformed("this is no change of state")),
        };
        self.put(id, account);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

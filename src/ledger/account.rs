//! Accounts: ids that encode the class of an account, and the state of an account.
//!
//! | ids | class | lowest balance | highest balance |
//! |---|---|---|---|
//! | above 0 | customer accounts | 0 | 2^53-1 |
//! | -2^40 to -1 | system accounts: one for each role and currency | none | none |
//! | of these, the accounts of the roles `Prize` and `Hot` | reserves: money that the operator has put aside | 0 | none |
//! | -2^40-2^52 to -2^40-1 | the hold account of customer `n` is `-2^40 - n` | 0 | 2^53-1 |
//! | below -2^54 | payables: money that the operator owes to a third party, one account for each party and currency | none | none |
//!
//! System and hold accounts are never opened explicitly: the first transfer that touches them creates them.

use std::fmt;
use std::str::FromStr;

use super::currency::Currency;
use super::money::{MAX_BALANCE, Minor};
use crate::error::{Error, Result};

/// Boundary of negative ids: those above `-SYSTEM_IDS` belong to system accounts, and those below it to hold accounts
/// or payables.
const SYSTEM_IDS: i64 = 1 << 40;

/// Boundary of the ids of payables: all of them are at or below `-PAYABLE_IDS`.
const PAYABLE_IDS: i64 = 1 << 54;

/// Highest number that identifies a third party to which the operator owes money.
pub const PARTY_MAX: u32 = (1 << 21) - 1;

/// Bit in the id of a system account that marks the account as belonging to another book (an independently ordered part
/// of the ledger).
const FOREIGN: i64 = 1 << 39;

/// Highest id of a customer account. The limit leaves room for the ids of hold accounts, and every JSON parser reads
/// the ids exactly.
pub const ID_MAX: i64 = 1 << 52;

/// Id of an account of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// Purpose of a system account. The numbers are stored inside account ids, so they must never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SystemRole {
    /// The outside world: deposits come from it, withdrawals go to it.
    World = 1,
    /// The operator's income.
    Revenue = 2,
    /// The operator's funds, from which the exchange fills orders.
    Hot = 3,
    /// Counterpart of [`SystemRole::World`] in the test transfers of the canary, which checks that the service works.
    CanaryWorld = 4,
    /// The two wallets between which the canary makes test transfers.
    CanaryA = 5,
    CanaryB = 6,
    /// The operator's reserve for prizes.
    Prize = 7,
    /// Tax that the operator has collected and owes to the state.
    Tax = 8,
}

/// Class of an account, which determines the rules that apply to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountClass {
    Customer,
    Hold,
    System,
    /// A system account that cannot be overdrawn.
    Reserve,
    /// Money that the operator owes to a third party, such as a publisher's share of a sale. Refunds can take the
    /// balance below zero.
    Payable,
}

impl AccountId {
    /// The system account of this role in this currency.
    pub fn system(role: SystemRole, currency: Currency) -> Self {
        Self(-((role as i64) << 32 | i64::from(currency.number())))
    }

    /// The account that records the operator's debt to this party in this currency; `None` if `party` is above
    /// [`PARTY_MAX`].
    pub fn payable(party: u32, currency: Currency) -> Option<Self> {
        let number = i64::from(party) << 32 | i64::from(currency.number());
        (party <= PARTY_MAX).then_some(Self(-PAYABLE_IDS - number))
    }

    /// The currency number that the id of a system account or a payable contains; `None` for other accounts.
    pub(super) fn currency_number(self) -> Option<u32> {
        match self.class()? {
            AccountClass::System | AccountClass::Reserve | AccountClass::Payable => {
                u32::try_from(-self.0 & 0xffff_ffff).ok()
            }
            AccountClass::Customer | AccountClass::Hold => None,
        }
    }

    /// The id under which other books (independently ordered parts of the ledger) record this account. It differs from
    /// the account's own id only for system accounts, because every book has system accounts with the same ids.
    pub(super) fn foreign_id(self) -> Self {
        match self.class() {
            Some(AccountClass::System) => Self(-(-self.0 | FOREIGN)),
            _ => self,
        }
    }

    /// Reverses `foreign_id`: returns the id of the account in its own book.
    #[must_use]
    pub fn own_id(self) -> Self {
        match self.class() {
            Some(AccountClass::System) => Self(-(-self.0 & !FOREIGN)),
            _ => self,
        }
    }

    /// The account that contains a customer's held money; `None` unless this is a customer account.
    pub const fn hold(self) -> Option<Self> {
        if 0 < self.0 && self.0 <= ID_MAX { Some(Self(-SYSTEM_IDS - self.0)) } else { None }
    }

    /// The customer account that this hold account belongs to; `None` unless this is a hold account.
    pub const fn held_for(self) -> Option<Self> {
        if -SYSTEM_IDS - ID_MAX <= self.0 && self.0 < -SYSTEM_IDS {
            Some(Self(-SYSTEM_IDS - self.0))
        } else {
            None
        }
    }

    /// The class of the account; `None` for ids that no account can have.
    pub const fn class(self) -> Option<AccountClass> {
        match self.0 {
            1..=ID_MAX => Some(AccountClass::Customer),
            id if -SYSTEM_IDS < id && id < 0 => {
                let role = -id >> 32;
                if role == SystemRole::Prize as i64 || role == SystemRole::Hot as i64 {
                    Some(AccountClass::Reserve)
                } else {
                    Some(AccountClass::System)
                }
            }
            id if -2 * PAYABLE_IDS < id && id <= -PAYABLE_IDS => Some(AccountClass::Payable),
            _ if self.held_for().is_some() => Some(AccountClass::Hold),
            _ => None,
        }
    }
}

impl AccountClass {
    /// Returns whether an account of this class may have this balance.
    pub fn allows(self, balance: Minor) -> bool {
        match self {
            Self::Customer | Self::Hold => Minor::ZERO <= balance && balance <= MAX_BALANCE,
            Self::System | Self::Payable => true,
            Self::Reserve => Minor::ZERO <= balance,
        }
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// State of an account, which decides whether money may enter and leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, utoipa::ToSchema)]
#[schema(as = WalletState, rename_all = "snake_case")]
pub enum AccountState {
    /// Money may enter and leave.
    Open,
    /// Money may enter, but not leave.
    Frozen,
    /// Money may neither enter nor leave. The account stays closed.
    Closed,
}

impl AccountState {
    /// Name of this account state in responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Frozen => "frozen",
            Self::Closed => "closed",
        }
    }
}

impl FromStr for AccountState {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::Open, Self::Frozen, Self::Closed]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| Error::Internal(anyhow::anyhow!("unknown account state: {name}")))
    }
}

/// Properties of an account that the ledger's rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub currency: Currency,
    pub balance: Minor,
    /// Balance of the account's hold account, copied here so that every response can contain both balances.
    pub held: Minor,
    pub state: AccountState,
}

impl Account {
    /// A new account: open and empty.
    pub const fn empty(currency: Currency) -> Self {
        Self { currency, balance: Minor::ZERO, held: Minor::ZERO, state: AccountState::Open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_encodes_the_class_of_its_account() {
        let eur = Currency::new("EUR", 2).unwrap();
        let customer = AccountId(7);

        assert_eq!(customer.class(), Some(AccountClass::Customer));
        assert_eq!(customer.hold().unwrap().class(), Some(AccountClass::Hold));
        assert_eq!(customer.hold().unwrap().held_for(), Some(customer));
        assert_eq!(AccountId::system(SystemRole::World, eur).class(), Some(AccountClass::System));
        assert_eq!(AccountId::system(SystemRole::World, eur).hold(), None);
        assert_eq!(AccountId::system(SystemRole::Prize, eur).class(), Some(AccountClass::Reserve));
        assert!(!AccountClass::Reserve.allows(Minor(-1)) && AccountClass::System.allows(Minor(-1)));
        let payable = AccountId::payable(PARTY_MAX, eur).unwrap();
        assert_eq!(payable.class(), Some(AccountClass::Payable));
        assert_eq!(payable.currency_number(), Some(eur.number()));
        assert_eq!(payable.held_for(), None);
        assert_eq!(AccountId::payable(0, eur).unwrap().class(), Some(AccountClass::Payable));
        assert_eq!(AccountId::payable(PARTY_MAX + 1, eur), None);
        let world = AccountId::system(SystemRole::World, eur);
        assert_ne!(world.foreign_id(), world);
        assert_eq!(world.foreign_id().class(), Some(AccountClass::System));
        assert_eq!(world.foreign_id().currency_number(), Some(eur.number()));
        assert_eq!((world.foreign_id().own_id(), world.own_id()), (world, world));
        assert_eq!((customer.foreign_id(), payable.foreign_id()), (customer, payable));
        assert_eq!(AccountId(0).class(), None);
        assert_eq!(AccountId(-SYSTEM_IDS).class(), None);
        assert_eq!(AccountId(ID_MAX + 1).class(), None);
        assert_eq!(AccountId(i64::MIN).class(), None);
    }

    #[test]
    fn system_accounts_of_all_roles_and_currencies_fit_and_differ() {
        let longest = Currency::new("ZZZZZZ", 0).unwrap();
        let shortest = Currency::new("00", 0).unwrap();

        let lowest = AccountId::system(SystemRole::Tax, longest);

        assert_eq!(lowest.class(), Some(AccountClass::System));
        assert!(
            AccountId::system(SystemRole::World, longest)
                > AccountId::system(SystemRole::Revenue, shortest)
        );
    }
}

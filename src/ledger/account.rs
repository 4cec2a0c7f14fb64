//! Accounts: ids that say what an account is, and the state it is in.
//!
//! | ids | what | floor | ceiling |
//! |---|---|---|---|
//! | above 0 | customers' accounts | 0 | 2^53-1 |
//! | -2^40 to -1 | system accounts: one for each role and currency | none | none |
//! | below -2^40 | the hold account of customer `n` is `-2^40 - n` | 0 | 2^53-1 |
//!
//! System and hold accounts need no opening: they come to be with the first transfer that touches them.

use std::fmt;

use super::currency::Currency;
use super::money::{MAX_BALANCE, Minor};

/// System accounts are above the negative of this, hold accounts below.
const SYSTEM_IDS: i64 = 1 << 40;

/// Ids above this have no hold account, and would not be exact in every JSON parser.
pub const ID_MAX: i64 = 1 << 52;

/// An account of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId(pub i64);

/// What a system account is for. The numbers are stored (inside the ids): never change one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SystemRole {
    /// Everything outside: deposits come from it, withdrawals go to it.
    World = 1,
    /// The operator's income.
    Revenue = 2,
    /// The exchange's own funds.
    Hot = 3,
    /// The synthetic probe's counterpart of the world.
    CanaryWorld = 4,
    /// The synthetic probe's own two wallets.
    CanaryA = 5,
    CanaryB = 6,
}

/// Which rules an account follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Customer,
    Hold,
    System,
}

impl AccountId {
    /// The system account of this role in this currency.
    pub fn system(role: SystemRole, currency: Currency) -> Self {
        Self(-((role as i64) << 32 | i64::from(currency.number())))
    }

    /// The number of the currency that a system account's id is made of.
    pub(super) fn currency_number(self) -> Option<u32> {
        if self.class() == Some(Class::System) {
            u32::try_from(-self.0 & 0xffff_ffff).ok()
        } else {
            None
        }
    }

    /// Where a customer's held money waits; `None` for what is no customer's account.
    pub const fn hold(self) -> Option<Self> {
        if 0 < self.0 && self.0 <= ID_MAX { Some(Self(-SYSTEM_IDS - self.0)) } else { None }
    }

    /// The customer whose held money this is; `None` for what is no hold account.
    pub const fn held_for(self) -> Option<Self> {
        if -SYSTEM_IDS - ID_MAX <= self.0 && self.0 < -SYSTEM_IDS {
            Some(Self(-SYSTEM_IDS - self.0))
        } else {
            None
        }
    }

    /// Which rules it follows; `None` for ids that no account can have.
    pub const fn class(self) -> Option<Class> {
        match self.0 {
            1..=ID_MAX => Some(Class::Customer),
            id if -SYSTEM_IDS < id && id < 0 => Some(Class::System),
            _ if self.held_for().is_some() => Some(Class::Hold),
            _ => None,
        }
    }
}

impl Class {
    /// Whether an account of this class may have this balance.
    pub fn allows(self, balance: Minor) -> bool {
        match self {
            Self::Customer | Self::Hold => Minor::ZERO <= balance && balance <= MAX_BALANCE,
            Self::System => true,
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

/// What may be done with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccountState {
    /// Money in and out.
    Open,
    /// Money in, none out.
    Frozen,
    /// Neither, for good.
    Closed,
}

impl AccountState {
    /// For answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Frozen => "frozen",
            Self::Closed => "closed",
        }
    }
}

/// What deciding needs to know of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub currency: Currency,
    pub balance: Minor,
    /// What waits in its hold account: kept here too, so that every answer can tell both.
    pub held: Minor,
    pub state: AccountState,
}

impl Account {
    /// As it comes to be.
    pub const fn empty(currency: Currency) -> Self {
        Self { currency, balance: Minor::ZERO, held: Minor::ZERO, state: AccountState::Open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_the_account_is() {
        let eur = Currency::new("EUR", 2).unwrap();
        let customer = AccountId(7);

        assert_eq!(customer.class(), Some(Class::Customer));
        assert_eq!(customer.hold().unwrap().class(), Some(Class::Hold));
        assert_eq!(customer.hold().unwrap().held_for(), Some(customer));
        assert_eq!(AccountId::system(SystemRole::World, eur).class(), Some(Class::System));
        assert_eq!(AccountId::system(SystemRole::World, eur).hold(), None);
        assert_eq!(AccountId(0).class(), None);
        assert_eq!(AccountId(-SYSTEM_IDS).class(), None);
        assert_eq!(AccountId(ID_MAX + 1).class(), None);
        assert_eq!(AccountId(i64::MIN).class(), None);
    }

    #[test]
    fn system_accounts_of_all_roles_and_currencies_fit_and_differ() {
        let longest = Currency::new("ZZZZZZ", 0).unwrap();
        let shortest = Currency::new("00", 0).unwrap();

        let lowest = AccountId::system(SystemRole::CanaryB, longest);

        assert_eq!(lowest.class(), Some(Class::System));
        assert!(
            AccountId::system(SystemRole::World, longest)
                > AccountId::system(SystemRole::Revenue, shortest)
        );
    }
}

//! Access to wallets: the `require_...` that each operation on a wallet begins with.
//!
//! A wallet that belongs to a user is accessible to that user and to keys with the scope. The others are accessible to
//! every caller where access is open, and else to keys with the scope.

use super::WalletRecord;
use crate::auth::{Access, Caller, Principal, Scope};
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::ledger::money::Minor;

/// The wallets that a caller sees in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    All,
    /// The wallets of this user.
    Own(UserId),
    /// The wallets of this user, and those that belong to no user.
    OwnAndUnowned(UserId),
    /// The wallets that belong to no user.
    Unowned,
}

impl Caller {
    /// Whether the wallet is the caller's own, or belongs to no user while access is open.
    fn owns(&self, user: Option<UserId>) -> bool {
        match user {
            None => self.policy().access == Access::Open,
            Some(user) => self.user_id() == Some(user),
        }
    }

    /// Refuses a caller that may not see the wallet.
    pub fn require_read(&self, wallet: &WalletRecord) -> Result<()> {
        if self.owns(wallet.user) { Ok(()) } else { self.require_scope(Scope::WalletRead) }
    }

    /// Refuses a caller that may not take money out of the wallet, or change it.
    pub fn require_spend(&self, wallet: &WalletRecord) -> Result<()> {
        if self.owns(wallet.user) { Ok(()) } else { self.require_scope(Scope::WalletWrite) }
    }

    /// Refuses a caller that may not lift a freeze. An owner may not undo the freeze of an operator.
    pub fn require_unfreeze(&self, wallet: &WalletRecord) -> Result<()> {
        match wallet.user {
            None => self.require_spend(wallet),
            Some(_) => self.require_scope(Scope::WalletWrite),
        }
    }

    /// Refuses a caller that may not create money in the wallet: without a key only with self-service funding.
    pub fn require_fund(&self, wallet: &WalletRecord) -> Result<()> {
        let self_service = self.policy().self_service_funding && self.owns(wallet.user);
        if self_service { Ok(()) } else { self.require_scope(Scope::WalletWrite) }
    }

    /// Refuses a caller that may not open a wallet with this initial balance; returns the user it will belong to.
    pub fn require_open(&self, initial: Option<Minor>) -> Result<Option<UserId>> {
        let user = self.user_id();
        let may_fund = initial.is_none() || self.policy().self_service_funding;
        if !(may_fund && self.owns(user)) {
            self.require_scope(Scope::WalletWrite)?;
        }
        Ok(user)
    }

    /// Refuses a caller that may see no wallet at all; returns those that it may see.
    pub fn require_visibility(&self) -> Result<Visibility> {
        let is_open = self.policy().access == Access::Open;
        match (self.principal(), is_open) {
            _ if self.has_scope(Scope::WalletRead) => Ok(Visibility::All),
            (Principal::User(user), true) => Ok(Visibility::OwnAndUnowned(user.id)),
            (Principal::User(user), false) => Ok(Visibility::Own(user.id)),
            (_, true) => Ok(Visibility::Unowned),
            (Principal::Anonymous, false) => Err(Error::Unauthenticated),
            (Principal::ApiKey(_) | Principal::Operator, false) => Err(Error::Forbidden),
        }
    }
}

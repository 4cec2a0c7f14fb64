//! Who may do what with a wallet.
//!
//! One that belongs to a user is theirs, and of keys with the scope. The others are everybody's where access is open,
//! and else of keys with the scope.

use super::Facts;
use crate::error::{Error, Result};
use crate::http::auth::{Access, Caller, Scope, Who};
use crate::ledger::money::Minor;

/// What a caller sees in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Everything,
    /// What belongs to this user, and what belongs to nobody if access is open.
    Of {
        user: Option<i64>,
        of_nobody: bool,
    },
}

impl Caller {
    /// Whether it belongs to them, or to nobody while access is open.
    fn is_at_home(&self, user: Option<i64>) -> bool {
        match (self.who(), user) {
            (_, None) => self.policy().access == Access::Open,
            (Who::User(signed_in), Some(user)) => signed_in.id == user,
            _ => false,
        }
    }

    pub fn may_see(&self, wallet: &Facts) -> Result<()> {
        if self.is_at_home(wallet.user) { Ok(()) } else { self.needs(Scope::WalletRead) }
    }

    /// Take money out of it, or change it.
    pub fn may_spend(&self, wallet: &Facts) -> Result<()> {
        if self.is_at_home(wallet.user) { Ok(()) } else { self.needs(Scope::WalletWrite) }
    }

    /// Lift a freeze. Whoever froze it may have had a reason that its owner should not undo.
    pub fn may_unfreeze(&self, wallet: &Facts) -> Result<()> {
        if wallet.user.is_none() { self.may_spend(wallet) } else { self.needs(Scope::WalletWrite) }
    }

    /// Bring money into being: without a key only where that was allowed.
    pub fn may_fund(&self, wallet: &Facts) -> Result<()> {
        let may = self.policy().self_service_funding && self.is_at_home(wallet.user);
        if may { Ok(()) } else { self.needs(Scope::WalletWrite) }
    }

    /// Whom a wallet will belong to that this caller opens, with so much money in it.
    pub fn opens_for(&self, initial: Option<Minor>) -> Result<Option<i64>> {
        let user = match self.who() {
            Who::User(signed_in) => Some(signed_in.id),
            Who::Anybody | Who::Key(_) => None,
        };
        let funds = initial.is_none() || self.policy().self_service_funding;
        if !(funds && self.is_at_home(user)) {
            self.needs(Scope::WalletWrite)?;
        }
        Ok(user)
    }

    pub fn sight(&self) -> Result<Sight> {
        let of_nobody = self.policy().access == Access::Open;
        match self.who() {
            _ if self.has(Scope::WalletRead) => Ok(Sight::Everything),
            Who::User(signed_in) => Ok(Sight::Of { user: Some(signed_in.id), of_nobody }),
            _ if of_nobody => Ok(Sight::Of { user: None, of_nobody }),
            Who::Anybody => Err(Error::Unauthenticated),
            Who::Key(_) => Err(Error::Forbidden),
        }
    }
}

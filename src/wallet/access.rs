//! Access to wallets: the `require_...` check that each operation on a wallet begins with.
//!
//! A wallet that belongs to a user is accessible to that user and to callers with the required scope. A wallet that
//! belongs to no user is accessible to every caller if access is open (`REVWALLET_ACCESS`), otherwise only to callers
//! with the scope.

use super::WalletRecord;
use super::main_wallet::Player;
use crate::auth::{Access, Caller, Principal, Scope};
use crate::error::{CredentialFault, Error, Result};
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
    /// Whether the caller may use a wallet that belongs to `user` without a scope: the caller is this user, or the
    /// wallet belongs to no user (`None`) and access is open.
    fn owns(&self, user: Option<UserId>) -> bool {
        match user {
            None => self.policy().access == Access::Open,
            Some(user) => self.user_id() == Some(user),
        }
    }

    /// Returns an error unless the caller may see the wallet.
    pub fn require_read(&self, wallet: &WalletRecord) -> Result<()> {
        if self.owns(wallet.user) { Ok(()) } else { self.require_scope(Scope::WalletRead) }
    }

    /// Returns an error unless the caller may withdraw from the wallet and update it.
    pub fn require_spend(&self, wallet: &WalletRecord) -> Result<()> {
        if self.owns(wallet.user) { Ok(()) } else { self.require_scope(Scope::WalletWrite) }
    }

    /// Returns an error unless the caller may unfreeze the wallet. Even the user that owns the wallet needs the scope
    /// `wallet:write`, because an operator may have frozen the wallet.
    pub fn require_unfreeze(&self, wallet: &WalletRecord) -> Result<()> {
        match wallet.user {
            None => self.require_spend(wallet),
            Some(_) => self.require_scope(Scope::WalletWrite),
        }
    }

    /// Returns an error unless the caller may deposit into the wallet, which creates money. For a caller without the
    /// scope `wallet:write`, self-service funding must be on, and the wallet must belong to the caller or, if access is
    /// open, to no user.
    pub fn require_fund(&self, wallet: &WalletRecord) -> Result<()> {
        let self_service = self.policy().self_service_funding && self.owns(wallet.user);
        if self_service { Ok(()) } else { self.require_scope(Scope::WalletWrite) }
    }

    /// Returns the user that a new wallet will belong to. Returns an error if the caller may not open a wallet for this
    /// user or with this initial balance.
    pub fn require_open(
        &self,
        initial: Option<Minor>,
        holder: Option<UserId>,
    ) -> Result<Option<UserId>> {
        let user = self.user_id();
        if holder.is_some() && holder != user {
            self.require_scope(Scope::WalletWrite)?;
            return Ok(holder);
        }
        let may_fund = initial.is_none() || self.policy().self_service_funding;
        if !(may_fund && self.owns(user)) {
            self.require_scope(Scope::WalletWrite)?;
        }
        Ok(user)
    }

    /// Whether the player is the signed-in caller.
    fn is_player(&self, player: Option<Player>) -> bool {
        matches!(player, Some(Player::User(user)) if self.user_id() == Some(user))
    }

    /// Whether access is open, and the player is a guest or an unknown player id (`None`) that may become a guest.
    fn may_be_guest(&self, player: Option<Player>) -> bool {
        self.policy().access == Access::Open && player.is_none_or(Player::is_guest)
    }

    /// Whether the request has no credential, and therefore acts as the guest with this player id.
    fn acts_as_guest(&self, player: Option<Player>) -> bool {
        matches!(self.principal(), Principal::Anonymous) && self.may_be_guest(player)
    }

    /// Returns an error unless the caller may see the balance of a player. `None` stands for an unknown player id.
    pub fn require_read_player(&self, player: Option<Player>) -> Result<()> {
        if self.is_player(player) || self.may_be_guest(player) {
            return Ok(());
        }
        self.require_scope(Scope::WalletRead)?;
        self.require_holder(player)
    }

    /// Returns an error unless the caller may withdraw money from the main wallet of a player.
    pub fn require_spend_player(&self, player: Option<Player>) -> Result<()> {
        if self.is_player(player) || self.acts_as_guest(player) {
            return Ok(());
        }
        self.require_scope(Scope::WalletWrite)?;
        self.require_holder(player)
    }

    /// Returns whether a deposit for a player may create a guest if the player id is unknown. Returns an error if the
    /// caller may not make the deposit, which creates money.
    pub fn require_fund_player(&self, player: Option<Player>) -> Result<bool> {
        let is_self_service = self.policy().self_service_funding
            && (self.is_player(player) || self.acts_as_guest(player));
        if !is_self_service {
            self.require_scope(Scope::WalletWrite)?;
            self.require_holder(player)?;
        }
        Ok(self.policy().access == Access::Open)
    }

    /// Whether the player may receive money. A guest may do so only if access is open.
    pub fn may_pay(&self, player: Player) -> bool {
        player != Player::Guest || self.policy().access == Access::Open
    }

    /// Returns an error if the player is a guest and access is closed. Such guests exist if access was open earlier.
    fn require_holder(&self, player: Option<Player>) -> Result<()> {
        match player {
            Some(Player::Guest) if self.policy().access == Access::Closed => {
                Err(Error::UserNotFound)
            }
            _ => Ok(()),
        }
    }

    /// Returns which wallets the caller may see in a list, or an error if the caller may not see any wallet.
    pub fn require_visibility(&self) -> Result<Visibility> {
        let is_open = self.policy().access == Access::Open;
        match (self.principal(), is_open) {
            _ if self.has_scope(Scope::WalletRead) => Ok(Visibility::All),
            (Principal::User(user), true) => Ok(Visibility::OwnAndUnowned(user.id)),
            (Principal::User(user), false) => Ok(Visibility::Own(user.id)),
            (_, true) => Ok(Visibility::Unowned),
            (Principal::Anonymous, false) => Err(Error::Unauthenticated(CredentialFault::Missing)),
            (Principal::ApiKey(_) | Principal::Operator, false) => {
                Err(Error::ScopeMissing(Scope::WalletRead.name()))
            }
        }
    }
}

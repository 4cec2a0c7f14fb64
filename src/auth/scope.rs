//! Scopes: the permissions of an API key, and the `require_...` checks that operations begin with.

use std::str::FromStr;

use super::{ApiKeyGrant, Caller, Principal};
use crate::error::{CredentialFault, Error, Result};
use crate::ids::UserId;

/// Permission of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, utoipa::ToSchema)]
#[schema(as = ApiKeyScope)]
pub enum Scope {
    #[value(name = "wallet:read")]
    #[schema(rename = "wallet:read")]
    WalletRead,
    #[value(name = "wallet:write")]
    #[schema(rename = "wallet:write")]
    WalletWrite,
    #[value(name = "users:read")]
    #[schema(rename = "users:read")]
    UsersRead,
    #[value(name = "games:read")]
    #[schema(rename = "games:read")]
    GamesRead,
    #[value(name = "games:write")]
    #[schema(rename = "games:write")]
    GamesWrite,
    #[value(name = "events:write")]
    #[schema(rename = "events:write")]
    EventsWrite,
    /// Grants every permission.
    #[value(name = "admin")]
    #[schema(rename = "admin")]
    Admin,
}

impl Scope {
    pub const ALL: [Self; 7] = [
        Self::WalletRead,
        Self::WalletWrite,
        Self::UsersRead,
        Self::GamesRead,
        Self::GamesWrite,
        Self::EventsWrite,
        Self::Admin,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::WalletRead => "wallet:read",
            Self::WalletWrite => "wallet:write",
            Self::UsersRead => "users:read",
            Self::GamesRead => "games:read",
            Self::GamesWrite => "games:write",
            Self::EventsWrite => "events:write",
            Self::Admin => "admin",
        }
    }
}

/// Permission checks that operations begin with.
impl Caller {
    /// Returns the id of the signed-in user, or an error if the caller is not a signed-in user.
    pub fn require_user(&self) -> Result<UserId> {
        match self.principal() {
            Principal::User(user) => Ok(user.id),
            Principal::Anonymous => Err(Error::Unauthenticated(CredentialFault::Missing)),
            Principal::ApiKey(_) | Principal::Operator => Err(Error::UserRequired),
        }
    }

    /// Whether the caller has the scope for the whole installation. Administrators have every scope for the whole
    /// installation; an API key that acts for a user never has such a scope.
    pub fn has_scope(&self, scope: Scope) -> bool {
        match self.principal() {
            Principal::User(user) => user.is_admin,
            Principal::ApiKey(ApiKeyGrant { scopes, user: None }) => {
                scopes.contains(&scope) || scopes.contains(&Scope::Admin)
            }
            Principal::Anonymous | Principal::ApiKey(ApiKeyGrant { user: Some(_), .. }) => false,
            Principal::Operator => true,
        }
    }

    /// Returns an error unless the caller has the scope for the whole installation.
    pub fn require_scope(&self, scope: Scope) -> Result<()> {
        match self.principal() {
            _ if self.has_scope(scope) => Ok(()),
            Principal::Anonymous => Err(Error::Unauthenticated(CredentialFault::Missing)),
            _ => Err(Error::ScopeMissing(scope.name())),
        }
    }

    /// Returns an error unless the caller is the given user, or has the scope for the whole installation.
    pub fn require_user_or_scope(&self, user: UserId, scope: Scope) -> Result<()> {
        if self.user_id() == Some(user) { Ok(()) } else { self.require_scope(scope) }
    }

    /// Returns an error unless the caller is the owner, acts for the owner with an API key that has the scope, or has
    /// the scope for the whole installation.
    pub fn require_owner_or_scope(&self, owner: UserId, scope: Scope) -> Result<()> {
        match self.principal() {
            Principal::ApiKey(grant)
                if grant.user == Some(owner) && grant.scopes.contains(&scope) =>
            {
                Ok(())
            }
            _ => self.require_user_or_scope(owner, scope),
        }
    }
}

/// Error for an unknown scope name.
#[derive(Debug, thiserror::Error)]
#[error("unknown scope")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or(UnknownScope)
    }
}

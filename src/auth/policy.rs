//! What a caller may do: the checks of scopes that every operation begins with, and the access policy of an installation.

use super::{ApiKeyGrant, Caller, Principal, Scope, TrustedProxies};
use crate::error::{CredentialFault, Error, Result};
use crate::ids::UserId;

/// Rule for wallets that belong to no user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Access {
    /// Any client that reaches the port may use them.
    Open,
    /// Every request needs a credential.
    Closed,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Access")]
pub struct AccessArgs {
    /// Access to wallets that belong to no user: open to every client, or closed to requests without a credential
    /// [default: open with the embedded database, else closed].
    #[arg(long, env = "REVWALLET_ACCESS", global = true, value_enum)]
    pub access: Option<Access>,
    /// Let users deposit into their own wallets [default: true with open access, else false].
    #[arg(long, env = "REVWALLET_SELF_SERVICE_FUNDING", global = true, num_args = 0..=1, default_missing_value = "true")]
    pub self_service_funding: Option<bool>,
    /// Networks of proxies whose `X-Forwarded-For` is trusted: `10.0.0.0/8,192.168.1.7/32`.
    #[arg(
        long,
        env = "REVWALLET_TRUSTED_PROXIES",
        global = true,
        default_value = "",
        hide_default_value = true
    )]
    pub trusted_proxies: TrustedProxies,
}

/// Access rules that apply to every caller.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub access: Access,
    pub self_service_funding: bool,
}

impl Policy {
    pub fn new(args: &AccessArgs, default: Access) -> Self {
        let access = args.access.unwrap_or(default);
        let self_service_funding = args.self_service_funding.unwrap_or(access == Access::Open);
        Self { access, self_service_funding }
    }
}

/// Checks of what the caller may do.
impl Caller {
    /// Refuses every caller but signed-in users; returns the user.
    pub fn require_user(&self) -> Result<UserId> {
        match self.principal() {
            Principal::User(user) => Ok(user.id),
            Principal::Anonymous => Err(Error::Unauthenticated(CredentialFault::Missing)),
            Principal::ApiKey(_) | Principal::Operator => Err(Error::UserRequired),
        }
    }

    /// Whether the scope was granted.
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

    /// Refuses a caller without the scope.
    pub fn require_scope(&self, scope: Scope) -> Result<()> {
        match self.principal() {
            _ if self.has_scope(scope) => Ok(()),
            Principal::Anonymous => Err(Error::Unauthenticated(CredentialFault::Missing)),
            _ => Err(Error::ScopeMissing(scope.name())),
        }
    }

    /// Refuses every caller but this user and those with the scope.
    pub fn require_user_or_scope(&self, user: UserId, scope: Scope) -> Result<()> {
        if self.user_id() == Some(user) { Ok(()) } else { self.require_scope(scope) }
    }

    /// Refuses every caller but this owner, API keys of the owner with the scope, and all others with the scope.
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

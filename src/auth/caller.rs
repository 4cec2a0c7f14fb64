//! The caller of an operation, and the checks that every operation begins with.

use std::borrow::Cow;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Access, Policy, Scope};
use crate::error::{CredentialFault, Error, Result};
use crate::ids::{ApiKeyId, UserId};

/// A user with a valid session.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub id: UserId,
    pub is_admin: bool,
    pub session: Uuid,
    /// End of the session, unless it is ended earlier.
    pub expires_at: OffsetDateTime,
}

/// Permissions of an API key.
#[derive(Debug, Clone, Default)]
pub struct ApiKeyGrant {
    pub scopes: Vec<Scope>,
    /// The user for whom the program acts: then the scopes hold only for what belongs to this user.
    pub user: Option<UserId>,
}

/// The authenticated identity behind a call.
#[derive(Debug, Clone)]
pub enum Principal {
    /// No credential: only possible where access is open.
    Anonymous,
    User(SignedIn),
    /// A program, with what its API key permits.
    ApiKey(ApiKeyGrant),
    /// The command line on the server itself.
    Operator,
}

/// A principal together with its name and the access policy.
#[derive(Debug, Clone)]
pub struct Caller {
    name: Cow<'static, str>,
    principal: Principal,
    policy: Policy,
}

impl Caller {
    pub fn anonymous(policy: Policy) -> Self {
        Self { name: Cow::Borrowed("anybody"), principal: Principal::Anonymous, policy }
    }

    pub fn user(user: SignedIn, policy: Policy) -> Self {
        let name = Cow::Owned(format!("user:{}", user.id));
        Self { name, principal: Principal::User(user), policy }
    }

    pub fn api_key(id: ApiKeyId, grant: ApiKeyGrant, policy: Policy) -> Self {
        let name = Cow::Owned(format!("key:{id}"));
        Self { name, principal: Principal::ApiKey(grant), policy }
    }

    /// The command line on the server: every permission.
    pub fn operator() -> Self {
        let policy = Policy { access: Access::Closed, self_service_funding: false };
        Self { name: Cow::Borrowed("operator"), principal: Principal::Operator, policy }
    }

    /// Name that separates the idempotency keys, holds and webhooks of one caller from those of another.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The signed-in user, if the caller is one.
    pub fn user_id(&self) -> Option<UserId> {
        match &self.principal {
            Principal::User(user) => Some(user.id),
            Principal::Anonymous | Principal::ApiKey(_) | Principal::Operator => None,
        }
    }

    /// Refuses every caller but signed-in users; returns the user.
    pub fn require_user(&self) -> Result<UserId> {
        match &self.principal {
            Principal::User(user) => Ok(user.id),
            Principal::Anonymous => Err(Error::Unauthenticated(CredentialFault::Missing)),
            Principal::ApiKey(_) | Principal::Operator => Err(Error::UserRequired),
        }
    }

    /// Whether the scope was granted.
    pub fn has_scope(&self, scope: Scope) -> bool {
        match &self.principal {
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
        match self.principal {
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
        match &self.principal {
            Principal::ApiKey(grant)
                if grant.user == Some(owner) && grant.scopes.contains(&scope) =>
            {
                Ok(())
            }
            _ => self.require_user_or_scope(owner, scope),
        }
    }
}

//! The caller of an operation: a principal (such as a user or a program), its name, and the access policy of the
//! installation.

use std::borrow::Cow;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{Access, Policy, Scope};
use crate::ids::{ApiKeyId, UserId};

/// A user with a valid session.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub id: UserId,
    pub is_admin: bool,
    pub session: Uuid,
    /// Time when the session expires, unless it is ended earlier.
    pub expires_at: OffsetDateTime,
}

/// Permissions of an API key.
#[derive(Debug, Clone, Default)]
pub struct ApiKeyGrant {
    pub scopes: Vec<Scope>,
    /// User on whose behalf the program acts. If set, the scopes apply only to objects that belong to this user.
    pub user: Option<UserId>,
}

/// The identity behind a call: an anonymous client, a user, a program or an operator.
#[derive(Debug, Clone)]
pub enum Principal {
    /// A client without a credential. If access is closed, such a client may use only routes that need no credential.
    Anonymous,
    User(SignedIn),
    /// A program that presented an API key, with the permissions of the key.
    ApiKey(ApiKeyGrant),
    /// A command that runs on the server itself.
    Operator,
}

/// A principal, with its name and the access policy of the installation.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) name: Cow<'static, str>,
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

    /// Returns the caller for commands that run on the server itself. This caller has every permission.
    pub fn operator() -> Self {
        let policy = Policy { access: Access::Closed, self_service_funding: false };
        Self { name: Cow::Borrowed("operator"), principal: Principal::Operator, policy }
    }

    /// Name that identifies the caller, such as `user:5`. Idempotency keys, holds and webhooks are stored under this
    /// name, so that callers do not share them.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the id of the signed-in user; `None` if the caller is not a signed-in user.
    pub fn user_id(&self) -> Option<UserId> {
        match &self.principal {
            Principal::User(user) => Some(user.id),
            Principal::Anonymous | Principal::ApiKey(_) | Principal::Operator => None,
        }
    }
}

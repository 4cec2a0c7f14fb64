//! Credentials that connections depend on.
//!
//! A connection is first registered with the hub, which passes revocations on to it, and then the credential is checked
//! again if a revocation may have passed between the first check and the registration. So none is missed.

use std::sync::Arc;

use serde::Deserialize;
use uuid::Uuid;

use super::Realtime;
use super::outbox::Outbox;
use crate::auth::{CREDENTIAL_CACHED_FOR, Caller, Presented, Principal};
use crate::error::Result;

/// Credential that a connection depends on, as its revocation names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Credential {
    Session(Uuid),
    ApiKey(i64),
}

impl Credential {
    pub(super) fn of(caller: &Caller) -> Option<Self> {
        match caller.principal() {
            Principal::User(user) => Some(Self::Session(user.session)),
            Principal::ApiKey(_) => {
                let id = caller.name().strip_prefix("key:")?;
                Some(Self::ApiKey(id.parse().ok()?))
            }
            Principal::Anonymous | Principal::Operator => None,
        }
    }
}

impl Realtime {
    /// Registers a connection for the revocation of the credential of its caller. Returns the caller as it is now.
    pub(super) async fn register_credential(
        &self,
        outbox: &Arc<Outbox>,
        caller: &Caller,
        presented: &Presented,
    ) -> Result<Caller> {
        let Some(credential) = Credential::of(caller) else { return Ok(caller.clone()) };
        let revoked_at = self.hub.watch_credential(credential.clone(), outbox).await?;
        let Presented { token, checked_at } = presented;
        if revoked_at + CREDENTIAL_CACHED_FOR < *checked_at {
            return Ok(caller.clone());
        }
        let confirmed = self.authenticator.confirm(token, revoked_at).await;
        if confirmed.is_err() {
            self.hub.forget_credential(&credential, outbox).await;
        }
        confirmed
    }
}

//! Revocation of credentials: a connection loses its rights when its credential is revoked.
//!
//! A connection first registers with the hub, which notifies it of later revocations. Then the credential is checked
//! again, because it may have been revoked before the registration. The second check is skipped if the hub has read no
//! revocation since the first check: the hub then notifies the connection of every revocation after that check.

use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use uuid::Uuid;

use super::Realtime;
use super::hub::{Hub, Index};
use super::outbox::Outbox;
use crate::auth::{CREDENTIAL_CACHED_FOR, Caller, PresentedCredential, Principal};
use crate::error::Result;

/// Topic of the event table on which processes announce revoked credentials. Clients cannot subscribe to it.
pub(super) const REVOCATIONS: &str = "internal:revoked";

/// A credential on which a connection depends. Its JSON form is the body of the event that announces the revocation of
/// the credential.
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
    /// Registers a connection with the hub, which notifies the connection if the caller's credential is revoked.
    /// Returns the caller with the current rights of the credential.
    pub(super) async fn register_credential(
        &self,
        outbox: &Arc<Outbox>,
        caller: &Caller,
        presented: &PresentedCredential,
    ) -> Result<Caller> {
        let Some(credential) = Credential::of(caller) else { return Ok(caller.clone()) };
        let revoked_at = self.hub.watch_credential(credential.clone(), outbox).await?;
        let PresentedCredential { token, checked_at } = presented;
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

impl Hub {
    /// Registers a connection and its credential, so that the hub notifies the connection if the credential is revoked.
    /// Returns a time before which every revocation that the connection may have missed was committed.
    pub(super) async fn watch_credential(
        &self,
        credential: Credential,
        outbox: &Arc<Outbox>,
    ) -> Result<Instant> {
        let mut index = self.following_index().await?;
        index.credentials.entry(credential).or_default().push(Arc::clone(outbox));
        Ok(index.revoked_at.unwrap_or_else(Instant::now))
    }

    /// Removes the registration of a connection with a credential.
    pub(super) async fn forget_credential(&self, credential: &Credential, outbox: &Arc<Outbox>) {
        let mut index = self.lock().await;
        if let Some(outboxes) = index.credentials.get_mut(credential) {
            outboxes.retain(|other| !Arc::ptr_eq(other, outbox));
            if outboxes.is_empty() {
                index.credentials.remove(credential);
            }
        }
        self.note_need(&index);
    }
}

/// Notifies the connections that depend on a revoked credential.
pub(super) fn revoke(index: &mut Index, body: &str) {
    index.revoked_at = Some(Instant::now());
    let Ok(credential) = serde_json::from_str::<Credential>(body) else { return };
    for outbox in index.credentials.remove(&credential).into_iter().flatten() {
        outbox.revoke();
    }
}

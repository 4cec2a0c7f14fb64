//! The credential of a WebSocket connection: replacing it, and ending subscriptions when it is revoked or expires.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use super::action::Dialect;
use super::handle::ErrorReply;
use crate::auth::{Caller, PresentedCredential};
use crate::error::{CredentialFault, Error, Result};
use crate::secret::Secret;

use super::super::credential::Credential;
use super::super::delivery::encode;
use super::super::message::Viewer;

impl Session {
    /// Replaces the credential of the connection. Ends the subscriptions for which the new credential grants different
    /// rights.
    pub(super) async fn authenticate(&mut self, token: &Secret) -> Result<()> {
        let checked_at = Instant::now();
        let mut caller = self.realtime.authenticator.identify(Some(token)).await?;
        let (before, after) = (Credential::of(&self.caller), Credential::of(&caller));
        if after != before {
            let presented = PresentedCredential { token: token.clone(), checked_at };
            caller = self.realtime.register_credential(&self.outbox, &caller, &presented).await?;
            if let Some(before) = &before {
                self.realtime.hub.forget_credential(before, &self.outbox).await;
                self.end_subscriptions_with_other_rights(&caller).await;
            }
        }
        self.caller = caller;
        self.reply("Authenticated");
        Ok(())
    }

    /// Ends the subscriptions for which the new credential grants more or fewer rights than the former credential. The
    /// connection must not keep the rights of the former credential, because the hub no longer notifies it when that
    /// credential is revoked.
    async fn end_subscriptions_with_other_rights(&mut self, caller: &Caller) {
        let viewer = Viewer::new(caller);
        let mut ended = Vec::new();
        for own in &self.subscriptions {
            let feed = self.realtime.hub.topic(&own.topic.name).map(|(_, feed)| feed);
            let is_granted = own.viewer == viewer
                && match feed {
                    Some(feed) => feed.authorize(caller, &own.topic).await.is_ok(),
                    None => false,
                };
            if !is_granted {
                ended.push(Arc::clone(&own.topic.name));
            }
        }
        if ended.is_empty() {
            return;
        }
        for topic in ended {
            self.end_topic(&topic).await;
        }
        self.reply_ended(
            "the subscriptions for which the new credential grants different rights have ended",
        );
    }

    /// Ends all subscriptions of a connection whose credential was revoked or has expired. The connection stays open,
    /// without a credential.
    pub(super) async fn end_credential(&mut self) {
        let Some(credential) = Credential::of(&self.caller) else { return };
        self.realtime.hub.forget_credential(&credential, &self.outbox).await;
        let Ok(anonymous) = self.realtime.authenticator.identify(None).await else { return };
        self.caller = anonymous;
        self.realtime.metrics.wallet_ws_dropped_total.with(["revoked"]).increment(1);
        // Subscriptions to public topics end too, because the rights of the credential also decided which of their
        // messages were sent.
        self.end_all().await;
        self.reply_ended(
            "the credential was revoked or has expired, and its subscriptions have ended",
        );
    }

    fn reply_ended(&self, details: &str) {
        if self.dialect != Dialect::Types {
            let error = Error::Unauthenticated(CredentialFault::Invalid).problem().slug;
            self.outbox.reply(encode(&ErrorReply { error, details, position: None }));
        }
    }
}

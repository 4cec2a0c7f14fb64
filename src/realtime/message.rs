//! Messages: events of topics before they are encoded for a client.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::auth::{Caller, Scope};
use crate::ids::UserId;

/// The callers that may see a message. They must also have the right to read its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    #[default]
    Everyone,
    /// The user whose balance the message shows, and callers with the scope `wallet:read`.
    Owner(UserId),
    /// All callers except those of [`Self::Owner`]. They get this message, without the balance, instead of the owner's
    /// message.
    Others(UserId),
    /// Callers with the scope `wallet:read`.
    Privileged,
}

impl Audience {
    /// Returns whether a caller may see the message. `user` is the caller's user id, if any, and `is_privileged` says
    /// whether the caller has the scope `wallet:read`.
    pub fn includes(self, user: Option<UserId>, is_privileged: bool) -> bool {
        let owns = |owner| is_privileged || user == Some(owner);
        match self {
            Self::Everyone => true,
            Self::Owner(owner) => owns(owner),
            Self::Others(owner) => !owns(owner),
            Self::Privileged => is_privileged,
        }
    }
}

/// Rights of a connection that decide which messages its client may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Viewer {
    user: Option<UserId>,
    is_privileged: bool,
}

impl Viewer {
    pub(super) fn new(caller: &Caller) -> Self {
        Self { user: caller.user_id(), is_privileged: caller.has_scope(Scope::WalletRead) }
    }

    pub(super) fn sees(self, audience: Audience) -> bool {
        audience.includes(self.user, self.is_privileged)
    }
}

/// An event of a topic, which is sent to the subscribers of the topic.
#[derive(Debug, Clone)]
pub struct Message {
    pub topic: Cow<'static, str>,
    /// Type of the event, such as `transfer.deposit`.
    pub kind: Cow<'static, str>,
    pub data: Box<RawValue>,
    /// Text of the event for clients that receive `new_message` frames, which contain only text. If it is `None`, these
    /// clients do not receive the event.
    pub text: Option<String>,
    /// Id of the player that the event is about. Clients can limit a subscription to the events about a player.
    pub player: Option<String>,
    pub audience: Audience,
    pub at: OffsetDateTime,
}

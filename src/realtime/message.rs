//! Messages: what a feed says about a transfer or an event, before it is encoded.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;

use crate::auth::{Caller, Scope};
use crate::ids::UserId;

/// Callers that may see a message, among those that may read its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    #[default]
    Everyone,
    /// The user whose balance the message shows, and callers with `wallet:read`.
    Owner(UserId),
    /// All callers that [`Self::Owner`] excludes. Their message does not contain the balance.
    Others(UserId),
    /// Callers with `wallet:read`.
    Privileged,
}

impl Audience {
    /// Whether the audience includes this user. `is_privileged` says whether the user has the scope `wallet:read`.
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

/// The rights of a connection that decide which messages it sees.
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

/// An event of a topic.
#[derive(Debug, Clone)]
pub struct Message {
    pub topic: Cow<'static, str>,
    /// Type of the event, such as `transfer.deposit`.
    pub kind: Cow<'static, str>,
    pub data: Box<RawValue>,
    /// Text of the event in the dialect in which messages are only texts. That dialect leaves out an event without a
    /// text.
    pub text: Option<String>,
    /// Id of the player that the event is about, for filters.
    pub player: Option<String>,
    pub audience: Audience,
    pub at: OffsetDateTime,
}

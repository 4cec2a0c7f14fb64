//! Newtypes for ids. The compiler rejects, for example, a user id where a wallet id is expected. All ids are numbers in
//! the database, except player ids, which are text.

use std::fmt;
use std::str::FromStr;

/// Longest player id, in characters.
const PLAYER_ID_MAX: usize = 64;

/// Id of a player: the numeric id of a user, or a name that a guest has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlayerId(String);

/// Error for a text that is not a valid player id.
#[derive(Debug, thiserror::Error)]
#[error("must have 1 to {PLAYER_ID_MAX} visible ASCII characters")]
pub struct InvalidPlayerId;

impl PlayerId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PlayerId {
    type Error = InvalidPlayerId;

    fn try_from(text: String) -> Result<Self, InvalidPlayerId> {
        let is_valid = (1..=PLAYER_ID_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_valid { Ok(Self(text)) } else { Err(InvalidPlayerId) }
    }
}

impl FromStr for PlayerId {
    type Err = InvalidPlayerId;

    fn from_str(text: &str) -> Result<Self, InvalidPlayerId> {
        text.to_owned().try_into()
    }
}

impl From<PlayerId> for String {
    fn from(id: PlayerId) -> Self {
        id.0
    }
}

impl From<UserId> for PlayerId {
    fn from(id: UserId) -> Self {
        Self(id.to_string())
    }
}

impl fmt::Display for PlayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Declares newtypes around `i64` ids.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        })+
    };
}

ids! {
    /// Id of a user.
    UserId;
    /// Id of an API key.
    ApiKeyId;
    /// Id of a wallet, which is also the id of the wallet's account in the ledger.
    WalletId;
    /// Id of a transfer, which is the sequence number of its first row in the ledger.
    TransferId;
    /// Id of a hold, which is also the id of the transfer that placed the hold.
    HoldId;
    /// Id of a webhook.
    WebhookId;
    /// Id of a webhook delivery.
    DeliveryId;
    /// Id of a balance alert.
    AlertId;
    /// Id of a leaderboard. Clients refer to the leaderboard by its name.
    LeaderboardId;
    /// Id of a game.
    GameId;
    /// Id of a publisher.
    PublisherId;
    /// Id of a game sale. Clients refer to the sale by its name.
    SaleId;
    /// Id of a discount code.
    CodeId;
    /// Id of an activation key.
    ActivationKeyId;
    /// Id of a leaderboard season. Clients refer to the season by its number.
    SeasonId;
    /// Id of a saga, which is also the id of the order that the saga carries out.
    SagaId;
}

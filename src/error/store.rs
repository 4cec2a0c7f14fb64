//! Reasons why the games store rejects a request.

/// Reason why the store rejects a purchase, a refund or a change to a game.
#[derive(Debug, thiserror::Error)]
pub enum StoreRefusal {
    #[error("there is no game with this id")]
    GameNotFound,
    #[error("the game is not for sale in this currency")]
    NotForSale,
    #[error("the user already owns this game")]
    AlreadyOwned,
    #[error("every copy of the game has been sold")]
    SoldOut,
    #[error("the user does not own the base game {0}")]
    BaseGameMissing(i64),
    #[error("the price is now {price}")]
    PriceChanged {
        /// Current price of the purchase, as a decimal.
        price: String,
    },
    #[error("{0}")]
    GameFixed(&'static str),
    #[error("{0}")]
    RefundRefused(&'static str),
    #[error("the discount code {0} does not exist, or is not valid now for this game and user")]
    CodeInvalid(String),
    #[error("the discount code is used up")]
    CodeUsedUp,
    #[error("the discount code {0} already exists")]
    CodeExists(String),
    #[error("there is no such activation key")]
    KeyNotFound,
    #[error("the activation key was already redeemed")]
    KeyRedeemed,
    #[error("nothing is due: the balance is {balance}")]
    NothingDue {
        /// The balance of the publisher, as a decimal; negative if the publisher owes money.
        balance: String,
    },
    #[error("the user is already a publisher")]
    PublisherExists,
}

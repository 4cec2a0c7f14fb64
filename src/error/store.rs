//! Refusals of the games store.

/// A reason that the store refuses a purchase, a refund or a change of a game.
#[derive(Debug, thiserror::Error)]
pub enum StoreRefusal {
    #[error("there is no game with this id")]
    GameNotFound,
    #[error("the game is not for sale in this currency")]
    NotForSale,
    #[error("the user already owns this game")]
    AlreadyOwned,
    #[error("every copy of the game is sold")]
    SoldOut,
    #[error("the user does not own the base game {0}")]
    BaseGameMissing(i64),
    #[error("the price is now {price}")]
    PriceChanged {
        /// The price of a purchase now, a decimal.
        price: String,
    },
    #[error("{0}")]
    GameFixed(&'static str),
    #[error("{0}")]
    RefundRefused(&'static str),
    #[error("the user is a publisher already")]
    PublisherExists,
}

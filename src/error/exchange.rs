//! Reasons why the exchange rejects a request.

/// Reason why the exchange rejects an order, a quote or a command of an operator.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeRefusal {
    #[error("the quote was already used or has expired")]
    QuoteEnded,
    #[error("the amount is too small: it buys nothing at this price")]
    AmountTooSmall,
    #[error("the order exceeds the limit of {limit} {period}")]
    LimitReached {
        /// The exceeded limit, as a decimal.
        limit: String,
        period: &'static str,
    },
    #[error("an order must be worth at least {0}")]
    BelowMinimum(String),
    #[error("the user already has a wallet in each currency of the exchange")]
    WalletsExist,
    #[error("another user has {0}")]
    NameTaken(&'static str),
    #[error("the order cannot be changed that way: {0}")]
    OrderFixed(&'static str),
    #[error("the price is currently not available")]
    PriceUnavailable,
}

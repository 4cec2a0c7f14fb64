//! The problem table: status, title and advice for every kind of failure that clients see.

use std::time::Duration;

use http::StatusCode;

use super::{Error, ExchangeRefusal, StoreRefusal};

/// A kind of failure, as clients see it in a response and on its documentation page.
#[derive(Debug)]
pub struct Problem {
    pub slug: &'static str,
    pub title: &'static str,
    pub status: StatusCode,
    /// Advice to the client, shown on the documentation page of the problem.
    pub advice: &'static str,
    /// Time after which the client can retry, sent as `Retry-After`; `None` if that header is not sent.
    pub retry_after: Option<Duration>,
}

macro_rules! problems {
    ($($constant:ident $slug:literal $status:ident $title:literal, $advice:literal $(, retry after $seconds:literal s)?;)+) => {
        $(static $constant: Problem = Problem {
            slug: $slug,
            title: $title,
            status: StatusCode::$status,
            advice: $advice,
            retry_after: problems!(@retry $($seconds)?),
        };)+

        /// Every kind of problem, ordered by HTTP status.
        pub static PROBLEMS: &[&Problem] = &[$(&$constant),+];
    };
    (@retry $seconds:literal) => { Some(Duration::from_secs($seconds)) };
    (@retry) => { None };
}

problems! {
    MALFORMED_JSON "malformed-json" BAD_REQUEST "Malformed JSON",
        "Check the body with a JSON parser; the detail names the line and column.";
    MALFORMED_REQUEST "malformed-request" BAD_REQUEST "Malformed request",
        "The request line, a header or a length is malformed or too long. Check what your client sends.";
    BROKEN_BODY "broken-body" BAD_REQUEST "Incomplete body",
        "The connection ended or the transfer encoding was invalid before the whole body arrived. Send the request again.";
    INVALID_PROFILE "invalid-profile" BAD_REQUEST "Invalid profile",
        "Each entry of errors names a field and the reason why it is invalid, for example that the value is taken.";
    INVALID_GAME "invalid-game" BAD_REQUEST "Invalid game",
        "Each entry of errors names a field and the reason why it is invalid.";
    NO_TOKEN "no-token" BAD_REQUEST "No token",
        "Send the token from the response of the login, in the member token or in the header Authorization: Bearer.";
    UNAUTHENTICATED "unauthenticated" UNAUTHORIZED "Authentication required",
        "Send a credential in the header Authorization: Bearer.";
    INVALID_CREDENTIALS "invalid-credentials" UNAUTHORIZED "Invalid credentials",
        "Check the name and the password. After several failures, each further attempt has to wait longer.";
    FORBIDDEN "forbidden" FORBIDDEN "Forbidden",
        "The resource belongs to another caller, or the operation requires a scope that this API key does not have. Deposits require the scope wallet:write; users can deposit into their own wallets only if --self-service-funding is on.";
    USER_NOT_FOUND "user-not-found" NOT_FOUND "User not found",
        "Check the id.";
    GAME_NOT_FOUND "game-not-found" NOT_FOUND "Game not found",
        "Check the id. The games are listed at /api/games.";
    CODE_INVALID "code-invalid" NOT_FOUND "Code invalid",
        "Check the code, the game and the time: a code may be valid only for certain games and only for a limited time.";
    KEY_NOT_FOUND "key-not-found" NOT_FOUND "Activation key not found",
        "Check the key. After several wrong keys, each further attempt has to wait.";
    NOT_FOUND "not-found" NOT_FOUND "Not found",
        "Check the path and the id. The routes are listed at /docs.";
    METHOD_NOT_ALLOWED "method-not-allowed" METHOD_NOT_ALLOWED "Method not allowed",
        "The header Allow lists the methods that this path supports.";
    WALLET_FROZEN "wallet-frozen" CONFLICT "Wallet frozen",
        "Money can enter the wallet, but cannot leave it until the wallet is unfrozen.";
    WALLET_CLOSED "wallet-closed" CONFLICT "Wallet closed",
        "A closed wallet cannot be reopened. Open another wallet.";
    WALLET_NOT_EMPTY "wallet-not-empty" CONFLICT "Wallet not empty",
        "Before you close the wallet, move its money out and end its holds.";
    HOLD_ENDED "hold-ended" CONFLICT "Hold ended",
        "A captured, voided or expired hold is final. Its transfers show where the money went.";
    NOT_REFUNDABLE "not-refundable" CONFLICT "Not refundable",
        "Only deposits, withdrawals, transfers and captures can be refunded. Void a hold instead. A refund cannot be refunded.";
    LEADERBOARD_FIXED "leaderboard-fixed" CONFLICT "Leaderboard fixed",
        "The members order and operator cannot change once the leaderboard has entries, and the prizes of its only season cannot change once that season has started. Create another leaderboard.";
    SEASON_OVER "season-over" CONFLICT "Season over",
        "The leaderboard accepts no more scores. Set a later ends_at, or a reset, to begin a new season.";
    NOT_FOR_SALE "not-for-sale" CONFLICT "Not for sale",
        "A game is for sale while it is published, and only in the currencies that its member prices lists.";
    GAME_OWNED "game-owned" CONFLICT "Game already owned",
        "A user can own a game only once. To buy the game for another user, name that user in gift_to.";
    SOLD_OUT "sold-out" CONFLICT "Sold out",
        "A refund can make a copy available again. The member limited of the game shows how many copies are left.";
    BASE_GAME_MISSING "base-game-missing" CONFLICT "Base game missing",
        "The game is downloadable content. First buy the base game, which its member base names.";
    PRICE_CHANGED "price-changed" CONFLICT "Price changed",
        "The member price is the current price. Show it to the buyer, and repeat the request with this price as expected_price.";
    GAME_FIXED "game-fixed" CONFLICT "Game fixed",
        "The publisher and the base game cannot change after the game was added, and a game that was sold cannot become a draft again.";
    REFUND_REFUSED "refund-refused" CONFLICT "Refund refused",
        "A purchase can be refunded once, within --refund-window.";
    CODE_USED_UP "code-used-up" CONFLICT "Code used up",
        "The code has no uses left, in total or for this user. A refund gives a use back.";
    CODE_EXISTS "code-exists" CONFLICT "Code exists",
        "Choose another code, or omit the code, so that the server generates a random code.";
    KEY_REDEEMED "key-redeemed" CONFLICT "Key redeemed",
        "An activation key can be redeemed only once, and adds its game to one library.";
    NOTHING_DUE "nothing-due" CONFLICT "Nothing due",
        "A payout needs a balance above zero. Later sales settle a debt that refunds have caused.";
    PUBLISHER_EXISTS "publisher-exists" CONFLICT "Publisher exists",
        "A user can have only one publisher. Update the existing publisher instead.";
    QUOTE_ENDED "quote-ended" CONFLICT "Quote ended",
        "A quote can be used only once, and only until its expires_at. Request another quote with POST /exchange/quote.";
    WALLETS_EXIST "wallets-exist" CONFLICT "Wallets exist",
        "A user has one wallet in each currency of the exchange. Get them with GET /exchange/wallet/{user_id}.";
    NAME_TAKEN "name-taken" CONFLICT "Name taken",
        "Choose another user name or e-mail address, or sign in.";
    ORDER_FIXED "order-fixed" CONFLICT "Order fixed",
        "The current state of the order does not permit the change. GET /exchange/order/{order_id} shows the state and the steps of the order.";
    TOO_MANY_SUBSCRIPTIONS "too-many-subscriptions" CONFLICT "Too many subscriptions",
        "Unsubscribe from a topic first, or open another connection.";
    UNRECOVERABLE "unrecoverable" CONFLICT "Unrecoverable position",
        "The events after this position are not available. Read the current state, and continue from the position of that read.";
    ARCHIVED "archived" GONE "Archived",
        "The operator has moved the transfers of this time out of the database. Request a later time, or ask the operator for the archive.";
    BODY_TOO_LARGE "body-too-large" PAYLOAD_TOO_LARGE "Body too large",
        "Send a smaller body; the detail names the limit. To send many transfers at once, use POST /wallet/batch.";
    UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "Unsupported media type",
        "Send JSON with the header Content-Type: application/json, without compression.";
    INVALID "invalid" UNPROCESSABLE_ENTITY "Invalid request",
        "Each entry of errors names a field and the reason why it is invalid.";
    UPGRADE_REQUIRED "upgrade-required" UPGRADE_REQUIRED "Upgrade required",
        "Open this path with a WebSocket client.";
    INSUFFICIENT_FUNDS "insufficient-funds" UNPROCESSABLE_ENTITY "Insufficient funds",
        "The members available and required show how much is missing.";
    ORDER_LIMIT "order-limit" UNPROCESSABLE_ENTITY "Order limit",
        "The detail names the limit: the minimum or maximum amount of an order, or the maximum amount of all orders in a day or a month.";
    AMOUNT_TOO_LARGE "amount-too-large" UNPROCESSABLE_ENTITY "Amount too large",
        "One transfer moves at most --max-amount, and no balance exceeds 2^53-1 minor units.";
    REFUND_TOO_LARGE "refund-too-large" UNPROCESSABLE_ENTITY "Refund too large",
        "All refunds of a transfer together cannot exceed its amount. The fee is not refunded.";
    CURRENCY_MISMATCH "currency-mismatch" UNPROCESSABLE_ENTITY "Currency mismatch",
        "Money can move only between wallets of the same currency. Exchange the money first.";
    IDEMPOTENCY_KEY_REUSED "idempotency-key-reused" UNPROCESSABLE_ENTITY "Idempotency key reused",
        "This key was used for a different request. Use a new key for each new request.";
    TOO_MANY_REQUESTS "too-many-requests" TOO_MANY_REQUESTS "Too many requests",
        "Wait as long as the header Retry-After says. Each further failure doubles the wait; a success ends the wait.",
        retry after 1 s;
    INTERNAL "internal" INTERNAL_SERVER_ERROR "Internal error",
        "This is a fault of the service. The operator finds its cause in the log under the trace_id.";
    UNREACHABLE "unreachable" BAD_GATEWAY "Service unreachable",
        "The request may have taken effect if the connection was lost after the service had received it. Repeat the request with the same Idempotency-Key: it takes effect only once.",
        retry after 1 s;
    TIMEOUT "timeout" SERVICE_UNAVAILABLE "Timeout",
        "The request may still take effect. Repeat it with the same Idempotency-Key: it takes effect only once.",
        retry after 1 s;
    OUTCOME_UNKNOWN "outcome-unknown" SERVICE_UNAVAILABLE "Outcome unknown",
        "The service lost its database, or the process that writes for it, before the outcome was known. Repeat the request with the same Idempotency-Key: it takes effect only once.",
        retry after 1 s;
    OVERLOADED "overloaded" SERVICE_UNAVAILABLE "Overloaded",
        "Wait as long as the header Retry-After says, then try again.",
        retry after 1 s;
    PRICE_UNAVAILABLE "price-unavailable" SERVICE_UNAVAILABLE "Price unavailable",
        "The external exchange does not respond. Wait as long as the header Retry-After says, then try again.",
        retry after 2 s;
    DATABASE_UNAVAILABLE "database-unavailable" SERVICE_UNAVAILABLE "Database unavailable",
        "Wait as long as the header Retry-After says, then try again. The service recovers as soon as its database does.",
        retry after 2 s;
    UNANSWERED "unanswered" GATEWAY_TIMEOUT "Gateway timeout",
        "The request may still take effect. Repeat it with the same Idempotency-Key: it takes effect only once.",
        retry after 1 s;
}

impl Error {
    /// Returns this error's entry in the problem table. The match has no wildcard, so the compiler demands an entry for
    /// every new variant.
    pub fn problem(&self) -> &'static Problem {
        match self {
            Self::NotFound(_) => &NOT_FOUND,
            Self::MethodNotAllowed(_) => &METHOD_NOT_ALLOWED,
            Self::UpgradeRequired => &UPGRADE_REQUIRED,
            Self::TooManySubscriptions(_) => &TOO_MANY_SUBSCRIPTIONS,
            Self::Unrecoverable { .. } => &UNRECOVERABLE,
            Self::Unauthenticated(_) => &UNAUTHENTICATED,
            Self::Forbidden | Self::ScopeMissing(_) | Self::UserRequired => &FORBIDDEN,
            Self::InvalidCredentials => &INVALID_CREDENTIALS,
            Self::NoToken => &NO_TOKEN,
            Self::UserNotFound => &USER_NOT_FOUND,
            Self::InvalidProfile(_) => &INVALID_PROFILE,
            Self::InvalidGame(_) => &INVALID_GAME,
            Self::Store(refusal) => refusal.problem(),
            Self::Exchange(refusal) => refusal.problem(),
            Self::TooManyRequests { .. } => &TOO_MANY_REQUESTS,
            Self::InsufficientFunds { .. } => &INSUFFICIENT_FUNDS,
            Self::AmountTooLarge { .. } => &AMOUNT_TOO_LARGE,
            Self::CurrencyMismatch => &CURRENCY_MISMATCH,
            Self::WalletFrozen => &WALLET_FROZEN,
            Self::WalletClosed => &WALLET_CLOSED,
            Self::WalletNotEmpty => &WALLET_NOT_EMPTY,
            Self::HoldEnded(_) => &HOLD_ENDED,
            Self::NotRefundable => &NOT_REFUNDABLE,
            Self::Archived { .. } => &ARCHIVED,
            Self::LeaderboardFixed(_) => &LEADERBOARD_FIXED,
            Self::SeasonOver => &SEASON_OVER,
            Self::RefundTooLarge { .. } => &REFUND_TOO_LARGE,
            Self::InBatch { error, .. } | Self::OfWallet { error, .. } => error.problem(),
            Self::IdempotencyKeyReused => &IDEMPOTENCY_KEY_REUSED,
            Self::OutcomeUnknown => &OUTCOME_UNKNOWN,
            Self::UnsupportedMediaType | Self::CompressedBody => &UNSUPPORTED_MEDIA_TYPE,
            Self::MalformedJson(_) => &MALFORMED_JSON,
            Self::BrokenBody => &BROKEN_BODY,
            Self::BodyTooLarge { .. } => &BODY_TOO_LARGE,
            Self::Invalid(_) => &INVALID,
            Self::Timeout(_) | Self::DeadlineExceeded(_) => &TIMEOUT,
            Self::Overloaded => &OVERLOADED,
            Self::Malformed => &MALFORMED_REQUEST,
            Self::Unreachable => &UNREACHABLE,
            Self::Unanswered => &UNANSWERED,
            Self::DatabaseUnavailable(_) => &DATABASE_UNAVAILABLE,
            Self::Internal(_) => &INTERNAL,
        }
    }
}

impl StoreRefusal {
    fn problem(&self) -> &'static Problem {
        match self {
            Self::GameNotFound => &GAME_NOT_FOUND,
            Self::NotForSale => &NOT_FOR_SALE,
            Self::AlreadyOwned => &GAME_OWNED,
            Self::SoldOut => &SOLD_OUT,
            Self::BaseGameMissing(_) => &BASE_GAME_MISSING,
            Self::PriceChanged { .. } => &PRICE_CHANGED,
            Self::GameFixed(_) => &GAME_FIXED,
            Self::RefundRefused(_) => &REFUND_REFUSED,
            Self::CodeInvalid(_) => &CODE_INVALID,
            Self::CodeUsedUp => &CODE_USED_UP,
            Self::CodeExists(_) => &CODE_EXISTS,
            Self::KeyNotFound => &KEY_NOT_FOUND,
            Self::KeyRedeemed => &KEY_REDEEMED,
            Self::NothingDue { .. } => &NOTHING_DUE,
            Self::PublisherExists => &PUBLISHER_EXISTS,
        }
    }
}

impl ExchangeRefusal {
    fn problem(&self) -> &'static Problem {
        match self {
            Self::QuoteEnded => &QUOTE_ENDED,
            Self::AmountTooSmall | Self::LimitReached { .. } | Self::BelowMinimum(_) => {
                &ORDER_LIMIT
            }
            Self::WalletsExist => &WALLETS_EXIST,
            Self::NameTaken(_) => &NAME_TAKEN,
            Self::OrderFixed(_) => &ORDER_FIXED,
            Self::PriceUnavailable => &PRICE_UNAVAILABLE,
        }
    }
}

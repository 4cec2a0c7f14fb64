//! Errors: every failure that a caller can see, in one enum and one table.
//!
//! `Display` is public text. The cause of [`Error::Internal`] is not: it is logged once, where the
//! response is written.

use std::time::Duration;

use http::StatusCode;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that a caller can see.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("this path does not support {0}")]
    MethodNotAllowed(http::Method),
    #[error("this path is for WebSocket connections")]
    UpgradeRequired,
    /// A client of the WebSocket asked for more than its connection may have.
    #[error("limit of {0} subscriptions of a connection reached")]
    TooManySubscriptions(usize),
    #[error("{reason}")]
    Unrecoverable {
        reason: &'static str,
        /// The current position.
        position: String,
    },
    #[error("sign in or send an API key")]
    Unauthenticated,
    #[error("this credential does not grant that permission")]
    Forbidden,
    #[error("the name or the password is wrong")]
    InvalidCredentials,
    #[error("send a token of this service in the body or in the header `Authorization`")]
    NoToken,
    #[error("there is no user with this id")]
    UserNotFound,
    #[error("{}", summary(.0))]
    InvalidProfile(Vec<FieldError>),
    #[error("too many attempts: wait {} s", whole_seconds(*.wait))]
    TooManyRequests { wait: Duration },
    #[error("{available} is available, {required} is required")]
    InsufficientFunds { available: String, required: String },
    #[error("{subject} exceeds the maximum of {limit}")]
    AmountTooLarge { subject: &'static str, limit: String },
    #[error("the wallets have different currencies")]
    CurrencyMismatch,
    #[error("the wallet is frozen")]
    WalletFrozen,
    #[error("the wallet is closed")]
    WalletClosed,
    #[error("the wallet still contains money")]
    WalletNotEmpty,
    #[error("the hold is already {0}")]
    HoldEnded(&'static str),
    #[error("this kind of transfer cannot be refunded")]
    NotRefundable,
    /// Another error, and the wallet that it is about.
    #[error("{error}: {}", place(*.wallet, .pointer.as_deref()))]
    OfWallet {
        wallet: i64,
        /// The member of the request that names the wallet.
        pointer: Option<String>,
        error: Box<Error>,
    },
    #[error("the leaderboard cannot be changed that way: {0}")]
    LeaderboardFixed(&'static str),
    #[error("the last season of the leaderboard is over")]
    SeasonOver,
    #[error("{left} is left to refund")]
    RefundTooLarge { left: String },
    #[error("transfer {}: {error}", .place + 1)]
    InBatch { place: usize, error: Box<Error> },
    #[error("this idempotency key was used for a different request")]
    IdempotencyKeyReused,
    #[error("the outcome is unknown: repeat the request with the same Idempotency-Key")]
    OutcomeUnknown,
    #[error("send the body as `Content-Type: application/json`")]
    UnsupportedMediaType,
    #[error("the body is not valid JSON: {0}")]
    MalformedJson(String),
    #[error("the body was not received completely")]
    BrokenBody,
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldError>),
    #[error(
        "the request took longer than {} and may still take effect: \
         repeat it with the same Idempotency-Key", humantime::format_duration(*.0)
    )]
    Timeout(Duration),
    /// The deadline that a client gave its call.
    #[error("the deadline of {} has passed", humantime::format_duration(*.0))]
    DeadlineExceeded(Duration),
    #[error("the service is overloaded: try again later")]
    Overloaded,
    /// Only nginx answers with this variant and the next two: `nginx/problems.conf`.
    #[error("the request is not valid HTTP")]
    Malformed,
    #[error(
        "the service cannot be reached, or the connection to it was lost before the response was complete"
    )]
    Unreachable,
    #[error("the service did not respond in time")]
    Unanswered,
    #[error("the database is unavailable")]
    DatabaseUnavailable(#[source] anyhow::Error),
    #[error("an unexpected error occurred")]
    Internal(#[source] anyhow::Error),
}

/// An invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Location of the field: a JSON pointer into the body, or `?name` for a query parameter.
    #[schema(example = "/amount")]
    pub pointer: String,
    /// Reason why the field is invalid.
    #[schema(example = "must be more than zero")]
    pub detail: String,
}

/// A kind of failure, as clients see it.
#[derive(Debug)]
pub struct Problem {
    pub slug: &'static str,
    pub title: &'static str,
    pub status: StatusCode,
    /// Advice to the client, shown on the problem's page.
    pub advice: &'static str,
    /// Delay after which a retry makes sense.
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

        /// Every kind of problem, in the order of their statuses.
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
    NO_TOKEN "no-token" BAD_REQUEST "No token",
        "Send the token from the response of the login, in the member token or in the header Authorization: Bearer.";
    UNAUTHENTICATED "unauthenticated" UNAUTHORIZED "Authentication required",
        "Send a credential in the header Authorization: Bearer.";
    INVALID_CREDENTIALS "invalid-credentials" UNAUTHORIZED "Invalid credentials",
        "Check the name and the password. After several failures each further attempt has to wait longer.";
    FORBIDDEN "forbidden" FORBIDDEN "Forbidden",
        "The resource belongs to another caller, or the operation requires a scope that this API key does not have. Only keys with wallet:write create money, and users where --self-service-funding is on.";
    USER_NOT_FOUND "user-not-found" NOT_FOUND "User not found",
        "Check the id.";
    NOT_FOUND "not-found" NOT_FOUND "Not found",
        "Check the path and the id. The routes are listed at /docs.";
    METHOD_NOT_ALLOWED "method-not-allowed" METHOD_NOT_ALLOWED "Method not allowed",
        "The header Allow lists the methods that this path supports.";
    WALLET_FROZEN "wallet-frozen" CONFLICT "Wallet frozen",
        "Money can come in but not go out until the wallet is unfrozen.";
    WALLET_CLOSED "wallet-closed" CONFLICT "Wallet closed",
        "A closed wallet stays closed. Open another one.";
    WALLET_NOT_EMPTY "wallet-not-empty" CONFLICT "Wallet not empty",
        "Move the money out and end the holds of the wallet before you close it.";
    HOLD_ENDED "hold-ended" CONFLICT "Hold ended",
        "A captured, voided or expired hold is final. Its transfers show where the money went.";
    NOT_REFUNDABLE "not-refundable" CONFLICT "Not refundable",
        "Only deposits, withdrawals, transfers and captures can be refunded. Void a hold instead; a refund is final.";
    LEADERBOARD_FIXED "leaderboard-fixed" CONFLICT "Leaderboard fixed",
        "Order and operator are fixed once there are entries, the prizes of a season when it starts. Create another leaderboard.";
    SEASON_OVER "season-over" CONFLICT "Season over",
        "The leaderboard takes no more scores. Give it a later ends_at, or a reset, and it goes on with a new season.";
    TOO_MANY_SUBSCRIPTIONS "too-many-subscriptions" CONFLICT "Too many subscriptions",
        "Unsubscribe from a topic first, or open another connection.";
    UNRECOVERABLE "unrecoverable" CONFLICT "Unrecoverable position",
        "The events after this position are not available. Read the current state, and continue from the position of that read.";
    BODY_TOO_LARGE "body-too-large" PAYLOAD_TOO_LARGE "Body too large",
        "Send less per request; the detail names the limit. POST /wallet/batch takes many transfers at once.";
    UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "Unsupported media type",
        "Send JSON with the header Content-Type: application/json.";
    INVALID "invalid" UNPROCESSABLE_ENTITY "Invalid request",
        "Each entry of errors names a field and the reason why it is invalid.";
    UPGRADE_REQUIRED "upgrade-required" UPGRADE_REQUIRED "Upgrade required",
        "Open this path with a WebSocket client.";
    INSUFFICIENT_FUNDS "insufficient-funds" UNPROCESSABLE_ENTITY "Insufficient funds",
        "The members available and required show how much is missing.";
    AMOUNT_TOO_LARGE "amount-too-large" UNPROCESSABLE_ENTITY "Amount too large",
        "One transfer moves at most --max-amount, and no balance exceeds 2^53-1 minor units.";
    REFUND_TOO_LARGE "refund-too-large" UNPROCESSABLE_ENTITY "Refund too large",
        "The refunds of a transfer together return at most what it moved; the fee is not refunded.";
    CURRENCY_MISMATCH "currency-mismatch" UNPROCESSABLE_ENTITY "Currency mismatch",
        "Money moves only between wallets of the same currency. Exchange it first.";
    IDEMPOTENCY_KEY_REUSED "idempotency-key-reused" UNPROCESSABLE_ENTITY "Idempotency key reused",
        "This key was used for a different request. Use a new key for each new request.";
    TOO_MANY_REQUESTS "too-many-requests" TOO_MANY_REQUESTS "Too many requests",
        "Wait as long as the header Retry-After says. Each further failure doubles the wait; a success ends it.",
        retry after 1 s;
    INTERNAL "internal" INTERNAL_SERVER_ERROR "Internal error",
        "This is a fault of the service. The operator finds its cause in the log under the trace_id.";
    UNREACHABLE "unreachable" BAD_GATEWAY "Service unreachable",
        "The request may have taken effect if the service was lost while it worked on it. Repeat it with the same Idempotency-Key: it takes effect once.",
        retry after 1 s;
    TIMEOUT "timeout" SERVICE_UNAVAILABLE "Timeout",
        "The request may still take effect. Repeat it with the same Idempotency-Key: it takes effect once.",
        retry after 1 s;
    OUTCOME_UNKNOWN "outcome-unknown" SERVICE_UNAVAILABLE "Outcome unknown",
        "The service lost its database before the outcome was known. Repeat the request with the same Idempotency-Key: it takes effect once.",
        retry after 1 s;
    OVERLOADED "overloaded" SERVICE_UNAVAILABLE "Overloaded",
        "Wait as long as the header Retry-After says, then try again.",
        retry after 1 s;
    DATABASE_UNAVAILABLE "database-unavailable" SERVICE_UNAVAILABLE "Database unavailable",
        "Wait as long as the header Retry-After says, then try again. The service recovers as soon as its database does.",
        retry after 2 s;
    UNANSWERED "unanswered" GATEWAY_TIMEOUT "Gateway timeout",
        "The request may still take effect. Repeat it with the same Idempotency-Key: it takes effect once.",
        retry after 1 s;
}

impl Error {
    /// The problem of each variant. There is no wildcard, so that a new variant must choose.
    pub fn problem(&self) -> &'static Problem {
        match self {
            Self::NotFound(_) => &NOT_FOUND,
            Self::MethodNotAllowed(_) => &METHOD_NOT_ALLOWED,
            Self::UpgradeRequired => &UPGRADE_REQUIRED,
            Self::TooManySubscriptions(_) => &TOO_MANY_SUBSCRIPTIONS,
            Self::Unrecoverable { .. } => &UNRECOVERABLE,
            Self::Unauthenticated => &UNAUTHENTICATED,
            Self::Forbidden => &FORBIDDEN,
            Self::InvalidCredentials => &INVALID_CREDENTIALS,
            Self::NoToken => &NO_TOKEN,
            Self::UserNotFound => &USER_NOT_FOUND,
            Self::InvalidProfile(_) => &INVALID_PROFILE,
            Self::TooManyRequests { .. } => &TOO_MANY_REQUESTS,
            Self::InsufficientFunds { .. } => &INSUFFICIENT_FUNDS,
            Self::AmountTooLarge { .. } => &AMOUNT_TOO_LARGE,
            Self::CurrencyMismatch => &CURRENCY_MISMATCH,
            Self::WalletFrozen => &WALLET_FROZEN,
            Self::WalletClosed => &WALLET_CLOSED,
            Self::WalletNotEmpty => &WALLET_NOT_EMPTY,
            Self::HoldEnded(_) => &HOLD_ENDED,
            Self::NotRefundable => &NOT_REFUNDABLE,
            Self::LeaderboardFixed(_) => &LEADERBOARD_FIXED,
            Self::SeasonOver => &SEASON_OVER,
            Self::RefundTooLarge { .. } => &REFUND_TOO_LARGE,
            Self::InBatch { error, .. } | Self::OfWallet { error, .. } => error.problem(),
            Self::IdempotencyKeyReused => &IDEMPOTENCY_KEY_REUSED,
            Self::OutcomeUnknown => &OUTCOME_UNKNOWN,
            Self::UnsupportedMediaType => &UNSUPPORTED_MEDIA_TYPE,
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

    /// Delay after which a retry makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { wait } => Some(Duration::from_secs(whole_seconds(*wait))),
            _ => self.problem().retry_after,
        }
    }

    /// The internal cause, for the log only.
    pub fn cause(&self) -> Option<&anyhow::Error> {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => Some(cause),
            Self::InBatch { error, .. } | Self::OfWallet { error, .. } => error.cause(),
            _ => None,
        }
    }

    /// The internal cause, for the operator; the public text if there is none.
    pub fn into_cause(self) -> anyhow::Error {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => cause,
            other => anyhow::Error::msg(other.to_string()),
        }
    }

    /// The error of a single invalid field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }
}

impl Error {
    /// Adds the wallet that this error is about.
    #[must_use]
    pub fn of_wallet(self, wallet: i64) -> Self {
        Self::OfWallet { wallet, pointer: None, error: Box::new(self) }
    }

    /// Adds the member of the request that names the wallet, unless it is known already.
    #[must_use]
    pub fn with_pointer(self, pointer_of: impl FnOnce(i64) -> Option<String>) -> Self {
        match self {
            Self::OfWallet { wallet, pointer: None, error } => {
                Self::OfWallet { wallet, pointer: pointer_of(wallet), error }
            }
            other => other,
        }
    }
}

fn place(wallet: i64, pointer: Option<&str>) -> String {
    match pointer {
        Some(pointer) => format!("wallet {wallet}, {pointer}"),
        None => format!("wallet {wallet}"),
    }
}

/// Rounds up, so that a client that waits this long has waited long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

fn summary(fields: &[FieldError]) -> String {
    match fields {
        [only] if only.pointer.is_empty() => format!("the body {}", only.detail),
        [only] => format!("{}: {}", only.pointer, only.detail),
        _ => format!("{} fields are not valid", fields.len()),
    }
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        let is_unavailable = match &cause {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(database) => {
                database.code().is_some_and(|code| is_unavailable_sqlstate(&code))
            }
            _ => false,
        };
        let cause = anyhow::Error::new(cause);
        if is_unavailable { Self::DatabaseUnavailable(cause) } else { Self::Internal(cause) }
    }
}

/// Whether a SQLSTATE means that the server is starting, stopping, out of resources or read-only: a retry can succeed.
fn is_unavailable_sqlstate(code: &str) -> bool {
    // 08: connection; 53: disk, memory or connections used up; 57P: shut down; 25006: read-only.
    code.starts_with("08") || code.starts_with("53") || code.starts_with("57P") || code == "25006"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique() {
        let mut slugs: Vec<_> = PROBLEMS.iter().map(|problem| problem.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();

        assert_eq!(slugs.len(), PROBLEMS.len());
    }

    #[test]
    fn temporary_problems_have_retry_after() {
        for problem in PROBLEMS {
            let status = problem.status.as_u16();
            let temporary = status == 429 || (502..=504).contains(&status);
            assert_eq!(problem.retry_after.is_some(), temporary, "{}", problem.slug);
        }
    }

    #[test]
    fn an_internal_cause_is_not_in_the_public_text() {
        let error = Error::Internal(anyhow::anyhow!("password of the database"));

        assert!(!error.to_string().contains("password"));
    }
}

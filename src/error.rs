//! What can go wrong, and what a caller is told about it.
//!
//! One enum for the whole program. `Display` is public text, the cause of [`Error::Internal`]
//! is not: it goes into the log, once, at the edge that answers.

use std::time::Duration;

use http::StatusCode;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("this path does not answer {0}")]
    MethodNotAllowed(http::Method),
    #[error("sign in, or bring an API key")]
    Unauthenticated,
    #[error("this credential is not good for that")]
    Forbidden,
    #[error("the name or the password is wrong")]
    InvalidCredentials,
    #[error("there is no token of ours in the body or the header `Authorization`")]
    NoToken,
    #[error("nobody has this id")]
    UserNotFound,
    #[error("{}", summary(.0))]
    InvalidProfile(Vec<FieldError>),
    #[error("too many attempts: wait {} s", whole_seconds(*.wait))]
    TooManyRequests { wait: Duration },
    #[error("{available} is available, {required} is required")]
    InsufficientFunds { available: String, required: String },
    #[error("the amount, or the balance after it, is larger than is allowed here")]
    AmountTooLarge,
    #[error("the wallets have different currencies")]
    CurrencyMismatch,
    #[error("the wallet is frozen")]
    WalletFrozen,
    #[error("the wallet is closed")]
    WalletClosed,
    #[error("the wallet still holds money")]
    WalletNotEmpty,
    #[error("the hold has {0}")]
    HoldEnded(&'static str),
    #[error("this kind of transfer cannot be refunded")]
    NotRefundable,
    #[error("{left} is left to refund")]
    RefundTooLarge { left: String },
    #[error("transfer {}: {error}", .place + 1)]
    InBatch { place: usize, error: Box<Error> },
    #[error("this idempotency key belongs to a different request")]
    IdempotencyKeyReused,
    #[error("it is not known yet whether this was done: repeat it with the same Idempotency-Key")]
    OutcomeUnknown,
    #[error("send the body as `Content-Type: application/json`")]
    UnsupportedMediaType,
    #[error("the body is not valid JSON: {0}")]
    MalformedJson(String),
    #[error("the body did not arrive whole")]
    BrokenBody,
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("{}", summary(.0))]
    Invalid(Vec<FieldError>),
    #[error(
        "the answer took longer than {} s; the request may still take effect: \
         repeat it with the same Idempotency-Key", .0.as_secs()
    )]
    Timeout(Duration),
    #[error("more requests are waiting than can be served soon")]
    Overloaded,
    /// The edge says this one and the two below it, in our name: `nginx/problems.conf`.
    #[error("the request is not HTTP as it should be")]
    Malformed,
    #[error("the service cannot be reached, or was lost before its answer was whole")]
    Unreachable,
    #[error("the service did not answer in time")]
    Unanswered,
    #[error("the database does not answer")]
    DatabaseUnavailable(#[source] anyhow::Error),
    #[error("something went wrong on our side")]
    Internal(#[source] anyhow::Error),
}

/// One broken field of a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where: a JSON pointer into the body, or `?name` for a query parameter.
    #[schema(example = "/amount")]
    pub pointer: String,
    /// What is wrong with it.
    #[schema(example = "must be more than zero")]
    pub detail: String,
}

/// One row of the contract: what every failure of a kind has in common.
#[derive(Debug)]
pub struct Problem {
    pub slug: &'static str,
    pub title: &'static str,
    pub status: StatusCode,
    /// What the caller can do about it; shown on the problem's page.
    pub advice: &'static str,
    /// When a repetition makes sense.
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

        /// All of them, in the order of their status.
        pub static PROBLEMS: &[&Problem] = &[$(&$constant),+];
    };
    (@retry $seconds:literal) => { Some(Duration::from_secs($seconds)) };
    (@retry) => { None };
}

problems! {
    MALFORMED_JSON "malformed-json" BAD_REQUEST "Malformed JSON",
        "Check the body with a JSON parser; the detail names the line and column.";
    MALFORMED_REQUEST "malformed-request" BAD_REQUEST "Malformed request",
        "Its first line, a header or a length is wrong or too long: look at what your client really sends.";
    BROKEN_BODY "broken-body" BAD_REQUEST "Broken body",
        "The connection ended, or the transfer encoding was wrong, before the whole body was here. Send it again.";
    INVALID_PROFILE "invalid-profile" BAD_REQUEST "Invalid profile",
        "Each entry of errors names a field and what is wrong with it, or that it is taken.";
    NO_TOKEN "no-token" BAD_REQUEST "No token",
        "Send the token that the login has answered, as the member token or in the header Authorization: Bearer.";
    UNAUTHENTICATED "unauthenticated" UNAUTHORIZED "Sign in first",
        "Send a credential in the header Authorization: Bearer.";
    INVALID_CREDENTIALS "invalid-credentials" UNAUTHORIZED "Invalid credentials",
        "Check the name and the password. After several failures one has to wait, each time longer.";
    FORBIDDEN "forbidden" FORBIDDEN "Forbidden",
        "It belongs to somebody else, or asks for an API key with a scope that this one does not have. Money is created by keys with wallet:write, or by users where --self-service-funding is on.";
    USER_NOT_FOUND "user-not-found" NOT_FOUND "User not found",
        "Check the id.";
    NOT_FOUND "not-found" NOT_FOUND "Not found",
        "Check the path and the id. The routes are listed at /docs.";
    METHOD_NOT_ALLOWED "method-not-allowed" METHOD_NOT_ALLOWED "Method not allowed",
        "The header Allow lists the methods that this path answers.";
    WALLET_FROZEN "wallet-frozen" CONFLICT "Wallet frozen",
        "Money may come in but not go out until the wallet is unfrozen.";
    WALLET_CLOSED "wallet-closed" CONFLICT "Wallet closed",
        "A closed wallet stays closed; open another.";
    WALLET_NOT_EMPTY "wallet-not-empty" CONFLICT "Wallet not empty",
        "Move the money out, and end its holds, before you close the wallet.";
    HOLD_ENDED "hold-ended" CONFLICT "Hold ended",
        "A hold that was captured, voided or has expired stays so; its transfers tell what became of the money.";
    NOT_REFUNDABLE "not-refundable" CONFLICT "Not refundable",
        "Deposits, withdrawals, transfers and captures are refunded. A hold is voided instead; a refund is not undone.";
    BODY_TOO_LARGE "body-too-large" PAYLOAD_TOO_LARGE "Body too large",
        "Send less at once: the detail names the limit. Many transfers fit into one POST /wallet/batch.";
    UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" UNSUPPORTED_MEDIA_TYPE "Unsupported media type",
        "Send JSON, and say so with the header Content-Type: application/json.";
    INVALID "invalid" UNPROCESSABLE_ENTITY "Invalid request",
        "Each entry of errors names a field and what is wrong with it.";
    INSUFFICIENT_FUNDS "insufficient-funds" UNPROCESSABLE_ENTITY "Insufficient funds",
        "The members available and required say how much is missing.";
    AMOUNT_TOO_LARGE "amount-too-large" UNPROCESSABLE_ENTITY "Amount too large",
        "One transfer moves at most --max-amount, and no balance exceeds 2^53-1 minor units.";
    REFUND_TOO_LARGE "refund-too-large" UNPROCESSABLE_ENTITY "Refund too large",
        "All refunds of a transfer together return at most what it moved; its fee is not returned.";
    CURRENCY_MISMATCH "currency-mismatch" UNPROCESSABLE_ENTITY "Currency mismatch",
        "Money moves between wallets of one currency; change it at the exchange first.";
    IDEMPOTENCY_KEY_REUSED "idempotency-key-reused" UNPROCESSABLE_ENTITY "Idempotency key reused",
        "This key was used for another request. Use a new key for a new request.";
    TOO_MANY_REQUESTS "too-many-requests" TOO_MANY_REQUESTS "Too many requests",
        "Wait as long as the header Retry-After says. Each further failure doubles the wait; success ends it.",
        retry after 1 s;
    INTERNAL "internal" INTERNAL_SERVER_ERROR "Internal error",
        "This is our fault. The operator finds the cause in the log by the trace_id.";
    UNREACHABLE "unreachable" BAD_GATEWAY "Unreachable",
        "The request may have taken effect, if the service was lost while it worked. Repeat it with the same Idempotency-Key: it is then done once.",
        retry after 1 s;
    TIMEOUT "timeout" SERVICE_UNAVAILABLE "Timeout",
        "The request may still take effect. Repeat it with the same Idempotency-Key: it is then done once.",
        retry after 1 s;
    OUTCOME_UNKNOWN "outcome-unknown" SERVICE_UNAVAILABLE "Outcome unknown",
        "The service lost its database before it could tell. Repeat the request with the same Idempotency-Key: it is then done once.",
        retry after 1 s;
    OVERLOADED "overloaded" SERVICE_UNAVAILABLE "Overloaded",
        "Wait as long as the header Retry-After says, then try again.",
        retry after 1 s;
    DATABASE_UNAVAILABLE "database-unavailable" SERVICE_UNAVAILABLE "Database unavailable",
        "Wait as long as the header Retry-After says, then try again. The service recovers by itself when its database does.",
        retry after 2 s;
    UNANSWERED "unanswered" GATEWAY_TIMEOUT "Unanswered",
        "The request may still take effect. Repeat it with the same Idempotency-Key: it is then done once.",
        retry after 1 s;
}

impl Error {
    /// The contract in one table. No wildcard: a new variant must choose.
    pub fn problem(&self) -> &'static Problem {
        match self {
            Self::NotFound(_) => &NOT_FOUND,
            Self::MethodNotAllowed(_) => &METHOD_NOT_ALLOWED,
            Self::Unauthenticated => &UNAUTHENTICATED,
            Self::Forbidden => &FORBIDDEN,
            Self::InvalidCredentials => &INVALID_CREDENTIALS,
            Self::NoToken => &NO_TOKEN,
            Self::UserNotFound => &USER_NOT_FOUND,
            Self::InvalidProfile(_) => &INVALID_PROFILE,
            Self::TooManyRequests { .. } => &TOO_MANY_REQUESTS,
            Self::InsufficientFunds { .. } => &INSUFFICIENT_FUNDS,
            Self::AmountTooLarge => &AMOUNT_TOO_LARGE,
            Self::CurrencyMismatch => &CURRENCY_MISMATCH,
            Self::WalletFrozen => &WALLET_FROZEN,
            Self::WalletClosed => &WALLET_CLOSED,
            Self::WalletNotEmpty => &WALLET_NOT_EMPTY,
            Self::HoldEnded(_) => &HOLD_ENDED,
            Self::NotRefundable => &NOT_REFUNDABLE,
            Self::RefundTooLarge { .. } => &REFUND_TOO_LARGE,
            Self::InBatch { error, .. } => error.problem(),
            Self::IdempotencyKeyReused => &IDEMPOTENCY_KEY_REUSED,
            Self::OutcomeUnknown => &OUTCOME_UNKNOWN,
            Self::UnsupportedMediaType => &UNSUPPORTED_MEDIA_TYPE,
            Self::MalformedJson(_) => &MALFORMED_JSON,
            Self::BrokenBody => &BROKEN_BODY,
            Self::BodyTooLarge { .. } => &BODY_TOO_LARGE,
            Self::Invalid(_) => &INVALID,
            Self::Timeout(_) => &TIMEOUT,
            Self::Overloaded => &OVERLOADED,
            Self::Malformed => &MALFORMED_REQUEST,
            Self::Unreachable => &UNREACHABLE,
            Self::Unanswered => &UNANSWERED,
            Self::DatabaseUnavailable(_) => &DATABASE_UNAVAILABLE,
            Self::Internal(_) => &INTERNAL,
        }
    }

    /// When a repetition makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { wait } => Some(Duration::from_secs(whole_seconds(*wait))),
            _ => self.problem().retry_after,
        }
    }

    /// What only the log may know.
    pub fn cause(&self) -> Option<&anyhow::Error> {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => Some(cause),
            Self::InBatch { error, .. } => error.cause(),
            _ => None,
        }
    }

    /// The cause, for whoever runs the program; the public text where there is none.
    pub fn into_cause(self) -> anyhow::Error {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => cause,
            other => anyhow::Error::msg(other.to_string()),
        }
    }

    /// One field is wrong.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }
}

/// Not less, so that whoever waits this long has waited long enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

fn summary(fields: &[FieldError]) -> String {
    match fields {
        [only] => format!("{}: {}", only.pointer, only.detail),
        _ => format!("{} fields are not valid", fields.len()),
    }
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        let gone = match &cause {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::WorkerCrashed => true,
            sqlx::Error::Database(database) => {
                database.code().is_some_and(|code| means_unavailable(&code))
            }
            _ => false,
        };
        let cause = anyhow::Error::new(cause);
        if gone { Self::DatabaseUnavailable(cause) } else { Self::Internal(cause) }
    }
}

/// SQLSTATEs of a server that goes, comes, is full, or only reads: it will be different later.
pub fn means_unavailable(code: &str) -> bool {
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
    fn whatever_is_temporary_says_when_to_come_back() {
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

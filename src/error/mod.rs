//! Errors: an enum of every failure that a client can see, and a table with the HTTP status, title and advice of each
//! failure.
//!
//! Clients see the text of `Display`. The cause of an [`Error::Internal`] is not shown to the client, but logged when
//! the response is written.

mod exchange;
mod problems;
mod store;

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::exchange::ExchangeRefusal;
pub use self::problems::{PROBLEMS, Problem};
pub use self::store::StoreRefusal;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure that is shown to a client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("this path does not support {0}")]
    MethodNotAllowed(http::Method),
    #[error("this path is for WebSocket connections")]
    UpgradeRequired,
    /// A WebSocket client asked for more subscriptions than a connection may have.
    #[error("limit of {0} subscriptions per connection reached")]
    TooManySubscriptions(usize),
    #[error("{reason}")]
    Unrecoverable {
        reason: &'static str,
        /// The current position of the ledger, as in the `Book-Position` header.
        position: String,
    },
    #[error("{0}")]
    Unauthenticated(CredentialFault),
    #[error("this credential does not grant that permission")]
    Forbidden,
    #[error("this needs the scope `{0}`, which the credential does not have")]
    ScopeMissing(&'static str),
    #[error("only a signed-in user can do this, and the credential is an API key")]
    UserRequired,
    #[error("the name or the password is wrong")]
    InvalidCredentials,
    #[error("send a token of this service in the body or in the `Authorization` header")]
    NoToken,
    #[error("there is no user with this id")]
    UserNotFound,
    #[error("{}", summary(.0))]
    InvalidProfile(Vec<FieldError>),
    #[error("{}", summary(.0))]
    InvalidGame(Vec<FieldError>),
    #[error("{0}")]
    Store(StoreRefusal),
    #[error("{0}")]
    Exchange(ExchangeRefusal),
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
    #[error("the transfers up to {} are archived", moment(*.until))]
    Archived { until: OffsetDateTime },
    /// An error, and the wallet that it concerns.
    #[error("{error}: {}", place(*.wallet, .pointer.as_deref()))]
    OfWallet {
        wallet: i64,
        /// JSON pointer to the member of the request body that names the wallet.
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
    #[error("send the body without compression")]
    CompressedBody,
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
    /// The deadline that a gRPC client sent with its call has passed.
    #[error("the deadline of {} has passed", humantime::format_duration(*.0))]
    DeadlineExceeded(Duration),
    #[error("the service is overloaded: try again later")]
    Overloaded,
    /// Error for a request head that cannot be parsed. Both the HTTP listener and nginx (`nginx/problems.conf`) send
    /// it.
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

/// Reason why the credential of a request is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    #[error("sign in or send an API key")]
    Missing,
    #[error("send one credential, as `Authorization: Bearer <credential>`")]
    Malformed,
    /// The credential is unknown or was revoked. Clients see the same error in both cases.
    #[error("the credential is wrong, or was revoked")]
    Invalid,
    #[error("the token has expired: sign in again")]
    Expired,
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

impl Error {
    /// Returns the time after which the client can retry.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyRequests { wait } => Some(Duration::from_secs(whole_seconds(*wait))),
            _ => self.problem().retry_after,
        }
    }

    /// Returns the internal cause. It is only for the log, and must not be sent to clients.
    pub fn cause(&self) -> Option<&anyhow::Error> {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => Some(cause),
            Self::InBatch { error, .. } | Self::OfWallet { error, .. } => error.cause(),
            _ => None,
        }
    }

    /// Returns the internal cause for the operator, or the public text if the error has no internal cause.
    pub fn into_cause(self) -> anyhow::Error {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => cause,
            other => anyhow::Error::msg(other.to_string()),
        }
    }

    /// Creates the error for a request with one invalid field.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError { pointer: pointer.into(), detail: detail.into() }])
    }
}

impl Error {
    /// Adds the id of the wallet that this error concerns.
    #[must_use]
    pub fn of_wallet(self, wallet: i64) -> Self {
        Self::OfWallet { wallet, pointer: None, error: Box::new(self) }
    }

    /// Adds the JSON pointer to the member of the request that names the wallet, if this error concerns a wallet and
    /// has no pointer yet.
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

fn moment(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// Converts a wait to whole seconds, rounded up, so that a client that waits this long does not retry too early.
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

impl From<StoreRefusal> for Error {
    fn from(refusal: StoreRefusal) -> Self {
        Self::Store(refusal)
    }
}

impl From<ExchangeRefusal> for Error {
    fn from(refusal: ExchangeRefusal) -> Self {
        Self::Exchange(refusal)
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

/// Whether a SQLSTATE (the code of a database error) means that a retry can succeed: the database is starting,
/// stopping, out of resources or read-only, or a replica has canceled a read that blocked its replay of the write-ahead
/// log.
fn is_unavailable_sqlstate(code: &str) -> bool {
    // 08: connection lost; 53: out of disk, memory or connections; 57P: shut down; 25006: read-only; 40001: canceled by
    // a replica.
    ["08", "53", "57P"].iter().any(|class| code.starts_with(class))
        || ["25006", "40001"].contains(&code)
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

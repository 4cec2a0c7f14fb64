//! Interpretation of the database's replies to a batch: whether the batch was committed, and if not, why.

use time::OffsetDateTime;
use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::batch::Batch;
use super::pipeline::{Replies, ReplyLayout, next_seal, sealed_at};
use crate::ledger::companion::CompanionKind;
use crate::ledger::transfer::Posting;

/// The constraint that keeps idempotency keys unique.
const KEY_CONSTRAINT: &str = "posting_key";

/// Error code of `ledger.post`: the batch names a predecessor that another batch already follows.
const STALE_HEAD: &str = "RW001";

/// Error code of `ledger.all_took`: some companions (rows of other modules) did not take effect.
const COMPANION_REFUSED: &str = "RW002";

/// Outcome of a batch.
#[derive(Debug)]
pub(super) enum BatchVerdict {
    /// The batch was committed at this time.
    Sealed(OffsetDateTime),
    /// Another process committed a batch first, so this batch was not written and never will be.
    Stale,
    /// An idempotency key of the batch was used before. Nothing was written.
    KeyTaken,
    /// Companions (rows of other modules) of some postings did not take effect. Contains the index and the refusal text
    /// of each of these postings. Nothing was written.
    CompanionsRefused(Vec<(usize, &'static str)>),
    /// The server cannot write now. Nothing was written.
    Unavailable(Error),
    /// The server rejects the batch because of a bug, in one of its postings or in this program. Nothing was written.
    Faulty(Error),
    /// The batch was resent, and it is not known whether an earlier attempt succeeded.
    Unsettled(Error),
}

impl BatchVerdict {
    /// The label value of this verdict in metrics.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Sealed(_) => "sealed",
            Self::Stale => "stale",
            Self::KeyTaken => "key_taken",
            Self::CompanionsRefused(_) => "companion",
            Self::Unavailable(_) => "unavailable",
            Self::Faulty(_) => "faulty",
            Self::Unsettled(_) => "unsettled",
        }
    }

    /// The error that the database returned, if any.
    pub(super) const fn error(&self) -> Option<&Error> {
        match self {
            Self::Sealed(_) | Self::Stale | Self::KeyTaken | Self::CompanionsRefused(_) => None,
            Self::Unavailable(error) | Self::Faulty(error) | Self::Unsettled(error) => Some(error),
        }
    }

    /// Classifies the replies to a batch. Because the connection did not break, each reply is a result or an ordinary
    /// error. If the batch was resent, an earlier attempt may have written it, whatever error this attempt caused.
    pub(super) fn from_replies(batch: &Batch, layout: &ReplyLayout, mut replies: Replies) -> Self {
        let earlier_attempt = layout.next_seal.map(|index| replies.remove(index)).transpose();
        let failed = replies.iter().position(Result::is_err);
        if failed.is_none()
            && let Some(at) = replies[layout.post].as_deref().ok().and_then(sealed_at)
        {
            return Self::Sealed(at);
        }
        match earlier_attempt {
            Err(error) => return Self::Unsettled(error),
            Ok(rows) => {
                if let Some((id, at)) = rows.as_deref().and_then(next_seal)
                    && id == batch.id
                {
                    return Self::Sealed(at);
                }
            }
        }
        let Some(index) = failed else { return Self::Stale };
        let error = replies.swap_remove(index).expect_err("this is the first error");
        let kind = index.checked_sub(layout.post + 1).and_then(|n| layout.kinds.get(n).copied());
        let postings: Vec<&Posting> =
            batch.accepted.iter().map(|accepted| &accepted.item.posting).collect();
        Self::from_error(error, kind, &postings)
    }

    /// Classifies an error of a single statement. `kind` is the kind of companions (rows of another module) that the
    /// statement wrote; `None` if it wrote transfers.
    pub(super) fn from_error(
        error: Error,
        kind: Option<&'static CompanionKind>,
        postings: &[&Posting],
    ) -> Self {
        let Some(db) = error.as_db_error() else { return Self::Faulty(error) };
        match db.code().code() {
            STALE_HEAD => Self::Stale,
            COMPANION_REFUSED => {
                let detail = db.detail().unwrap_or_default();
                let refused = kind.map(|kind| refused_companions(postings, kind, detail));
                refused
                    .filter(|refused| !refused.is_empty())
                    .map_or(Self::Faulty(error), Self::CompanionsRefused)
            }
            _ if is_key_taken(db) => Self::KeyTaken,
            code if is_transient(code) || is_worker_lost(db) => Self::Unavailable(error),
            _ => Self::Faulty(error),
        }
    }
}

/// Finds the postings whose companions did not take effect. The detail of the database's error lists the numbers of
/// these companions, such as `0,3`.
fn refused_companions(
    postings: &[&Posting],
    kind: &CompanionKind,
    detail: &str,
) -> Vec<(usize, &'static str)> {
    let numbers: Vec<usize> =
        detail.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    let companions = postings.iter().enumerate().flat_map(|(index, posting)| {
        let of_kind = posting.companions.iter().filter(|companion| companion.kind == kind);
        of_kind.map(move |companion| (index, companion.refusal))
    });
    let mut refused: Vec<_> = companions
        .enumerate()
        .filter(|(number, _)| numbers.contains(number))
        .map(|(_, posting)| posting)
        .collect();
    refused.dedup_by_key(|(index, _)| *index);
    refused
}

/// Returns whether an idempotency key was inserted a second time. For an error on another server, Citus passes on only
/// the message, in which the shard number follows the constraint name.
fn is_key_taken(error: &DbError) -> bool {
    let is_passed_on =
        *error.code() == SqlState::INTERNAL_ERROR && error.message().contains("\"posting_key_");
    let is_violation =
        *error.code() == SqlState::UNIQUE_VIOLATION && error.constraint() == Some(KEY_CONSTRAINT);
    is_violation || is_passed_on
}

/// Returns whether the coordinator of a Citus cluster lost its connection to the server of the book, for which it has no
/// error code of its own. The transaction has no effect then: it would be committed in two phases, and the coordinator
/// has not committed it.
fn is_worker_lost(error: &DbError) -> bool {
    const MESSAGES: [&str; 4] = [
        "failure on connection",
        "server closed the connection",
        "connection to the remote node",
        "SSL SYSCALL error",
    ];
    *error.code() == SqlState::INTERNAL_ERROR
        && MESSAGES.iter().any(|message| error.message().contains(message))
}

/// Returns whether the state of the server caused the error, not the request: for example, the disk or the memory is
/// full, the server is shutting down or is read-only, a lock timed out, or a server of the Citus cluster cannot be
/// reached.
fn is_transient(code: &str) -> bool {
    const CLASSES: [&str; 6] = ["08", "40", "53", "55", "57", "58"];
    const READ_ONLY: &str = "25006";
    // An earlier request in the transaction that holds the book's lock has failed.
    const ABORTED_TRANSACTION: &str = "25P02";
    // A malformed statement, although the code is in the class of broken connections.
    const PROTOCOL_VIOLATION: &str = "08P01";
    matches!(code, READ_ONLY | ABORTED_TRANSACTION)
        || code != PROTOCOL_VIOLATION && CLASSES.iter().any(|class| code.starts_with(class))
}

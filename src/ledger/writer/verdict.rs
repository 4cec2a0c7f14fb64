//! What the database's answers to a batch mean.

use time::OffsetDateTime;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::batch::Batch;
use super::pipeline::{Layout, Replies, seal_behind, sealed_at};
use crate::ledger::companion::CompanionKind;

/// The constraint that keeps idempotency keys unique.
const KEY_CONSTRAINT: &str = "posting_key";

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is in the book.
    Sealed(OffsetDateTime),
    /// Another process has sealed the head it stood on. It is not, and never will be, in the book.
    Stale,
    /// One of its keys is in the book. Nothing was written.
    KeyTaken,
    /// These postings (by place) had companions that did not take effect. Nothing was written.
    Missed(Vec<(usize, &'static str)>),
    /// The server cannot write now. Nothing was written.
    Unavailable(Error),
    /// A fault in one of its postings, or in this program. Nothing was written.
    Faulty(Error),
}

impl Verdict {
    /// For the metric's label.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Sealed(_) => "sealed",
            Self::Stale => "stale",
            Self::KeyTaken => "key_taken",
            Self::Missed(_) => "companion",
            Self::Unavailable(_) => "unavailable",
            Self::Faulty(_) => "faulty",
        }
    }
}

/// Judges the replies to a batch. The connection held: each of them is an answer or an ordinary error.
pub(super) fn judge(batch: &Batch, layout: &Layout, mut replies: Replies) -> Verdict {
    let behind = layout.behind.map(|place| replies.remove(place));
    let Some(place) = replies.iter().position(Result::is_err) else {
        let rows = replies[layout.post].as_ref().expect("no reply is an error");
        return sealed_at(rows).map_or_else(|| stale(batch, behind), Verdict::Sealed);
    };
    let error = replies.swap_remove(place).expect_err("this is the first error");
    let Some(db) = error.as_db_error() else { return Verdict::Faulty(error) };
    match db.code().code() {
        "RW001" => stale(batch, behind),
        "RW002" => {
            let kind = place.checked_sub(layout.post + 1).and_then(|n| layout.kinds.get(n));
            let missed = kind.map(|kind| missed(batch, kind, db.detail().unwrap_or_default()));
            missed
                .filter(|missed| !missed.is_empty())
                .map_or(Verdict::Faulty(error), Verdict::Missed)
        }
        _ if *db.code() == SqlState::UNIQUE_VIOLATION
            && db.constraint() == Some(KEY_CONSTRAINT) =>
        {
            Verdict::KeyTaken
        }
        code if is_passing(code) => Verdict::Unavailable(error),
        _ => Verdict::Faulty(error),
    }
}

/// Of two attempts of the same batch, the other one may have won.
fn stale(batch: &Batch, behind: Option<Result<Vec<tokio_postgres::Row>, Error>>) -> Verdict {
    match behind.and_then(Result::ok).as_deref().and_then(seal_behind) {
        Some((id, at)) if id == batch.id => Verdict::Sealed(at),
        _ => Verdict::Stale,
    }
}

/// The postings whose rows are missing, from the detail of the error: `0,3`.
fn missed(batch: &Batch, kind: &CompanionKind, detail: &str) -> Vec<(usize, &'static str)> {
    let numbers: Vec<usize> =
        detail.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    let companions = batch.accepted.iter().enumerate().flat_map(|(place, accepted)| {
        let of_kind =
            accepted.item.posting.companions.iter().filter(|companion| companion.kind == kind);
        of_kind.map(move |companion| (place, companion.refusal))
    });
    let mut missed: Vec<_> = companions
        .enumerate()
        .filter(|(number, _)| numbers.contains(number))
        .map(|(_, posting)| posting)
        .collect();
    missed.dedup_by_key(|(place, _)| *place);
    missed
}

/// Whether an error is about the server's condition, not about what was asked:
/// no disk, no memory, shutting down, a lock that did not come, read-only.
fn is_passing(code: &str) -> bool {
    const CLASSES: [&str; 5] = ["40", "53", "55", "57", "58"];
    code == "25006" || CLASSES.iter().any(|class| code.starts_with(class))
}

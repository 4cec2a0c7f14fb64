//! The spans of a posting and of the batch that it travels in: two traces, each with a link to the other.

use tracing::{Span, field, info_span};

use super::transfer::Posting;
use crate::telemetry::{TraceIds, begin_kept, is_traced, link};

/// From the queue to the answer; nothing where the trace of the request is not kept.
pub(super) fn of_posting(posting: &Posting) -> Span {
    if !is_traced() {
        return Span::none();
    }
    info_span!("ledger.post", ledger.legs = posting.legs.len())
}

/// From the decision to the commit; nothing where none of its postings is traced.
pub(super) fn of_batch<'a>(
    rows: usize,
    first_seq: i64,
    postings: impl Iterator<Item = &'a Span>,
) -> Span {
    let mut batch = Span::none();
    for posting in postings.filter(|posting| !posting.is_none()) {
        if batch.is_none() {
            batch = info_span!(
                parent: None,
                "ledger.batch",
                otel.kind = "client",
                db.system.name = "postgresql",
                db.operation.name = "ledger.post",
                ledger.rows = rows,
                ledger.first_seq = first_seq,
                outcome = field::Empty,
            );
            // Kept, whatever its own number: it is made only where one of its postings is.
            begin_kept(&batch, &TraceIds::begin());
        }
        link(&batch, posting);
        link(posting, &batch);
    }
    batch
}

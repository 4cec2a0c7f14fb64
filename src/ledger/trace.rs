//! Trace spans of a posting and of the batch that commits it. The batch has a trace of its own, which is linked to the
//! traces of its postings.

use tracing::{Span, field, info_span};

use super::transfer::Posting;
use crate::telemetry::{TraceContext, in_trace, is_exported, link_span};

/// Opens the span of a posting, which covers the time from its arrival in the queue to its reply. The span is disabled
/// if the trace of the request is not sampled.
pub(super) fn posting_span(posting: &Posting) -> Span {
    if !is_exported(&Span::current()) {
        return Span::none();
    }
    info_span!("ledger.post", ledger.legs = posting.legs.len())
}

/// Opens the span of a batch, which covers the time from the acceptance of its postings to the commit. The span is
/// disabled if none of the postings is traced.
pub(super) fn batch_span<'a>(
    rows: usize,
    first_seq: i64,
    postings: impl Iterator<Item = &'a Span>,
) -> Span {
    let mut batch = Span::none();
    for posting in postings.filter(|posting| !posting.is_none()) {
        if batch.is_none() {
            // The batch is exported whether its own trace is sampled or not, because one of its postings is exported.
            batch = in_trace(&TraceContext::new_root(), || {
                info_span!(
                    parent: None,
                    "ledger.batch",
                    otel.kind = "client",
                    db.system.name = "postgresql",
                    db.operation.name = "ledger.post",
                    ledger.rows = rows,
                    ledger.first_seq = first_seq,
                    outcome = field::Empty,
                )
            });
        }
        link_span(&batch, posting);
        link_span(posting, &batch);
    }
    batch
}

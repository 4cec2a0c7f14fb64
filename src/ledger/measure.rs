//! What the ledger tells about itself.

use std::time::Instant;

use super::PostError;
use super::transfer::{Kind, Posted, Posting};
use crate::telemetry::Metrics;

/// One posting on its way.
pub(super) struct Measured {
    since: Instant,
    kind: Kind,
    keyed: bool,
}

impl Measured {
    pub(super) fn begin(posting: &Posting) -> Self {
        // A posting is named after its last leg that moves money, or after its first.
        let kinds = posting.legs.iter().map(|leg| leg.action.kind());
        let kind = kinds.clone().rfind(|kind| kind.moves_money() && *kind != Kind::Fee);
        let kind = kind.or_else(|| kinds.clone().next()).unwrap_or(Kind::Transfer);
        Self { since: Instant::now(), kind, keyed: posting.key.is_some() }
    }

    pub(super) fn end(self, metrics: &Metrics, answer: &Result<Posted, PostError>) {
        let (outcome, key) = match answer {
            Ok(Posted { replayed: true, .. }) => ("replayed", Some("replayed")),
            Ok(_) => {
                let seconds = self.since.elapsed().as_secs_f64();
                metrics.wallet_ledger_commit_duration_seconds.record(seconds);
                ("committed", Some("new"))
            }
            Err(PostError::Refused(refusal)) => {
                metrics.wallet_ledger_rejections_total.with([refusal.reason()]).increment(1);
                let conflict = refusal.reason() == "duplicate";
                ("rejected", conflict.then_some("conflict"))
            }
            Err(_) => ("error", None),
        };
        metrics.wallet_ledger_transfers_total.with([self.kind.name(), outcome]).increment(1);
        if let Some(key) = key.filter(|_| self.keyed) {
            metrics.wallet_idempotency_total.with([key]).increment(1);
        }
    }
}

/// A batch is in the book.
pub(super) fn sealed(metrics: &Metrics, transfers: usize, sent_at: Instant, head_seq: i64) {
    metrics.wallet_ledger_batch_size.record(to_gauge(transfers));
    metrics.wallet_ledger_write_duration_seconds.record(sent_at.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "exact until 2^53 transfers")]
    metrics.wallet_ledger_head_seq.set(head_seq as f64);
}

/// What alerts divide by must be there before it happens.
pub(super) fn announce(metrics: &Metrics) {
    for kind in [Kind::Deposit, Kind::Withdrawal, Kind::Transfer] {
        for outcome in ["committed", "rejected", "error"] {
            metrics.wallet_ledger_transfers_total.announce([kind.name(), outcome]);
        }
    }
    for outcome in ["sealed", "stale", "unavailable", "faulty"] {
        metrics.wallet_ledger_batches_total.announce([outcome]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count for a metric, not money")]
pub(super) fn to_gauge(count: usize) -> f64 {
    count as f64
}

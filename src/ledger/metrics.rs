//! Metrics of the ledger: timers of postings and batches, and the label values that are registered at the start.

use std::time::Instant;

use super::PostError;
use super::book::FIRST_BOOK;
use super::transfer::{Posted, Posting, TransferKind};
use crate::telemetry::{Metrics, gauge_value};

/// Times a posting and counts its result.
pub(super) struct PostingTimer {
    since: Instant,
    kind: TransferKind,
    has_key: bool,
}

impl PostingTimer {
    pub(super) fn start(posting: &Posting) -> Self {
        // A posting is counted under the kind of its last leg that moves money and is not a fee; if there is no such
        // leg, under the kind of its first leg.
        let kinds = posting.legs.iter().map(|leg| leg.action.kind());
        let kind = kinds.clone().rfind(|kind| kind.moves_money() && *kind != TransferKind::Fee);
        let kind = kind.or_else(|| kinds.clone().next()).unwrap_or(TransferKind::Transfer);
        Self { since: Instant::now(), kind, has_key: posting.key.is_some() }
    }

    pub(super) fn finish(self, metrics: &Metrics, result: &Result<Posted, PostError>) {
        let (outcome, key) = match result {
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
        if let Some(key) = key.filter(|_| self.has_key) {
            metrics.wallet_idempotency_total.with([key]).increment(1);
        }
    }
}

/// Times the stages of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct StageTimer {
    /// Time at which the batch's oldest posting was queued.
    queued: Instant,
    taken: Instant,
    sent: Instant,
}

impl StageTimer {
    pub(super) fn start(queued: Option<Instant>) -> Self {
        let taken = Instant::now();
        Self { queued: queued.unwrap_or(taken), taken, sent: taken }
    }

    /// Marks the end of the validation, right before the batch is sent to the database.
    pub(super) fn mark_sent(&mut self) {
        self.sent = Instant::now();
    }

    /// Records how long each stage of a batch took. Called when all postings of the batch have their replies; `written`
    /// is the time at which the batch was committed.
    pub(super) fn finish(self, metrics: &Metrics, written: Instant) {
        let stages = [
            ("queue", self.taken - self.queued),
            ("validate", self.sent - self.taken),
            ("write", written - self.sent),
            ("ack", written.elapsed()),
        ];
        for (stage, time) in stages {
            metrics.wallet_ledger_stage_duration_seconds.with([stage]).record(time.as_secs_f64());
        }
    }
}

/// Records the size of a committed batch and, if the batch is in the first book, its last seq.
pub(super) fn record_sealed_batch(metrics: &Metrics, transfers: usize, book: i32, head_seq: i64) {
    metrics.wallet_ledger_batch_size.record(to_gauge(transfers));
    if book == FIRST_BOOK {
        metrics.wallet_ledger_head_seq.set(gauge_value(head_seq));
    }
}

/// Registers metric series with the value 0 at the start, so that alerts and dashboards do not miss the first event.
pub(super) fn preregister(metrics: &Metrics) {
    for kind in [TransferKind::Deposit, TransferKind::Withdrawal, TransferKind::Transfer] {
        for outcome in ["committed", "rejected", "error"] {
            metrics.wallet_ledger_transfers_total.preregister([kind.name(), outcome]);
        }
    }
    let outcomes =
        ["sealed", "stale", "key_taken", "companion", "unavailable", "faulty", "unsettled"];
    for outcome in outcomes {
        metrics.wallet_ledger_batches_total.preregister([outcome]);
    }
    for outcome in ["won", "lost"] {
        metrics.wallet_ledger_head_races_total.preregister([outcome]);
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count for a metric, not money")]
pub(super) fn to_gauge(count: usize) -> f64 {
    count as f64
}
